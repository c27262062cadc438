"""Runs evaluations: in this process, on the local cores, or on the machines of a Dask cluster."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from functools import cache
from importlib import import_module
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from simulator.spec.errors import Problem, SpecError
from simulator.sweep.choices import Constraint
from simulator.sweep.evaluation import Evaluation
from simulator.sweep.families import Take
from simulator.sweep.space import Layout

if TYPE_CHECKING:
    from loky import ProcessPoolExecutor

LIVES = 4  # of worker processes


class Executor(Protocol):
    """Evaluates layouts in any order. Closing the iterator stops the work."""

    @property
    def workers(self) -> int:
        """How many evaluations run at once."""
        ...

    def run(self, take: Take, after: Sequence[Constraint]) -> Iterator[list[Evaluation]]:
        """Finished evaluations as they come. Workers that become free ``take`` more."""
        ...


class Inline:
    """In this process, one by one."""

    workers = 1

    def run(self, take: Take, after: Sequence[Constraint]) -> Iterator[list[Evaluation]]:
        """Finished evaluations, one at a time."""
        from simulator.sweep.evaluate import evaluate_all  # noqa: PLC0415  0.5 s, not needed beside workers

        while layouts := take(0):
            for layout in layouts:
                yield evaluate_all([layout], after)


class Processes:
    """On several processes of this machine, each with caches and a queue of its own.

    Use it as a context manager: it ends them.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pools: list[ProcessPoolExecutor] = []
        self._lives = LIVES

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def prepare(self) -> None:
        """Starts the processes, which takes as long as some dozen evaluations do."""
        if self._pools:
            return
        self._pools = [_started() for _ in range(self.workers)]

    def run(self, take: Take, after: Sequence[Constraint]) -> Iterator[list[Evaluation]]:
        """Finished evaluations, a part at a time. What a dying process had begun is done by another.

        Raises SpecError where they die again and again.
        """
        self.prepare()
        running: dict[Future[list[Evaluation]], tuple[int, list[Layout]]] = {}

        def submit(worker: int, layouts: list[Layout]) -> None:
            if layouts:
                future = self._pools[worker].submit(_as_child, os.getpid(), layouts, after)
                running[future] = worker, layouts

        try:
            for worker in 2 * list(range(self.workers)):  # a second part waits while the first is kept
                submit(worker, take(worker))
            while running:
                for finished in wait(running, return_when=FIRST_COMPLETED).done:
                    worker, layouts = running.pop(finished)
                    if isinstance(finished.exception(), BrokenExecutor):
                        self._revive(worker)
                        submit(worker, layouts)
                    else:
                        submit(worker, take(worker))
                        yield finished.result()
        finally:
            self.close()

    def _revive(self, worker: int) -> None:
        """Starts a process anew, if that has not been done since it died."""
        try:
            self._pools[worker].submit(os.getpid)
        except BrokenExecutor:
            self._lives -= 1
            if not self._lives:
                rule = f"{LIVES} worker processes were killed, perhaps because memory ran out"
                problem = Problem(file="--workers", value=self.workers, rule=rule, suggestion="fewer of them")
                raise SpecError(problem) from None
            self._pools[worker] = _started()

    def close(self) -> None:
        """Ends the processes, whatever they do."""
        for pool in self._pools:
            pool.shutdown(kill_workers=True)
        self._pools = []


def _started() -> ProcessPoolExecutor:
    """A process that gets ready to evaluate."""
    from loky import ProcessPoolExecutor  # noqa: PLC0415  needed only here

    pool = ProcessPoolExecutor(max_workers=1)
    listens = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is for the command
    try:
        pool.submit(_settle, os.getpid())
    finally:
        signal.signal(signal.SIGINT, listens)
    return pool


def _as_child(parent: int, layouts: Sequence[Layout], after: Sequence[Constraint]) -> list[Evaluation]:
    """Evaluates in a worker process, which ends when its parent does, even if that is killed."""
    from simulator.sweep.evaluate import evaluate_all  # noqa: PLC0415  0.5 s, only here

    _settle(parent)
    found = evaluate_all(layouts, after)
    gc.freeze()  # what is left is caches, and loky looks through everything for garbage once a second
    return found


@cache
def _settle(parent: int) -> None:
    """Makes a process ready, once. It watches its parent, and evaluations say when garbage is collected."""
    gc.disable()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
    import_module("simulator.sweep.evaluate")


def executor_for(workers: int) -> Inline | Processes:
    """This process for one worker, processes for more; 0 takes every core this process may use."""
    if workers == 0:
        from loky import cpu_count  # noqa: PLC0415  knows of containers and affinities

        workers = cpu_count()
    return Inline() if workers == 1 else Processes(workers)
