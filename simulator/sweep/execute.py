"""Runs evaluations: in this process, on the local cores, or on the machines of a Dask cluster."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from threading import Thread
from typing import Protocol, TypeVar

from simulator.sweep.choices import Constraint
from simulator.sweep.evaluation import Evaluation, evaluate_all
from simulator.sweep.space import Layout

T = TypeVar("T")


class Executor(Protocol):
    """Evaluates layouts in any order. Closing the iterator stops the work."""

    @property
    def workers(self) -> int:
        """How many evaluations run at once."""
        ...

    def run(
        self, layouts: Iterable[Layout], after: Sequence[Constraint], chunk: int
    ) -> Iterator[list[Evaluation]]:
        """Finished evaluations as they come; workers are given ``chunk`` layouts at a time.

        ``layouts`` is read as workers become free, possibly in another thread.
        """
        ...


class Inline:
    """In this process, one by one."""

    workers = 1

    def run(
        self, layouts: Iterable[Layout], after: Sequence[Constraint], chunk: int
    ) -> Iterator[list[Evaluation]]:
        """Finished evaluations, one at a time."""
        for layout in layouts:
            yield evaluate_all([layout], after)


class Processes:
    """On several processes of this machine. They live on between calls, with their caches."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(
        self, layouts: Iterable[Layout], after: Sequence[Constraint], chunk: int
    ) -> Iterator[list[Evaluation]]:
        """Finished evaluations, a chunk at a time."""
        from joblib import Parallel, delayed  # noqa: PLC0415  0.2 s, needed only here

        parallel = Parallel(
            n_jobs=self.workers, return_as="generator_unordered", pre_dispatch="2*n_jobs", batch_size=1
        )
        yield from parallel(delayed(_as_child)(os.getpid(), part, after) for part in chunks(layouts, chunk))


def _as_child(parent: int, layouts: Sequence[Layout], after: Sequence[Constraint]) -> list[Evaluation]:
    """Evaluates in a worker process, which ends when its parent does, even if that is killed."""
    _settle(parent)
    found = evaluate_all(layouts, after)
    gc.freeze()  # what is left is caches, and joblib looks through everything for garbage once a second
    return found


@cache
def _settle(parent: int) -> None:
    """Starts a watch, once in a process, and leaves it to evaluations when garbage is collected."""
    gc.disable()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive parts."""
    source = iter(items)
    while part := list(islice(source, size)):
        yield part


def executor_for(workers: int) -> Executor:
    """This process for one worker, processes for more; 0 takes every core this process may use."""
    if workers == 0:
        from joblib import cpu_count  # noqa: PLC0415  knows of containers and affinities

        workers = cpu_count()
    return Inline() if workers == 1 else Processes(workers)
