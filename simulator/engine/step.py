"""One training step, replayed: programs of all devices, run together, and where the time went."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise, product

from cachetools import LRUCache, cached

from simulator.engine.attribution import BUBBLE, breakdown
from simulator.engine.block import Blocks
from simulator.engine.classes import of_places, one_of_each
from simulator.engine.conditions import SOUND, Condition
from simulator.engine.costing import OperatorCosts
from simulator.engine.data_traffic import OPTIMIZER
from simulator.engine.disturbances import Disturbances, link_capacities, links, worst
from simulator.engine.interlocked import Updates, asynchronous, repeated, rhythm
from simulator.engine.links import Capacities
from simulator.engine.messages import Exchange, Pipeline, blocking_exchanges
from simulator.engine.options import StepOptions
from simulator.engine.program import NORM_BYTES, NormKind, ProgramOptions
from simulator.engine.programs import Programs
from simulator.engine.recurrence import Recurrence, recurrence
from simulator.engine.replay import Replay, paused_collector, replay
from simulator.engine.steady import (
    Fold,
    cut_points,
    extended,
    folds,
    steady_state,
    whole_order,
)
from simulator.engine.survey import Wiring
from simulator.engine.tasks import COMPUTE, Streams
from simulator.engine.uplinks import paths_of_classes, paths_of_ranks
from simulator.engine.wired_program import meets_edges_only
from simulator.engine.wiring import Habits, wire
from simulator.engine.world import Layout, every_rank, rank_classes
from simulator.graph.operators import Collective
from simulator.partition.plan import RunPlan
from simulator.schedule.actions import Order
from simulator.schedule.definition import Schedule
from simulator.schedule.paired import paired

MOST_STEPS = 500_000  # whose wiring is remembered, with the course through them 700 bytes each

_paired = cache(paired)  # one object for one schedule, so that its orders are found again


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReplay:
    """A replayed step.

    ``breakdowns`` has one entry per device: category → seconds, each summing to ``seconds``. Where the steady
    state was folded, ``orders`` and ``events`` are those of the short step that was replayed.
    """

    seconds: float
    breakdowns: tuple[dict[str, float], ...]
    orders: tuple[Order, ...]
    events: Replay

    @property
    def breakdown(self) -> dict[str, float]:
        """The mean over devices, every device standing for equally many ranks."""
        total: dict[str, float] = {}
        for spent in self.breakdowns:
            for category, seconds in spent.items():
                total[category] = total.get(category, 0.0) + seconds / len(self.breakdowns)
        return total


@paused_collector()
def run_step(
    plan: RunPlan,
    schedule: Schedule,
    layout: Layout,
    vp: int,
    blocks: Blocks,
    options: StepOptions,
    disturbances: Disturbances | None = None,
) -> StepReplay:
    """Replays one steady-state step of a planned run. ``disturbances``: what is slow in it.

    Raises:
        ValueError: the schedule is not defined for this number of devices, microbatches and chunks.
        DeadlockError: the schedule and its communication wait for each other.
    """
    p, m = layout.devices, plan.microbatches
    schedule.require(p, m, vp)
    schedule = _as_run(schedule, options)
    machine = _Machine(
        plan, schedule, layout, vp, disturbances or Disturbances(blocks=lambda own, data: blocks), options
    )
    if not schedule.synchronous:
        return machine.replay_updates(asynchronous(schedule, p, m))
    if options.post_validation:
        return machine.replay_updates(repeated(whole_order(schedule, p, m, vp), m // schedule.directions))
    if options.may_fold and machine.has_one_class and plan.loads is None:
        quiet = machine.has_quiet_steps
        for fold in folds(schedule, p, m, vp, blocking=options.blocks_p2p(p, vp), quiet=quiet):
            short, state = machine.replay_short(fold)
            if state is not None:
                return _extended(short, state, fold.repeats)
    return machine.replay(m)


def replayed_orders(schedule: Schedule, p: int, m: int, vp: int, options: StepOptions) -> Sequence[Order]:
    """The orders whose replay comes first in :func:`run_step`: of a short step, where one may stand for all.

    Raises ValueError where the schedule is not defined for p, m, vp.
    """
    schedule = _as_run(schedule, options)
    if not schedule.synchronous:
        return asynchronous(schedule, p, m).orders
    fold = None
    if options.may_fold:
        fold = next(folds(schedule, p, m, vp, blocking=options.blocks_p2p(p, vp), quiet=True), None)
    return whole_order(schedule, p, m, vp) if fold is None else fold.orders


@cached(LRUCache(maxsize=MOST_STEPS, getsizeof=Wiring.__len__))
def _wiring(schedule: Schedule, p: int, m: int, vp: int, habits: Habits) -> Wiring:
    orders = whole_order(schedule, p, m, vp)
    stages = 1 + max(action.stage for order in orders for action in order)
    return Wiring(wire(Pipeline(schedule.placement(p, vp), stages, schedule.directions), orders, habits))


def _as_run(schedule: Schedule, options: StepOptions) -> Schedule:
    return _paired(schedule) if options.overlap_experts else schedule


def _extended(short: StepReplay, state: Recurrence, repeats: int) -> StepReplay:
    return replace(
        short,
        seconds=short.seconds + repeats * state.seconds,
        breakdowns=tuple(
            extended(spent, window, repeats)
            for spent, window in zip(short.breakdowns, state.breakdowns, strict=True)
        ),
    )


class _Machine:
    """Everything that replays of one run share."""

    def __init__(
        self,
        plan: RunPlan,
        schedule: Schedule,
        layout: Layout,
        vp: int,
        disturbances: Disturbances,
        options: StepOptions,
    ) -> None:
        self._plan = plan
        self._schedule = schedule
        self._vp = vp
        self._layout = layout
        self._norm: NormKind = "all" if schedule.synchronous else "none"
        if schedule.synchronous and options.post_validation:
            self._norm = "so far"
        self._options = options
        self._disturbances = disturbances
        placement = schedule.placement(layout.devices, vp)
        self._pipeline = Pipeline(placement, len(plan.chunks), schedule.directions)
        self._blocking = options.blocks_p2p(layout.devices, vp)
        self._classes = disturbances.classes(layout, plan, placement)
        self._habits = Habits(
            blocking=self._blocking,
            batched=options.batch_p2p,
            overlaps=options.overlap_p2p,
            overlaps_edges=options.overlap_warmup_flush,
            gathers=plan.message_gather is not None,
            pairs=options.overlap_experts,
        )
        self.has_quiet_steps = (
            options.quiet_steps
            and not options.in_detail
            and self.has_one_class
            and plan.loads is None
            and meets_edges_only(plan)
        )

    @property
    def has_one_class(self) -> bool:
        """Whether all replicas do the same at the same time."""
        return len(self._classes) == 1

    @property
    def _groups_meet(self) -> bool:
        """Whether what is simulated meets others of its groups, or is set apart from them by jitter."""
        several = self._options.every_rank or not self.has_one_class or self._layout.copies > 1
        return several or self._disturbances.jitters

    def replay(self, m: int) -> StepReplay:
        """One step of so many microbatches."""
        return self._replayed(m, self._programs_of(m))

    def replay_short(self, fold: Fold) -> tuple[StepReplay, Recurrence | None]:
        """A short step, and its steady state if it comes to one."""
        programs = self._programs_of(fold.microbatches, fold)
        step = self._replayed(fold.microbatches, programs)
        if programs.wiring is not None:
            return step, recurrence(step.events, fold.repeating, programs.wiring, programs.quiet)
        return step, steady_state(step.events, fold, programs.issued)

    def _programs_of(self, m: int, fold: Fold | None = None) -> Programs:
        p, vp = self._layout.devices, self._vp
        orders = whole_order(self._schedule, p, m, vp)
        if self.has_quiet_steps:
            wiring = _wiring(self._schedule, p, m, vp, self._habits)
            return self._programs(orders, None, wiring=wiring, notes=fold is not None)
        return self._programs(orders, None if fold is None else cut_points(fold))

    def _replayed(self, m: int, programs: Programs) -> StepReplay:
        ranks = self._ranks(programs)
        wiring = programs.wiring
        course = None if wiring is None else lambda: wiring.course
        events = replay(ranks, self._capacities, dict(enumerate(programs.quiet)), course)
        return StepReplay(
            seconds=events.end,
            breakdowns=self._breakdowns(events),
            orders=tuple(whole_order(self._schedule, self._layout.devices, m, self._vp)),
            events=events,
        )

    def replay_updates(self, updates: Updates) -> StepReplay:
        """One step of several in a row that interlock."""
        programs = self._programs(updates.orders, None, updates.ends)
        ranks = self._ranks(programs)
        events = replay(ranks, self._capacities)
        size = len(ranks) // self._layout.devices
        seconds, spent = rhythm(updates, events, [counts for counts in programs.updated for _ in range(size)])
        return StepReplay(
            seconds=seconds, breakdowns=tuple(spent[::size]), orders=tuple(updates.orders), events=events
        )

    @cached_property
    def _capacities(self) -> Capacities:
        """Of the links of all that is simulated."""
        usual = self._disturbances.blocks(SOUND, SOUND).costs.capacities
        return link_capacities(usual, self._conditions()) if self._disturbances.slow else usual

    def _conditions(self) -> Iterator[tuple[Hashable, Condition]]:
        """By whose links they are, as :mod:`simulator.engine.world` and ``classes`` name them."""
        layout = self._layout
        if not self._options.every_rank:
            for number, replica in enumerate(self._classes):
                for device, condition in enumerate(replica.conditions):
                    yield (device, (number,)) if number else device, condition
            return
        alone = self._options.every_operator
        for device, place in product(range(layout.devices), range(layout.dp * layout.tp)):
            condition = self._disturbances.of_rank(layout, device, place, alone=alone)
            yield (device, divmod(place, layout.tp)), condition

    def _ranks(self, programs: Programs) -> dict[int, Streams]:
        """What is simulated."""
        all_of_them = self._options.every_rank
        ranks = self._every_rank(programs) if all_of_them else self._one_of_each_class(programs)
        costs = self._disturbances.blocks(SOUND, SOUND).costs
        if not costs.uplinks:
            return ranks
        of_place = of_places(self._classes, self._layout)
        paths = paths_of_ranks(costs.uplinks) if all_of_them else paths_of_classes(costs.uplinks, of_place)
        return programs.on_uplinks(ranks, paths, costs.capacities)

    def _one_of_each_class(self, programs: Programs) -> dict[int, Streams]:
        streams = [programs.streams(replica.conditions) for replica in self._classes]
        if not self._groups_meet:
            return dict(enumerate(streams[0]))
        if self.has_one_class:
            return rank_classes(streams[0], self._layout)
        return one_of_each(streams, self._classes, self._layout)

    def _programs(
        self,
        orders: list[Order],
        cuts: Sequence[Sequence[int]] | None,
        ends: Sequence[Sequence[int]] = (),
        *,
        wiring: Wiring | None = None,
        notes: bool = False,
    ) -> Programs:
        layout, devices = self._layout, range(self._layout.devices)
        return Programs(
            plan=self._plan,
            pipeline=self._pipeline,
            options=replace(
                _program_options(self._layout, self._disturbances.blocks(SOUND, SOUND).costs, self._options),
                norm=self._norm,
                meets=self._groups_meet,
            ),
            disturbances=self._disturbances,
            orders=orders,
            exchanges=self._exchanges(orders, ends) if self._blocking and not wiring else None,
            cuts=cuts or [()] * len(orders),
            ends=ends,
            wiring=wiring,
            notes=notes,
            data=[
                links(
                    worst(
                        replica.conditions[holder]
                        for replica in self._classes
                        for holder in layout.holders(device)
                    )
                )
                for device in devices
            ],
        )

    def _exchanges(
        self, orders: Sequence[Order], ends: Sequence[Sequence[int]]
    ) -> list[list[list[list[Exchange]]]]:
        """Blocking ones up to each update; none spans two steps."""
        bounds = [[0, *(ends[d] if ends else [len(order)])] for d, order in enumerate(orders)]
        steps = [
            [order[a:b] for order, (a, b) in zip(orders, step, strict=True)]
            for step in zip(*map(pairwise, bounds), strict=True)
        ]
        batched = self._options.batch_p2p
        return [blocking_exchanges(self._pipeline, step, batched=batched) for step in steps]

    def _every_rank(self, programs: Programs) -> dict[int, Streams]:
        layout, disturbances, alone = self._layout, self._disturbances, self._options.every_operator
        devices = range(layout.devices)

        def program(device: int, place: int) -> Streams:
            conditions = tuple(disturbances.of_rank(layout, each, place, alone=alone) for each in devices)
            return programs.streams(conditions)[device]

        ranks = every_rank(program, layout)
        draws = disturbances.draws
        if draws is None:
            return ranks
        return {rank: draws.streams(rank, streams) for rank, streams in ranks.items()}

    def _breakdowns(self, events: Replay) -> tuple[dict[str, float], ...]:
        """One breakdown per device: the mean over its ranks, as far as they differ."""
        devices = self._layout.devices
        tail = BUBBLE if self._plan.forward_only else OPTIMIZER  # what devices that are done wait for
        if not self._options.every_rank:
            weights = [replica.replicas for replica in self._classes]
            return tuple(
                _breakdown(events, range(device, devices * len(weights), devices), weights, tail)
                for device in range(devices)
            )
        size = self._layout.tp * self._layout.dp
        differ = not self.has_one_class or self._disturbances.draws is not None
        weights = [1] * (size if differ else 1)
        return tuple(
            _breakdown(events, range(device * size, device * size + len(weights)), weights, tail)
            for device in range(devices)
        )


def _breakdown(events: Replay, ranks: Sequence[int], weights: Sequence[int], tail: str) -> dict[str, float]:
    """The mean over ranks of one device, each standing for so many."""
    total: dict[str, float] = {}
    for rank, weight in zip(ranks, weights, strict=True):
        alike = ranks if len(ranks) > 1 else ()
        spent = breakdown(events.stream(rank, COMPUTE), events.end, tail, alike=alike)
        if len(ranks) == 1:
            return spent
        for category, seconds in spent.items():
            total[category] = total.get(category, 0.0) + seconds * weight / sum(weights)
    return total


def _program_options(layout: Layout, costs: OperatorCosts, options: StepOptions) -> ProgramOptions:
    norm = Collective(name="gradient_norm", kind="all_reduce", axis="world", size_bytes=NORM_BYTES)
    return ProgramOptions(
        overlap_grad_reduce=options.overlap_grad_reduce,
        overlap_param_gather=options.overlap_param_gather,
        overlap_p2p=options.overlap_p2p,
        overlap_warmup_flush=options.overlap_warmup_flush,
        norm_s=costs.cost(norm).seconds if layout.world > 1 else 0.0,
        every_operator=options.every_operator,
        overlap_experts=options.overlap_experts,
        delay_wgrad=options.delay_wgrad,
    )
