"""A real scheduler and two worker processes on the loopback interface."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.spec.errors import SpecError
from simulator.sweep.dask import DaskCluster
from simulator.sweep.execute import Inline
from simulator.sweep.read import read_sweep
from simulator.sweep.search import Progress, search
from simulator.sweep.store import Store

distributed = pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
ROOT = Path(__file__).parents[2]


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env=environment,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a scheduler, and its two workers."""
    contact = tmp_path / "scheduler.json"
    processes = [
        _start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
               "--scheduler-file", str(contact))
    ]  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not contact.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = [
            _start("distributed.cli.dask_worker", "--scheduler-file", str(contact), "--nthreads", "1",
                   "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path / name))
            for name in "ab"
        ]  # fmt: skip
        processes += workers
        with distributed.Client(scheduler_file=str(contact), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=30)
            address = client.scheduler.address
        yield address, workers
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _found(path, executor, progress=None):
    sweep = read_sweep(path)
    with Store(None, sweep.fingerprint, resume=False) as store:
        return search(sweep, store, executor, progress or Progress())


def test_a_cluster_gives_the_same_results_bit_for_bit(sweep_file, cluster):
    address, _ = cluster
    with DaskCluster(address) as executor:
        assert executor.workers == 2
        far = _found(sweep_file(), executor)
    near = _found(sweep_file(), Inline())
    assert far.ranked == near.ranked
    assert far.left_out == near.left_out


def test_a_worker_that_dies_changes_nothing(sweep_file, cluster):
    address, workers = cluster

    def kill(progress: Progress) -> None:
        if progress.done >= 4 and workers[0].poll() is None:
            workers[0].send_signal(signal.SIGKILL)
            workers[0].wait()

    with DaskCluster(address) as executor:
        far = _found(sweep_file(), executor, Progress(changed=kill))
    assert workers[0].returncode == -signal.SIGKILL
    assert far.ranked == _found(sweep_file(), Inline()).ranked


def test_nobody_at_the_address_is_said(monkeypatch):
    monkeypatch.setattr("simulator.sweep.dask.CONNECT_S", 0.5)
    with pytest.raises(SpecError, match="no Dask scheduler answers"):
        DaskCluster("tcp://127.0.0.1:9")
