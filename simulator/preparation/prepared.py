"""A run with its schedule and its plan: everything that a replay of its step needs but the times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.engine.block import Blocks
from simulator.engine.disturbances import Disturbances
from simulator.engine.messages import Pipeline, blocking_exchanges, waiting_for_ever
from simulator.engine.options import StepOptions
from simulator.engine.step import StepReplay, replayed_orders, run_step
from simulator.engine.world import Layout
from simulator.memory.report import MemoryReport, memory_report
from simulator.network.placement import Placement
from simulator.partition.plan import RunPlan, plan_run
from simulator.schedule.actions import Order
from simulator.schedule.definition import Schedule
from simulator.spec.run import RunSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run whose schedule and stage split are settled. ``choices``: what was chosen for it, in words."""

    run: RunSpec
    schedule: Schedule
    plan: RunPlan
    choices: tuple[str, ...] = ()

    @property
    def held(self) -> list[list[int]]:
        """The virtual stages of each pipeline device."""
        return self.schedule.placement(self.run.parallelism.pp, self.run.parallelism.vp)

    @property
    def pipeline(self) -> Pipeline:
        """Who holds which stage."""
        return Pipeline(self.held, len(self.plan.chunks), self.schedule.directions)

    def options(self, *, whole: bool = False, fold: bool = True) -> StepOptions:
        """The switches of its replay (:class:`simulator.simulation.Simulation`)."""
        return step_options(self.run, self.schedule, whole=whole, fold=fold)

    def replay(
        self,
        blocks: Blocks,
        disturbances: Disturbances | None = None,
        *,
        whole: bool = False,
        fold: bool = True,
    ) -> StepReplay:
        """One step, with what is slow in it.

        Raises ValueError where the schedule is not defined for the run's numbers.
        """
        layout, vp = layout_of(self.run, self.schedule), self.run.parallelism.vp
        options = self.options(whole=whole, fold=fold)
        return run_step(self.plan, self.schedule, layout, vp, blocks, options, disturbances)

    @property
    def can_run(self) -> bool:
        """Whether all its messages meet, where they block the devices between which they go."""
        p, options = self.run.parallelism, self.options()
        if not options.blocks_p2p(p.pp, p.vp):
            return True
        orders = self.schedule.checked_order(p.pp, self.plan.microbatches, p.vp)
        exchanges = blocking_exchanges(self.pipeline, orders, batched=options.batch_p2p)
        return not waiting_for_ever(exchanges)

    def orders(self) -> Sequence[Order]:
        """Actions of each device, of a shorter step where one may stand for the whole."""
        p = self.run.parallelism
        options = self.options()
        return replayed_orders(self.schedule, p.pp, self.plan.microbatches, p.vp, options)

    def memory(self, orders: Sequence[Order] | None = None) -> MemoryReport:
        """The peak of every device under these orders; without any, under its own."""
        return memory_report(self.run, self.plan, self.schedule, self.orders() if orders is None else orders)


def with_schedule(run: RunSpec, schedule: Schedule) -> Prepared:
    """A run under a schedule. Raises ValueError where its split is impossible."""
    plan = plan_run(run, copies=schedule.directions, forward_only=schedule.forward_only)
    return Prepared(run=run, schedule=schedule, plan=plan)


def placement_of(run: RunSpec, copies: int) -> Placement:
    """Where the groups of a run sit, of whose model each pipeline holds so many copies."""
    p = run.parallelism
    return Placement(
        run.cluster,
        tp=p.tp,
        cp=p.cp,
        ep=p.ep,
        dp=run.dp,
        pp=p.pp,
        etp=p.etp,
        shard=run.shard_size,
        cp_inner=p.cp_inner,
        tp_grid=p.tp_grid,
        copies=copies,
        rank_order=run.runtime.rank_order,
    )


def layout_of(run: RunSpec, schedule: Schedule) -> Layout:
    """The groups that a pipeline device stands for."""
    p = run.parallelism
    return Layout(
        tp=p.tp,
        dp=run.dp * p.cp,
        devices=p.pp,
        cp=p.cp,
        cp_inner=p.cp_inner or 1,
        tp_grid=p.tp_grid,
        shard=run.shard_size,
        ep=p.ep,
        etp=(p.etp or p.tp) if run.model.is_moe else 1,
        copies=schedule.directions,
    )


def step_options(run: RunSpec, schedule: Schedule, *, whole: bool, fold: bool) -> StepOptions:
    """The switches of a run's replay (:class:`simulator.simulation.Simulation`)."""
    asked = run.runtime.overlap_p2p
    return StepOptions(
        overlap_grad_reduce=run.runtime.overlap_grad_reduce,
        overlap_param_gather=run.runtime.overlap_param_gather,
        overlap_p2p=schedule.default_overlap_p2p if asked is None else asked,
        every_operator=run.simulation.detail == "operator",
        overlap_experts=run.runtime.ep_overlap,
        delay_wgrad=run.runtime.delay_wgrad,
        every_rank=run.simulation.ranks == "all",
        fold_steady_state=fold and not whole,
        quiet_steps=not whole,
        overlap_warmup_flush=run.runtime.overlap_p2p_warmup_flush,
        batch_p2p=run.runtime.batch_p2p,
        post_validation=run.runtime.optimizer_post_validation,
    )
