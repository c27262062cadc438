"""A schedule made for measured times: greedy search under a memory limit, after Qi et al. 2024, section 3.

Every device takes, whenever it is free, the best action whose input is there: an input gradient, or a
forward if memory allows; weight gradients fill what would be idle, and run when their activations must go.
Many policies are tried, with one stage per device and with two in a V: how far devices may run ahead, which
action goes first (also: the one that a lean repeating pattern has first), how much of a gap a weight gradient
needs. They are compared with the patterns themselves and with every registered synchronous schedule that
fits the same memory. The shortest step wins, so the result is never worse than the best of those.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf

from simulator.schedule.actions import Action, Kind, Order
from simulator.schedule.definition import looped, v_shape
from simulator.schedule.evaluate import Timeline, Times, evaluate
from simulator.schedule.legality import unpaired
from simulator.schedule.notation import F, I, W
from simulator.schedule.registry import SCHEDULES
from simulator.schedule.v_blocks import PERIOD, Starts, blocks, repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The best schedule of a search."""

    name: str  # "greedy", "pattern" or a registered schedule's
    v: int
    placement: list[list[int]]
    orders: list[Order]
    timeline: Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class _Policy:
    ahead: float  # stage s may have ahead·(p·v−s)/v microbatches between forward and input gradient
    forward_first: bool  # after an input gradient, a forward that is ready goes before another input gradient
    gap: float  # a weight gradient fills a gap of at least this share of itself
    block: tuple[Starts, ...] = ()  # go by this pattern's order of forwards and input gradients instead


_GAPS = (0.0, 0.5, 1.0)
_LONG = 256  # microbatches on all devices, from which on fewer ways are tried
_MOST_PATTERNS = 6
_SHORTLISTED = 8
_POLICIES = [
    _Policy(ahead=ahead, forward_first=forward_first, gap=gap)
    for ahead, forward_first, gap in product((1.0, 1.5, 2.0, inf), (True, False), _GAPS)
]


def search(
    p: int,
    m: int,
    times: Times | Sequence[Times],
    memory: float | Sequence[float],
    *,
    kept_for_weight: float = 1.0,
    chunks: Sequence[int] = (1, 2),
    copies: int = 1,
    interlocking: bool = False,
) -> Found:
    """The shortest synchronous step found; arguments and errors of :func:`ranked`."""
    found = ranked(
        p,
        m,
        times,
        memory,
        kept_for_weight=kept_for_weight,
        chunks=chunks,
        copies=copies,
        interlocking=interlocking,
    )
    return found[0]


def ranked(
    p: int,
    m: int,
    times: Times | Sequence[Times],
    memory: float | Sequence[float],
    *,
    kept_for_weight: float = 1.0,
    chunks: Sequence[int] = (1, 2),
    copies: int = 1,
    interlocking: bool = False,
) -> list[Found]:
    """Everything tried that fits, the shortest synchronous step first.

    Args:
        times: of a device's whole share of one microbatch, and of a message between devices; one for all, or
            one per device.
        memory: activations that fit, in microbatches of a device's whole share; one number or one per device.
        kept_for_weight: share of a microbatch's activations that stay between its input and weight gradient.
        chunks: chunks per device that may be used.
        copies: 2 admits schedules that hold two copies of the model's stages (DualPipe).
        interlocking: steps may interlock (the optimizer step is validated later), so that the longest own
            span of a device counts instead of the makespan.

    Raises:
        ValueError: no schedule fits; says how much memory the leanest one needs.
    """
    limits = [float(memory)] * p if isinstance(memory, int | float) else [float(limit) for limit in memory]
    per_device = [times] * p if isinstance(times, Times) else list(times)
    fitting: list[tuple[float, Found]] = []
    leanest = inf
    for name, v, placement, orders in _candidates(p, m, per_device, limits, kept_for_weight, chunks, copies):
        peaks = [peak_kept(order, kept_for_weight) / v for order in orders]
        leanest = min(leanest, max(peaks))
        if any(peak > limit + 1e-9 for peak, limit in zip(peaks, limits, strict=True)):
            continue
        timeline = evaluate(orders, per_device, v)
        step = timeline.work + (timeline.span_bubble if interlocking else timeline.bubble)
        fitting.append((step, Found(name=name, v=v, placement=placement, orders=orders, timeline=timeline)))
    if not fitting:
        raise ValueError(
            f"no schedule of {m} microbatches on {p} devices fits {min(limits):g} microbatches' activations; "
            f"the leanest needs {leanest:g}"
        )
    shortest = min(step for step, _ in fitting)
    # of equal ones the first tried: a schedule with a name
    return [found for _, found in sorted(fitting, key=lambda each: round(each[0] / shortest, 12))]


def _candidates(
    p: int,
    m: int,
    times: Sequence[Times],
    limits: list[float],
    kept: float,
    chunks: Sequence[int],
    copies: int,
) -> Iterator[tuple[str, int, list[list[int]], list[Order]]]:
    """(name, v, placement, orders) of the registered schedules, the patterns and the greedy policies."""
    for schedule in SCHEDULES.values():
        wanted = schedule.synchronous and not schedule.forward_only and schedule.directions <= copies
        for v in sorted({*chunks, schedule.natural_v} if schedule.directions == 2 else set(chunks)):
            if wanted and schedule.check(p, m, v) is None:
                yield schedule.name, v, schedule.placement(p, v), schedule.order(p, m, v)
    for v, placement in ((1, looped(p, 1)), (2, v_shape(p, 2))):
        if v not in chunks or min(limits) < 1:
            continue
        patterns = _patterns(p, m, limits, kept) if v == 2 else ()
        for block in patterns:
            yield "pattern", v, placement, repeat(block, m)
        by_pattern = [
            _Policy(ahead=inf, forward_first=True, gap=gap, block=block)
            for block in patterns
            for gap in _GAPS
        ]
        for policy in _shortlist(m, times, limits, kept, placement, _POLICIES + by_pattern):
            yield "greedy", v, placement, _Greedy(m, times, limits, kept, placement, policy).run()


def _patterns(p: int, m: int, limits: list[float], kept: float) -> Sequence[tuple[Starts, ...]]:
    """All patterns or, of long steps, the leanest, the richest that fit (with short ends), the next two.

    Beyond memory a pattern may still say what goes first.
    """
    leanest, *rest = blocks(p)
    if p * m <= _LONG:
        return (leanest, *rest)
    probe = min(m, 3 * p)

    def fits(block: tuple[Starts, ...]) -> bool:
        peaks = [peak_kept(order, kept) / 2 for order in repeat(block, probe)]
        return all(peak <= limit for peak, limit in zip(peaks, limits, strict=True))

    count = sum(map(fits, rest))  # they go from lean to rich
    return (leanest, *rest[max(0, count - _MOST_PATTERNS) : count + 2])


def _shortlist(
    m: int,
    times: Sequence[Times],
    limits: list[float],
    kept: float,
    placement: list[list[int]],
    policies: list[_Policy],
) -> list[_Policy]:
    """The policies that do best on a short step, where the step is long."""
    p, v = len(placement), len(placement[0])
    short = 2 * p
    if m <= 2 * short:
        return policies

    def makespan(policy: _Policy) -> float:
        orders = _Greedy(short, times, limits, kept, placement, policy).run()
        return evaluate(orders, times, v).makespan

    return sorted(policies, key=makespan)[:_SHORTLISTED]


def peak_kept(order: Order, kept: float) -> float:
    """Most activations alive on a device, in chunk-microbatches; ``kept``: share that waits for W."""
    live = peak = 0.0
    for action in unpaired(order):
        live += {Kind.F: 1.0, Kind.B: -1.0, Kind.I: kept - 1.0, Kind.W: -kept}[action.kind]
        peak = max(peak, live)
    return peak


class _Greedy:
    """Simulates all devices side by side and writes down what each one picks."""

    def __init__(
        self,
        m: int,
        times: Sequence[Times],
        limits: list[float],
        kept: float,
        placement: list[list[int]],
        policy: _Policy,
    ) -> None:
        self.policy, self.placement, self.kept = policy, placement, kept
        v, p = len(placement[0]), len(placement)
        self.duration = [each.per_step(v) for each in times]
        self.p2p = [each.p2p for each in times]
        self.last = p * v - 1
        self.home = {stage: (d, c) for d, stages in enumerate(placement) for c, stage in enumerate(stages)}
        self.room = [limit * v for limit in limits]
        self.ahead = [min(m, max(1.0, policy.ahead * (p * v - stage) / v)) for stage in range(p * v)]
        # arrival times of inputs by stage, in microbatch order
        self.activations: dict[int, list[float]] = {stage: [] for stage in self.home}
        self.activations[0] = [0.0] * m
        self.gradients: dict[int, list[float]] = {stage: [] for stage in self.home}
        self.forwards = dict.fromkeys(self.home, 0)
        self.backwards = dict.fromkeys(self.home, 0)
        self.owed: list[deque[Action]] = [deque() for _ in placement]
        self.live = [0.0] * p
        self.orders: list[Order] = [[] for _ in placement]
        self.free = [0.0] * p
        self.after_forward = [False] * p
        self.wake = [(0.0, d) for d in range(p)]

    def run(self) -> list[Order]:
        """The orders, once nothing is left to pick."""
        while self.wake:
            now, device = heapq.heappop(self.wake)
            if now < self.free[device]:
                continue
            action = self.pick(device, now)
            if action is not None:
                self.start(device, action, now)
        return self.orders

    def pick(self, device: int, now: float) -> Action | None:
        """What to run now, or None to wait for the next input."""
        ready: list[tuple[float, Action]] = []
        memory_waits, next_arrival = False, inf
        for chunk, stage in enumerate(self.placement[device]):
            k, arrival = self.next_input(stage, self.activations, self.forwards)
            if self.forwards[stage] - self.backwards[stage] < self.ahead[stage] and arrival < inf:
                if self.full(device, stage):
                    memory_waits |= arrival <= now
                elif arrival <= now:
                    ready.append((self.rank(device, chunk, k, Kind.F), F(stage, k)))
                else:
                    next_arrival = min(next_arrival, arrival)
            k, arrival = self.next_input(stage, self.gradients, self.backwards)
            if arrival <= now:
                ready.append((self.rank(device, chunk, k, Kind.I), I(stage, k)))
            else:
                next_arrival = min(next_arrival, arrival)
        if ready:
            return min(ready)[1]
        if not self.owed[device]:
            return None
        fills = next_arrival - now >= self.policy.gap * self.duration[device][Kind.W]
        return self.owed[device][0] if memory_waits or fills else None

    def next_input(
        self, stage: int, arrivals: dict[int, list[float]], taken: dict[int, int]
    ) -> tuple[int, float]:
        """The stage's next microbatch, and when its input is there (∞: not known yet)."""
        k = taken[stage]
        return k, arrivals[stage][k] if k < len(arrivals[stage]) else inf

    def rank(self, device: int, chunk: int, microbatch: int, kind: Kind) -> float:
        """The lowest of the ready actions goes first: by pattern, or by kind and then the later chunk."""
        if self.policy.block:
            starts = self.policy.block[device]
            return starts[chunk if kind == Kind.F else 3 - chunk] + PERIOD * microbatch
        forward_wins = self.policy.forward_first and not self.after_forward[device]
        return ((kind == Kind.F) != forward_wins) * len(self.placement[device]) - chunk

    def full(self, device: int, stage: int) -> bool:
        """Whether memory lacks room. A place is kept for each later chunk, so that none gets stuck."""
        later_chunks = len(self.placement[device]) - 1 - self.home[stage][1]
        return self.live[device] + 1 > self.room[device] - later_chunks + 1e-9

    def start(self, device: int, action: Action, now: float) -> None:
        """Book an action: order, memory, and when its output arrives where."""
        kind, stage = action.kind, action.stage
        end = now + self.duration[device][kind]
        self.orders[device].append(action)
        self.free[device] = end
        self.after_forward[device] = kind == Kind.F
        heapq.heappush(self.wake, (end, device))
        if kind == Kind.W:
            self.owed[device].popleft()
            self.live[device] -= self.kept
            return
        if kind == Kind.F:
            self.forwards[stage] += 1
            self.live[device] += 1
            target, inputs = (stage + 1, self.activations) if stage < self.last else (stage, self.gradients)
        else:
            self.backwards[stage] += 1
            self.live[device] -= 1 - self.kept
            self.owed[device].append(W(stage, action.microbatch))
            target, inputs = stage - 1, self.gradients
        if target >= 0:
            reader = self.home[target][0]
            arrival = end + (self.p2p[device] if reader != device else 0.0)
            inputs[target].append(arrival)
            heapq.heappush(self.wake, (arrival, reader))
