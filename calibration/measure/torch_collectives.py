"""Timing collectives with torch.distributed, one process per rank: NCCL on GPUs, gloo on CPUs.

Rank 0 leads: it runs the plan, keeps the files and tells the others each case, so that what is on file and
when time is up is decided in one place. The others follow until it is done. Start it with ``torchrun``, or
with anything else that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from calibration.measure.plan import Case
from calibration.measure.session import Timing
from calibration.measure.torch_backend import TorchBackend

BATCHES = 7  # each timed as a whole, as nccl-tests does
ITERATIONS = 20  # of a batch
LARGE = 2**24
LARGE_ITERATIONS = 5
ELEMENT_BYTES = 2


def job_ranks(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes were started together; 1 outside a job."""
    return int(environment.get("WORLD_SIZE", "1"))


class CollectiveBackend:
    """All ranks of a job; ``device`` is ``cuda`` or ``cpu``.

    Raises RuntimeError where nodes have different numbers of ranks, or ranks are not numbered node by node.
    """

    def __init__(self, device: str, *, gpu: str = "") -> None:
        import torch.distributed as dist  # noqa: PLC0415  (an extra, gigabytes large)

        cuda = device.startswith("cuda")
        local = f"cuda:{os.environ['LOCAL_RANK']}" if cuda else "cpu"
        self._kernels = TorchBackend(local, gpu=gpu)
        self._torch, self._dist, self._device = self._kernels.torch, dist, local
        if cuda:
            self._torch.cuda.set_device(local)
        dist.init_process_group("nccl" if cuda else "gloo")
        self._control = dist.new_group(backend="gloo")
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.ranks_per_node = self._ranks_per_node()
        self.gpu = self._kernels.gpu
        self._groups: dict[tuple[int, int], Any] = {}

    def _ranks_per_node(self) -> int:
        hosts: list[str] = [""] * self.ranks
        self._dist.all_gather_object(hosts, socket.gethostname(), group=self._control)
        per_node = int(self.ranks // len(set(hosts)))
        if [hosts[rank - rank % per_node] for rank in range(self.ranks)] != hosts:
            raise RuntimeError(f"ranks must be numbered node by node, as many on each; they run on {hosts}")
        return per_node

    def describe(self) -> dict[str, str]:
        """The machine of rank 0, the job, and what steers NCCL."""
        steering = {key: value for key, value in os.environ.items() if key.startswith("NCCL_")}
        nodes = str(self.ranks // self.ranks_per_node)
        return {**self._kernels.describe(), "ranks": str(self.ranks), "nodes": nodes, **steering}

    def refuses(self, case: Case) -> str:
        """Why a case cannot run: memory, or too few ranks."""
        if case.number("nranks") > self.ranks:
            return f"needs more than the {self.ranks} ranks of this job"
        return self._kernels.refuses(case)

    def time(self, case: Case) -> Timing:
        """The slowest rank's time of one call, the median over batches; called on rank 0 only."""
        self._tell(case)
        return self._run(case)

    def follow(self) -> None:
        """Take part in what rank 0 times, until it is done."""
        while (case := self._tell(None)) is not None:
            self._run(case)
        self._dist.destroy_process_group()

    def finish(self) -> None:
        """Let the others go; called on rank 0 only."""
        self._tell(None)
        self._dist.destroy_process_group()

    def _tell(self, case: Case | None) -> Case | None:
        message = [case]
        self._dist.broadcast_object_list(message, src=0, group=self._control)
        return message[0]

    def _run(self, case: Case) -> Timing:
        ranks, nodes, size = (case.number(name) for name in ("nranks", "nodes", "size_bytes"))
        members = [
            node * self.ranks_per_node + index for node in range(nodes) for index in range(ranks // nodes)
        ]
        if (ranks, nodes) not in self._groups:
            self._groups[ranks, nodes] = self._dist.new_group(members)
        times = [0.0] * BATCHES
        if self.rank in members:
            call = self._call(case.text("collective"), size, members, self._groups[ranks, nodes])
            iterations = ITERATIONS if size < LARGE else LARGE_ITERATIONS
            self._batch(call, iterations)  # warm-up: connections are made at the first call
            times = [self._batch(call, iterations) for _ in range(BATCHES)]
        slowest = self._torch.tensor(times, dtype=self._torch.float64)
        self._dist.all_reduce(slowest, op=self._dist.ReduceOp.MAX, group=self._control)
        ordered = sorted(slowest.tolist())
        middle = statistics.median(ordered)
        return Timing(seconds=middle, spread=(ordered[-2] - ordered[1]) / 2.0 / middle, repeats=len(ordered))

    def _batch(self, call: Callable[[], object], iterations: int) -> float:
        """Seconds of one of ``iterations`` calls in a row."""
        self._synchronise()
        start = time.perf_counter()
        for _ in range(iterations):
            call()
        self._synchronise()
        return (time.perf_counter() - start) / iterations

    def _synchronise(self) -> None:
        if self._device != "cpu":
            self._torch.cuda.synchronize()

    def _call(self, collective: str, size: int, members: list[int], group: Any) -> Callable[[], object]:
        """The call, on tensors of the sizes that nccl-tests counts."""
        dist, torch, n = self._dist, self._torch, len(members)
        share = max(1, size // ELEMENT_BYTES // n)
        whole = torch.randn(share * n, device=self._device).to(torch.bfloat16)
        part = whole[:share].clone()
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
        scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
        calls: dict[str, Callable[[], object]] = {
            "all_reduce": lambda: dist.all_reduce(whole, group=group),
            "all_gather": lambda: gather(whole, part, group=group),
            "reduce_scatter": lambda: scatter(part, whole, group=group),
            "alltoall": lambda: dist.all_to_all_single(torch.empty_like(whole), whole, group=group),
            "broadcast": lambda: dist.broadcast(whole, members[0], group=group),
            "reduce": lambda: dist.reduce(whole, members[0], group=group),
            "sendrecv": lambda: self._exchange(whole, members, group),
        }
        return calls[collective]

    def _exchange(self, tensor: Any, members: list[int], group: Any) -> None:
        """Both ranks send to each other at once, as nccl-tests' sendrecv does."""
        dist = self._dist
        other = members[1 - members.index(self.rank)]
        arriving = self._torch.empty_like(tensor)
        operations = [
            dist.P2POp(dist.isend, tensor, other, group),
            dist.P2POp(dist.irecv, arriving, other, group),
        ]
        for request in dist.batch_isend_irecv(operations):
            request.wait()
