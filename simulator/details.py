"""What pictures of a step show beyond its numbers. Times in seconds from the start of the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One piece of a schedule's action on a pipeline device; a pair that overlaps is two with equal times."""

    device: int
    kind: str  # F, B, I or W
    stage: int  # virtual stage along the model
    microbatch: int
    direction: int  # 1: it entered at the last device (DualPipe)
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """One event of the timeline lets another start: a message, or a collective before or after compute.

    ``source`` and ``target`` are positions in :attr:`simulator.result.Result.timeline`.
    """

    name: str
    category: str
    source: int
    target: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """A quantity over time: ``values[i]`` holds from ``times_s[i]`` to the next one."""

    device: int
    process: str  # as in the timeline
    name: str
    unit: str  # bytes, bytes/s
    capacity: float
    times_s: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorUse:
    """All runs of one distinct operator in a step, as the mean over GPUs."""

    name: str
    category: str
    dtype: str  # of tensor-core work; empty otherwise
    runs: float
    seconds: float  # of one run
    flops: float  # of one run
    bytes: float  # of one run: device memory traffic, or the size of a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Communication:
    """Seconds that a GPU communicates along an axis in a step, and those its compute stream waits for it."""

    total_s: float
    exposed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupShape:
    """Where the ranks of a parallel axis sit."""

    ranks: int
    ranks_per_node: int
    nodes: int
    domains: int
    tier: str  # the highest switch level its messages cross; empty inside a domain


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """Everything at once; made only where a picture was asked for."""

    work: tuple[Work, ...]
    arrows: tuple[Arrow, ...]
    counters: tuple[Counter, ...]
    operators: tuple[OperatorUse, ...]
    communication: Mapping[str, Communication]  # by axis
    groups: Mapping[str, GroupShape]  # by axis
    memory_bandwidth: float  # of the device, bytes/s
    peak_flops: Mapping[str, float]  # dense, by precision
