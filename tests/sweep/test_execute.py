"""Evaluations on processes of this machine: the same results, whatever happens to the processes."""

from __future__ import annotations

import os
import signal
from contextlib import closing

import pytest

from simulator.spec.errors import SpecError
from simulator.sweep.execute import Inline, Processes
from simulator.sweep.families import one_by_one
from simulator.sweep.read import read_sweep
from simulator.sweep.search import Progress, enumerate_layouts, search
from simulator.sweep.store import Store

pytestmark = pytest.mark.slow


def found(path, executor, progress=None):
    sweep = read_sweep(path)
    with Store(None, sweep.fingerprint, resume=False) as store:
        return search(sweep, store, executor, progress or Progress())


def kill_first(executor):
    """Kills its first worker when it has done what waits for it."""
    pid = executor._pools[0].submit(os.getpid).result()
    os.kill(pid, signal.SIGKILL)


def test_processes_give_the_same_results_and_one_that_dies_changes_nothing(sweep_file):
    killed = []

    def changed(progress: Progress) -> None:
        if progress.done and not killed:
            killed.append(progress.done)
            kill_first(executor)

    with closing(Processes(2)) as executor:
        outcome = found(sweep_file(), executor, Progress(changed=changed))
    assert killed
    assert outcome.ranked == found(sweep_file(), Inline()).ranked


def test_an_interruption_of_a_terminal_is_not_for_the_processes():
    with closing(Processes(1)) as executor:
        executor.prepare()
        (pool,) = executor._pools
        assert pool.submit(signal.raise_signal, signal.SIGINT).result() is None
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


class Deadly:
    """A constraint that ends the process it is sent to."""

    def __reduce__(self):
        return os._exit, (1,)


def test_processes_that_die_again_and_again_are_given_up_with_a_message(sweep_file):
    layouts, _ = enumerate_layouts(read_sweep(sweep_file()))
    with closing(Processes(2)) as executor, pytest.raises(SpecError, match="memory ran out"):
        list(executor.run(one_by_one(layouts), [Deadly()]))
