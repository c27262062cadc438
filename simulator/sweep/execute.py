"""Runs evaluations: in this process, on the local cores, or on the machines of a Dask cluster."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import closing, contextmanager
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Protocol

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
    """On several processes of this machine, each with caches and a queue of its own. To be closed."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pools: list[ProcessPoolExecutor] = []
        self._lives = LIVES

    def prepare(self) -> None:
        """Starts the processes, which takes as long as some dozen evaluations do."""
        self._pools = self._pools or [_started() for _ in range(self.workers)]

    def run(self, take: Take, after: Sequence[Constraint]) -> Iterator[list[Evaluation]]:
        """Finished evaluations, a part at a time. What a dying process had begun is done by another.

        Raises SpecError where they die again and again.
        """
        self.prepare()
        running: dict[Future[list[Evaluation]], tuple[int, list[Layout]]] = {}

        def submit(worker: int, layouts: list[Layout]) -> None:
            if layouts:
                future = self._pools[worker].submit(_evaluate, layouts, after)
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

    pool = ProcessPoolExecutor(max_workers=1, initializer=_settle, initargs=(os.getpid(),))
    listens = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is for the command
    try:
        pool.submit(os.getpid)  # the first task starts it
    finally:
        signal.signal(signal.SIGINT, listens)
    return pool


def _evaluate(layouts: Sequence[Layout], after: Sequence[Constraint]) -> list[Evaluation]:
    """In a worker process."""
    from simulator.sweep.evaluate import evaluate_all  # noqa: PLC0415  0.5 s, only here

    found = evaluate_all(layouts, after)
    gc.freeze()  # what is left is caches, and loky looks through everything for garbage once a second
    return found


def _settle(parent: int) -> None:
    """Makes a worker process ready: evaluations say when garbage is collected, and it ends when its parent
    does, even if that is killed."""
    gc.disable()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
    import_module("simulator.sweep.evaluate")


@contextmanager
def local_executor(workers: int, *, prepared: bool) -> Iterator[Executor]:
    """This process for one worker, processes for more; 0 takes every core this process may use.

    ``prepared``: processes start at once, as there will be work for them.
    """
    if workers == 0:
        from loky import cpu_count  # noqa: PLC0415  knows of containers and affinities

        workers = cpu_count()
    if workers == 1:
        yield Inline()
        return
    with closing(Processes(workers)) as processes:
        if prepared:
            processes.prepare()
        yield processes
