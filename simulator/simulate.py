"""A run in, a result out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from simulator.cost.kernels import Kernels
from simulator.engine.costing import OperatorCosts
from simulator.engine.host import HOST_ERROR
from simulator.engine.replay import paused_collector
from simulator.engine.step import StepReplay
from simulator.engine.timeline import shown
from simulator.explain.algorithms import algorithms
from simulator.explain.census import Counted, census
from simulator.explain.details import Subject, details
from simulator.explain.documents import packed_documents
from simulator.explain.uncertainty import ErrorTerm, interval, relative_error
from simulator.explain.waterfall import KernelUse, waterfall
from simulator.graph.operators import Attention, Gemm, GroupedGemm, MemoryBound
from simulator.memory.report import MemoryReport
from simulator.memory.summary import memory_warnings, to_mapping
from simulator.partition.segment import HOST
from simulator.preparation.prepared import placement_of
from simulator.result import Result, TimelineEvent
from simulator.shared import Shared
from simulator.simulation import Simulation
from simulator.spec.run import RunSpec


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
    simulation = Simulation(run, shared, whole=timeline)
    result = _result(simulation)
    if not timeline:
        return result
    run, prepared = simulation.run, simulation.prepared
    subject = Subject(
        cluster=run.cluster,
        placement=placement_of(run, prepared.schedule.directions),
        plan=prepared.plan,
        pipeline=prepared.pipeline,
        step=simulation.step,
        memory=simulation.memory,
        costs=simulation.blocks.costs,
        every_operator=run.simulation.detail == "operator",
        ranks_per_device=run.gpus // run.parallelism.pp if run.simulation.ranks == "all" else 1,
        process=partial(_process, run),
    )
    return replace(result, timeline=tuple(_timeline(simulation.step, run)), details=details(subject))


def simulate_memory(run: RunSpec) -> MemoryReport:
    """The memory part of :func:`simulate`, which needs no replay unless a split or schedule is chosen by one.

    Raises ValueError as :func:`simulate` does.
    """
    return Simulation(run).memory


def _result(simulation: Simulation) -> Result:
    run, step, memory = simulation.run, simulation.step, simulation.memory
    kernels, costs, rates = simulation.kernels, simulation.blocks.costs, simulation.rates
    spent = step.breakdown
    operators = list(census(simulation.prepared.plan, run.parallelism.pp))
    terms = _error_terms(operators, kernels, costs, spent.get(HOST, 0.0))
    error = relative_error(terms, spent, step.seconds)
    packed = packed_documents(run, simulation.prepared.plan)
    return Result(
        step_time_s=step.seconds,
        step_time_interval_s=interval(step.seconds, error),
        **rates._asdict(),
        flops_convention=simulation.convention.name,
        peak_flops=simulation.peak_flops,
        bubble_fraction=spent.get("bubble", 0.0) / step.seconds,
        breakdown_s=spent,
        waterfall_s=waterfall(
            _kernel_uses(operators, kernels, costs),
            step.breakdowns,
            model_s=simulation.model_flops / run.gpus / simulation.peak_flops,
            peak_flops=simulation.peak_flops,
        ),
        memory=to_mapping(memory),
        world_size=run.gpus,
        warnings=memory_warnings(memory),
        provenance={
            **_provenance(run, kernels),
            "collectives": algorithms(operators, simulation.prepared.plan, costs),
            **({"documents": packed} if packed else {}),
        },
        choices=simulation.prepared.choices,
    )


def _error_terms(
    operators: Iterable[Counted], kernels: Kernels, costs: OperatorCosts, waited_s: float
) -> Iterator[ErrorTerm]:
    """The distinct operators of a step; shares matter, not totals. Memory-bound kernels err together.

    ``waited_s``: of kernels for the host.
    """
    for op, runs, _ in operators:
        cost = costs.cost(op)
        limited = isinstance(op, Gemm | GroupedGemm | Attention) and kernels.estimate(op).clock != 1.0
        yield ErrorTerm(
            category=cost.category,
            family="memory" if isinstance(op, MemoryBound) else cost.category,
            seconds=runs * cost.seconds,
            random=cost.random,
            site=cost.site,
            clock=(kernels.sustained.error or 0.0) if limited else 0.0,
        )
    yield ErrorTerm(HOST, HOST, waited_s, 0.0, HOST_ERROR, 0.0)


def _kernel_uses(operators: Iterable[Counted], kernels: Kernels, costs: OperatorCosts) -> Iterator[KernelUse]:
    """What a step asks of the compute stream."""
    for op, runs, repeats in operators:
        if not isinstance(op, Gemm | GroupedGemm | Attention | MemoryBound):
            continue
        cost, flops, peak_s, clocked_s = costs.cost(op), 0.0, 0.0, 0.0
        if not isinstance(op, MemoryBound):
            flops = (runs - repeats) * op.flops
            peak_s = flops / kernels.peak(op.dtype)
            clocked_s = peak_s / kernels.estimate(op).clock
        yield KernelUse(cost.category, repeats * cost.seconds, peak_s, clocked_s, flops)


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
