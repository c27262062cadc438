"""Longest path through a schedule's orders: when each action runs if devices only wait for data.

A device runs one action at a time in the given order. F(s) runs after F(s−1); B or I of s after B or I of
s+1 and after F(s); W(s) after I(s). A full backward releases its gradient at its end; a joint F&B pair
starts when both inputs are there and releases both outputs at its end. A message between devices takes
``p2p`` and occupies neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.schedule.actions import Kind, Order
from simulator.schedule.legality import PAIR_B, PAIR_I, IllegalOrdersError, Program, compile_orders, unpaired
from simulator.schedule.notation import format_action


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Time of a device's whole share of one microbatch, in any unit; a chunk takes 1/v of it."""

    F: float
    B: float  # input gradient only
    W: float
    pair: float | None = None  # F&B with a full backward; None: F + B + W, nothing hidden
    p2p: float = 0.0  # one message between two devices, not divided by v

    def per_step(self, v: int) -> tuple[float, ...]:
        """Duration on one chunk of F, B, I, W, a pair with a full backward, a pair with an input gradient."""
        F, B, W = self.F / v, self.B / v, self.W / v
        pair = F + B + W if self.pair is None else self.pair / v
        return F, B + W, B, W, pair, pair - W


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """When every action runs, and what follows from it. Lists go by device, then by action in order."""

    orders: list[Order]
    start: list[list[float]]
    end: list[list[float]]
    work: float  # of the busiest device, nothing hidden: m(F+B+W), or mF forward-only

    @property
    def makespan(self) -> float:
        """First start to last end on any device."""
        return max(e[-1] for e in self.end if e) - min(s[0] for s in self.start if s)

    @property
    def bubble(self) -> float:
        """Makespan less m(F+B+W)."""
        return self.makespan - self.work

    @property
    def span_bubble(self) -> float:
        """Largest own first start to last end of a device, less m(F+B+W)."""
        return max(e[-1] - s[0] for s, e in zip(self.start, self.end, strict=True) if s) - self.work


def evaluate(
    orders: Sequence[Order], times: Times | Sequence[Times], v: int = 1, *, joint: bool = True
) -> Timeline:
    """Run every action as early as its device and its inputs allow.

    Args:
        orders: one per device.
        times: of a device's whole share of one microbatch; one for all, or one per device (messages take the
            sender's p2p).
        v: chunks per device (1 for DualPipe, whose stages take the full times).
        joint: a pair is one block; else its forward, then its backward, each releasing its output at once.

    Raises:
        IllegalOrdersError: see :mod:`simulator.schedule.legality`.
    """
    return replay(compile_orders(orders if joint else [list(unpaired(order)) for order in orders]), times, v)


def replay(program: Program, times: Times | Sequence[Times], v: int = 1) -> Timeline:
    """:func:`evaluate` for orders compiled before.

    Raises:
        IllegalOrdersError: the orders deadlock.
    """
    home = program.home
    per_device = [times] * len(program.steps) if isinstance(times, Times) else times
    durations = [t.per_step(v) for t in per_device]
    p2p = [t.p2p for t in per_device]
    messages_take_time = any(p2p)
    ready: list[float | None] = [None] * len(home)  # when each output is there
    start: list[list[float]] = [[] for _ in program.steps]
    end: list[list[float]] = [[] for _ in program.steps]
    waiting: dict[int, int] = {}  # slot → the device that cannot go on without it
    runnable = list(range(len(program.steps)))
    while runnable:
        device = runnable.pop()
        steps, starts, ends = program.steps[device], start[device], end[device]
        duration = durations[device]
        clock = ends[-1] if ends else 0.0
        for position in range(len(ends), len(steps)):
            code, awaited, released = steps[position]
            missing = False
            for slot in awaited:
                arrival = ready[slot]
                if arrival is None:
                    waiting[slot] = device
                    missing = True
                    break
                if messages_take_time and home[slot] != device:
                    arrival += p2p[home[slot]]
                if arrival > clock:  # noqa: PLR1730 (max is a third of this loop's time)
                    clock = arrival
            if missing:
                break
            starts.append(clock)
            clock += duration[code]
            ends.append(clock)
            for slot in released:
                ready[slot] = clock
                if slot in waiting:
                    runnable.append(waiting.pop(slot))
    _check_all_ran(program, end, waiting)
    return Timeline(orders=program.orders, start=start, end=end, work=_work(program, per_device) / v)


def _work(program: Program, per_device: Sequence[Times]) -> float:
    """m(F+B+W) of the busiest device, m·F forward-only; times v."""
    return max(
        sum(code in (Kind.F, PAIR_B, PAIR_I) for code, _, _ in steps)
        * (t.F if program.forward_only else t.F + t.B + t.W)
        for steps, t in zip(program.steps, per_device, strict=True)
    )


def _check_all_ran(program: Program, end: list[list[float]], waiting: dict[int, int]) -> None:
    """Name every device that is stuck and what it waits for."""
    stuck = sorted((device, slot) for slot, device in waiting.items())
    if stuck:
        reasons = [
            f"device {device} before {format_action(program.orders[device][len(end[device])])} waits for the "
            f"{program.describe_slot(slot)}"
            for device, slot in stuck
        ]
        raise IllegalOrdersError(f"the orders deadlock: {'; '.join(reasons)}", stuck[0][0])


def peak_live(orders: Sequence[Order]) -> list[int]:
    """Per device, most chunk-microbatches whose forward has started and whose W has not finished.

    It follows from the orders alone. Without any backward nothing is kept: one chunk-microbatch.
    """
    return _peak(orders, released_by=(Kind.B, Kind.W))


def peak_before_input_grad(orders: Sequence[Order]) -> list[int]:
    """:func:`peak_live`, but released at the end of the input gradient."""
    return _peak(orders, released_by=(Kind.B, Kind.I))


def _peak(orders: Sequence[Order], released_by: tuple[Kind, Kind]) -> list[int]:
    if all(action.kind == Kind.F and action.partner is None for order in orders for action in order):
        return [min(1, len(order)) for order in orders]
    peaks = []
    for order in orders:
        live = peak = 0
        for action in unpaired(order):
            if action.kind == Kind.F:
                live += 1
                peak = max(peak, live)
            elif action.kind in released_by:
                live -= 1
        peaks.append(peak)
    return peaks
