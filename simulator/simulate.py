"""A run in, a result out: plans, times, replays and sums up."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from simulator.cost.catalog import kernels_for
from simulator.cost.kernels import Kernels
from simulator.cost.sustained import precision_class
from simulator.engine.block import Blocks
from simulator.engine.conditions import SOUND, Condition
from simulator.engine.contention import communication_share
from simulator.engine.costing import OperatorCosts
from simulator.engine.disturbances import links
from simulator.engine.host import SOFTWARE, HostCosts
from simulator.engine.replay import paused_collector
from simulator.engine.step import StepReplay
from simulator.engine.timeline import shown
from simulator.explain.census import Counted, census
from simulator.explain.details import Subject, details
from simulator.explain.uncertainty import ErrorTerm, interval, relative_error
from simulator.explain.waterfall import KernelUse, waterfall
from simulator.graph.flops import find_convention
from simulator.graph.operators import Attention, Gemm, GroupedGemm, MemoryBound
from simulator.memory.report import MemoryReport
from simulator.memory.summary import memory_warnings, to_mapping
from simulator.network.fabric import FabricOf, fabric_for
from simulator.preparation.prepare import prepare
from simulator.preparation.prepared import Prepared, placement_of
from simulator.preparation.unevenness import disturbances_of, network_of, spread_of
from simulator.result import Result, TimelineEvent
from simulator.spec.cluster import ClusterSpec
from simulator.spec.run import RunSpec


class Shared:
    """What simulations of one process have in common: kernel models, networks, timed operators and blocks.

    Results are the same with it and without; similar runs take less time. It forgets everything once it holds
    more than ``most`` kinds of layout. ``fabric`` gives the fitted coefficients of a cluster's links.
    """

    def __init__(self, most: int = 1024, fabric: FabricOf = fabric_for) -> None:
        self._most = most
        self._fabric = fabric
        self._clusters: list[tuple[ClusterSpec, tuple[str, str | None], Kernels]] = []
        self._blocks: dict[Hashable, Blocks] = {}

    def kernels(self, run: RunSpec) -> Kernels:
        """The kernel model of a run's cluster, with its cache."""
        return self._clusters[self._known(run)][-1]

    def blocks(
        self, run: RunSpec, copies: int = 1, own: Condition = SOUND, data: Condition = SOUND
    ) -> Blocks:
        """Timed operators and replayed blocks of runs on the same cluster with groups in the same places.

        ``copies``: of the model in each pipeline. ``own``: of ranks in that condition; ``data``: the worst
        one in their groups of data parallelism.
        """
        known, p = self._known(run), run.parallelism
        sizes = (run.gpus, p.tp, p.cp, p.ep, p.etp, p.pp, run.shard_size)
        host = (run.runtime.software, run.runtime.cuda_graphs)
        spread = spread_of(run, copies)
        varies = spread and (spread.compute, spread.communication, spread.rank)
        key = (known, copies, *sizes, run.runtime.rank_order, *host, own, data, varies)
        found = self._blocks.get(key)
        if found is None:
            if len(self._blocks) >= self._most:
                self._blocks.clear()
            cluster, _, kernels = self._clusters[known]
            costs = OperatorCosts(
                kernels,
                network_of(run, copies, own, self._fabric),
                _host_costs(run),
                communication_share(cluster.device.sm_count),
                speed=own.compute,
                slow_data=None if links(data) == links(own) else network_of(run, copies, data, self._fabric),
            )
            found = self._blocks[key] = Blocks(costs, spread)
        return found

    def _known(self, run: RunSpec) -> int:
        """A cluster with its attention kernels and sustained rates.

        Clusters hold mappings and cannot be hashed; there are few.
        """
        cluster, asked = run.cluster, run.runtime.attention
        attention = asked if asked not in ("flash", "unfused") else ""
        precision = precision_class(run.training.precision) if run.simulation.sustained else None
        for index, (known, choice, _) in enumerate(self._clusters):
            if choice == (attention, precision) and (known is cluster or known == cluster):
                return index
        if len(self._clusters) >= self._most:
            self._clusters.clear()
            self._blocks.clear()  # which count clusters by their place
        timed = run.training.precision if run.simulation.sustained else None
        kernels = kernels_for(cluster, attention=attention, precision=timed)
        self._clusters.append((cluster, (attention, precision), kernels))
        return len(self._clusters) - 1


_RECENT = Shared(most=32)  # of simulations that are not given one


@paused_collector()
def simulate(run: RunSpec, *, timeline: bool = False, shared: Shared | None = None) -> Result:
    """Predicts one step of a run.

    Args:
        run: from :func:`simulator.spec.load.load_run`.
        timeline: keep every task of the replay, for a trace.
        shared: of other simulations, whose work need not be done again; by default of the last few.

    Raises:
        ValueError: the layout is impossible; the message names the rule.
    """
    shared = shared or _RECENT
    prepared = prepare(run, shared.blocks)
    run, plan, schedule = prepared.run, prepared.plan, prepared.schedule
    kernels, blocks = shared.kernels(run), shared.blocks(run, schedule.directions)
    disturbances = disturbances_of(run, schedule, partial(shared.blocks, run, schedule.directions))
    step = prepared.replay(blocks, disturbances, whole=timeline)
    memory = prepared.memory(step.orders)
    result = _result(prepared, step, memory, kernels, blocks.costs)
    if not timeline:
        return result
    subject = Subject(
        cluster=run.cluster,
        placement=placement_of(run, schedule.directions),
        plan=plan,
        pipeline=prepared.pipeline,
        step=step,
        memory=memory,
        costs=blocks.costs,
        every_operator=run.simulation.detail == "operator",
        ranks_per_device=run.gpus // run.parallelism.pp if run.simulation.ranks == "all" else 1,
        process=partial(_process, run),
    )
    return replace(result, timeline=tuple(_timeline(step, run)), details=details(subject))


def simulate_memory(run: RunSpec) -> MemoryReport:
    """The memory part of :func:`simulate`, which needs no replay unless a split or schedule is chosen by one.

    Raises ValueError as :func:`simulate` does.
    """
    return prepare(run, _RECENT.blocks).memory()


def _host_costs(run: RunSpec) -> HostCosts:
    return HostCosts(
        kernel_s=run.cluster.host.kernel_launch_s,
        software=SOFTWARE[run.runtime.software],
        graphs=run.runtime.cuda_graphs,
    )


def _result(
    prepared: Prepared,
    step: StepReplay,
    memory: MemoryReport,
    kernels: Kernels,
    costs: OperatorCosts,
) -> Result:
    run, plan = prepared.run, prepared.plan
    lengths = run.training.seq_length + run.training.decoder_seq_length
    tokens = run.training.global_batch_size * lengths
    convention = find_convention(run.simulation.flops_convention)
    model_flops = convention.flops_per_step(
        run.model,
        seq_length=run.training.seq_length,
        global_batch_size=run.training.global_batch_size,
        padded_vocab_size=plan.padded_vocab_size,
        decoder_seq_length=run.training.decoder_seq_length,
    )
    hardware_flops = plan.flops_per_replica * plan.data.replicas
    peak = kernels.peak(run.training.precision)
    gpu_seconds = step.seconds * run.gpus
    spent = step.breakdown
    operators = list(census(plan, run.parallelism.pp))
    error = relative_error(_error_terms(operators, costs), spent, step.seconds)
    return Result(
        step_time_s=step.seconds,
        step_time_interval_s=interval(step.seconds, error),
        tokens_per_s=tokens / step.seconds,
        tokens_per_s_per_gpu=tokens / gpu_seconds,
        model_tflops_per_gpu=model_flops / gpu_seconds / 1e12,
        hardware_tflops_per_gpu=hardware_flops / gpu_seconds / 1e12,
        mfu=model_flops / gpu_seconds / peak,
        hfu=hardware_flops / gpu_seconds / peak,
        flops_convention=convention.name,
        peak_flops=peak,
        bubble_fraction=spent.get("bubble", 0.0) / step.seconds,
        breakdown_s=spent,
        waterfall_s=waterfall(
            _kernel_uses(operators, kernels, costs),
            step.breakdowns,
            model_s=model_flops / run.gpus / peak,
            peak_flops=peak,
            sustained=kernels.sustained,
        ),
        memory=to_mapping(memory),
        world_size=run.gpus,
        warnings=memory_warnings(memory),
        provenance=_provenance(run, kernels),
        choices=prepared.choices,
    )


def _error_terms(operators: Iterable[Counted], costs: OperatorCosts) -> Iterator[ErrorTerm]:
    """The distinct operators of a step; shares matter, not totals."""
    for op, runs, _ in operators:
        cost = costs.cost(op)
        yield ErrorTerm(cost.category, runs * cost.seconds, cost.random, cost.site)


def _kernel_uses(operators: Iterable[Counted], kernels: Kernels, costs: OperatorCosts) -> Iterator[KernelUse]:
    """What a step asks of the compute stream."""
    for op, runs, repeats in operators:
        if not isinstance(op, Gemm | GroupedGemm | Attention | MemoryBound):
            continue
        cost, flops, peak_s = costs.cost(op), 0.0, 0.0
        if not isinstance(op, MemoryBound):
            flops = (runs - repeats) * op.flops
            peak_s = flops / kernels.peak(op.dtype)
        yield KernelUse(cost.category, repeats * cost.seconds, peak_s, flops)


def _provenance(run: RunSpec, kernels: Kernels) -> dict[str, object]:
    try:
        own = version("stepcast")
    except PackageNotFoundError:
        own = "uninstalled"
    return {
        "stepcast": own,
        "cluster": run.cluster.name,
        "kernel_profile": kernels.profile.name,
        "detail": run.simulation.detail,
        "seed": run.simulation.seed,
    }


def _process(run: RunSpec, rank: int) -> str:
    """What a simulated rank stands for."""
    if run.simulation.ranks == "all":
        return f"rank {rank}"
    apart, stage = divmod(rank, run.parallelism.pp)
    if apart:  # a replica that a straggler sets apart
        return f"stage {stage}, class {apart}"
    return f"stage {stage} (×{run.gpus // run.parallelism.pp} ranks)"


def _timeline(step: StepReplay, run: RunSpec) -> Iterator[TimelineEvent]:
    for record in shown(step.events):
        yield TimelineEvent(
            process=_process(run, record.rank),
            thread=record.stream,
            name=record.task.name,
            category=record.task.category,
            start_s=record.start,
            end_s=record.end,
        )
