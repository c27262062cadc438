"""``schedule: automatic``: the shortest schedule found that keeps to a limit of memory on every device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from simulator.engine.block import Blocks
from simulator.memory.activations import Passes
from simulator.preparation.prepared import Prepared, with_schedule
from simulator.schedule.actions import Order
from simulator.schedule.automatic import Found, peak_kept, ranked
from simulator.schedule.definition import Schedule
from simulator.schedule.evaluate import Times, evaluate
from simulator.schedule.registry import SCHEDULES
from simulator.spec.run import RunSpec

CLOSE = 1.1  # what takes that many times longer by its longest path is not replayed
MADE = 3  # so many of those that have no name are replayed
MEASURED = {1: "1f1b", 2: "zb-v"}  # by vp: under which schedule times and bytes are measured


def choose_schedule(run: RunSpec, blocks: Blocks) -> Prepared:
    """The run under the schedule with the shortest step of those that fit.

    Searched with the times of the run's own stages and messages and the bytes of its activations. The best
    that were made, and every schedule with a name that comes close, are replayed whole, so that the result is
    never slower than one with a name that fits.

    Raises:
        ValueError: nothing fits.
    """
    measured = with_schedule(run, measured_schedule(run))
    limit = run.parallelism.stage_memory or run.cluster.device.memory_bytes
    times = _times(measured, blocks)
    tried = [
        (prepared.replay(blocks).seconds, prepared)
        for prepared in _close(_candidates(measured, limit, times), times)
    ]
    if not tried:
        raise ValueError(
            f"schedule automatic: none fits {limit / 2**30:.1f} GiB on every device; raise "
            "parallelism.stage_memory, use recompute, a higher tp or pp, or name a schedule"
        )
    seconds, best = min(tried, key=lambda each: each[0])
    return replace(best, choices=(_words(seconds, best, tried),))


def measured_schedule(run: RunSpec) -> Schedule:
    """Under which times and bytes of a run are measured."""
    return SCHEDULES[MEASURED.get(run.parallelism.vp, "interleaved-zb")]


def _times(measured: Prepared, blocks: Blocks) -> list[Times]:
    """Of each device's whole share of one microbatch, as the engine has it; messages alone on their links."""
    plan, message = measured.plan, measured.plan.message_bytes

    def total(device: Sequence[int], part: str) -> float:
        layers = [layer for stage in device for layer in plan.chunks[stage].layers]
        return sum(blocks.block(getattr(layer, part)).seconds for layer in layers)

    return [
        Times(
            F=total(held, "forward"),
            B=total(held, "input_gradient"),
            W=total(held, "weight_gradient"),
            p2p=blocks.costs.hop(message, device),
        )
        for device, held in enumerate(measured.held)
    ]


def _candidates(measured: Prepared, limit: float, times: list[Times]) -> Iterator[Prepared]:
    """What fits: schedules with a name, and the best that were made."""
    run, p = measured.run, measured.run.parallelism
    named = [
        schedule
        for schedule in SCHEDULES.values()
        if schedule.synchronous
        and not schedule.forward_only
        and schedule.directions == 1
        and (p.vp > 1 or schedule.natural_v == 1)
    ]
    made: list[Schedule] = []
    rooms, kept = _rooms(measured, limit)
    if min(rooms) > 0:
        with suppress(ValueError):  # nothing made fits
            found = ranked(p.pp, run.microbatches, times, rooms, kept_for_weight=kept, chunks=(p.vp,))
            made = [_made(each) for each in found if each.name not in SCHEDULES][:MADE]
    for schedule in (*named, *made):
        if schedule.check(p.pp, run.microbatches, p.vp) is None:
            prepared = with_schedule(run, schedule)
            if prepared.memory().peak_bytes <= limit and prepared.can_run:
                yield prepared


def _close(candidates: Iterator[Prepared], times: list[Times]) -> list[Prepared]:
    """Those whose longest path is not much longer than the shortest one's."""
    lengths = []
    for each in candidates:
        p = each.run.parallelism
        order = each.schedule.order(p.pp, each.plan.microbatches, p.vp)
        lengths.append((evaluate(order, times, p.vp).makespan, each))
    shortest = min((length for length, _ in lengths), default=0.0)
    return [each for length, each in lengths if length <= CLOSE * shortest]


def _rooms(measured: Prepared, limit: float) -> tuple[list[float], float]:
    """Microbatches of activations that each device has room for, and the share kept for weight gradients."""
    orders, passes = measured.orders(), Passes(measured.plan)
    v = measured.run.parallelism.vp
    saved = [sum(passes.chunk(stage).saved for stage in held) for held in measured.held]
    deferred = [sum(passes.chunk(stage).deferred for stage in held) for held in measured.held]
    kept = min(1.0, max(d / s if s else 0.0 for d, s in zip(deferred, saved, strict=True)))
    rooms = []
    for stage, order, bytes_ in zip(measured.memory(orders).stages, orders, saved, strict=True):
        alive = peak_kept(order, kept) / v * bytes_
        beside = stage.peak_bytes - alive  # parameters, and what the layer that runs needs for itself
        rooms.append((limit - beside) / bytes_ if bytes_ else 0.0)
    return rooms, kept


def _made(found: Found) -> Schedule:
    """A found order as a schedule, for its own numbers only."""

    def order(p: int, m: int, v: int) -> list[Order]:
        return found.orders

    def placement(p: int, v: int) -> list[list[int]]:
        return found.placement

    own = (len(found.orders), len(found.orders[0]) // (3 * found.v), found.v)

    def rule(p: int, m: int, v: int) -> str | None:
        return None if (p, m, v) == own else "it is made for other numbers"

    return Schedule(
        name=found.name,
        reference="searched",
        trade_off="Made for a run's own times and memory.",
        bubble="",
        memory="",
        order=order,
        placement=placement,
        rule=rule,
        splits_backward=True,
        default_overlap_p2p=True,
    )


def _words(seconds: float, best: Prepared, tried: Sequence[tuple[float, Prepared]]) -> str:
    chosen = best.schedule.name
    if chosen in SCHEDULES:
        return f"schedule automatic: {chosen}, {seconds:.4g} s a step"
    words = f"schedule automatic: one made for this run ({chosen}), {seconds:.4g} s a step"
    named = [each for each in tried if each[1].schedule.name in SCHEDULES]
    if not named:
        return f"{words}; none with a name fits"
    other_s, other = min(named, key=lambda each: each[0])
    less = f"{100 * (1 - seconds / other_s):.1f} % less than {other.schedule.name}'s {other_s:.4g} s"
    return f"{words}, {less}"
