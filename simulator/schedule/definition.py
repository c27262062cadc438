"""What a pipeline schedule is: an order of actions per device, its placement, and when it is defined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simulator.schedule.actions import Order


def looped(p: int, v: int) -> list[list[int]]:
    """Stage s on device s mod p (Narayanan 2021)."""
    return [list(range(i, p * v, p)) for i in range(p)]


def v_shape(p: int, v: int) -> list[list[int]]:
    """Down the devices and back up: device i holds stages i and 2p−1−i (Qi 2024)."""
    return [[i, 2 * p - 1 - i] for i in range(p)]


def both_directions(p: int, v: int) -> list[list[int]]:
    """Stage i of the model entered at device 0, stage p−1−i of the copy entered at device p−1 (DualPipe)."""
    return [[i, p - 1 - i] for i in range(p)]


def one_chunk(p: int, m: int, v: int) -> str | None:
    """Schedules with one stage per device."""
    if v != 1:
        return f"one chunk per device, not {v}; use v = 1, or interleaved-1f1b, interleaved-zb or looped-bfs"
    return None


def two_chunks(p: int, m: int, v: int) -> str | None:
    """Schedules with the V placement."""
    return None if v == 2 else f"its V placement has exactly two chunks per device, not {v}; use v = 2"


def any_chunks(p: int, m: int, v: int) -> str | None:
    """Schedules that run any number of chunks and microbatches."""
    return None


def one_version(p: int, i: int) -> int:
    """Synchronous schedules flush before the optimizer, so one version of the weights is enough."""
    return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A pipeline schedule. p devices, m microbatches, v chunks per device, i the device (0-based).

    ``order(p, m, v)`` gives one :data:`Order` per device, where ``check`` finds nothing.
    """

    name: str
    reference: str
    trade_off: str
    bubble: str  # formula in F, B, W of a device's whole share of one microbatch
    memory: str  # peak live activations of device i
    order: Callable[[int, int, int], list[Order]]
    placement: Callable[[int, int], list[list[int]]] = looped  # (p, v) → virtual stages held by each device
    rule: Callable[[int, int, int], str | None] = one_chunk
    natural_v: int = 1  # chunks per device where the user names none
    splits_backward: bool = False  # runs I and W apart
    pairs: bool = False  # runs a forward and a backward as one overlapped action
    default_overlap_p2p: bool = False  # sends and receives run beside compute
    synchronous: bool = True  # flushes before every optimizer step
    forward_only: bool = False
    directions: int = 1  # 2: microbatches enter at both ends, and every device holds two copies' stages
    weight_versions: Callable[[int, int], int] = one_version  # (p, i) → versions of the weights kept
    updates_every_microbatch: bool = False  # asynchronous ones: else once per step

    def check(self, p: int, m: int, v: int) -> str | None:
        """The rule that p, m, v break, in words with a remedy, or None."""
        for name, value in (("p", p), ("m", m), ("v", v)):
            if value < 1:
                return f"schedule {self.name}: {name} = {value} must be at least 1"
        broken = self.rule(p, m, v)
        return broken and f"schedule {self.name}: {broken}"

    def require(self, p: int, m: int, v: int) -> None:
        """Raises ValueError where the schedule is not defined for p, m, v."""
        broken = self.check(p, m, v)
        if broken:
            raise ValueError(broken)

    def checked_order(self, p: int, m: int, v: int) -> list[Order]:
        """``order`` where the schedule is defined.

        Raises:
            ValueError: the schedule is not defined for p, m, v.
        """
        self.require(p, m, v)
        return self.order(p, m, v)
