"""Runs evaluations: in this process, on the local cores, or on the machines of a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from simulator.sweep.evaluation import Evaluation, evaluate_all
from simulator.sweep.space import Constraint, Layout

T = TypeVar("T")


class Executor(Protocol):
    """Evaluates layouts in any order. Closing the iterator stops the work."""

    def run(self, layouts: Sequence[Layout], after: Sequence[Constraint]) -> Iterator[list[Evaluation]]:
        """Finished evaluations, a few at a time, as they come."""
        ...


class Inline:
    """In this process, one by one."""

    def run(self, layouts: Sequence[Layout], after: Sequence[Constraint]) -> Iterator[list[Evaluation]]:
        """Finished evaluations, one at a time."""
        for layout in layouts:
            yield evaluate_all([layout], after)


class Processes:
    """On ``workers`` processes of this machine. They live on between calls, with their caches."""

    def __init__(self, workers: int, chunk: int = 8) -> None:
        self.workers = workers
        self.chunk = chunk

    def run(self, layouts: Sequence[Layout], after: Sequence[Constraint]) -> Iterator[list[Evaluation]]:
        """Finished evaluations, a chunk at a time."""
        from joblib import Parallel, delayed  # noqa: PLC0415  0.2 s, needed only here

        size = max(1, min(self.chunk, -(-len(layouts) // (4 * self.workers))))
        parallel = Parallel(n_jobs=self.workers, return_as="generator_unordered", pre_dispatch="3*n_jobs")
        tasks = (delayed(evaluate_all)(part, after) for part in chunks(layouts, size))
        yield from parallel(tasks)


def chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """Consecutive parts of a sequence."""
    source = iter(items)
    while part := list(islice(source, size)):
        yield part


def executor_for(workers: int) -> Executor:
    """This process for one worker, processes for more; 0 takes every core this process may use."""
    if workers == 0:
        from joblib import cpu_count  # noqa: PLC0415  knows of containers and affinities

        workers = cpu_count()
    return Inline() if workers == 1 else Processes(workers)
