"""Lower bounds of a layout's step time and memory, a hundred times cheaper than its simulation.

Time: on every pipeline device, the kernels of all microbatches one after the other, timed by the same kernel
and network models as the simulation; before them the forwards of the stages before, after them the backwards
(the ideal bubble), the messages between them alone on their links (ideal communication); then the optimizer.
Nothing that the engine adds (waiting, sharing of links, data-parallel traffic) makes a step shorter.

Memory: parameters, gradients and optimizer states, and the activations of the microbatches that the schedule
keeps alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.engine.block import Blocks
from simulator.engine.options import StepOptions
from simulator.engine.step import replayed_orders
from simulator.memory.shards import optimizer_bytes
from simulator.partition.data import FULLY_SHARDED, Bucket, DataParallel
from simulator.partition.plan import RunPlan, loads_of, plan_run
from simulator.partition.segment import Segment
from simulator.preparation.automatic import measured_schedule
from simulator.preparation.prepare import schedule_of
from simulator.schedule.actions import Kind
from simulator.schedule.definition import Schedule
from simulator.shared import Shared
from simulator.spec.run import AUTOMATIC, RunSpec
from simulator.spec.sharding import StateOffload
from simulator.spec.stage_split import BALANCED
from simulator.sweep.longest_path import walk
from simulator.sweep.timed_model import (
    BACKWARD,
    EXPERTS,
    FORWARD,
    PARAMETERS,
    SAVED,
    WEIGHTS,
    Rows,
    TimedModel,
    Timer,
    Way,
    counts_by_chunk,
    on_one_stage,
)

SLACK: Final = 1e-9  # of a bound: sums are added in another order than the engine's
OVERLAPS: Final[dict[str, Any]] = {
    "overlap_grad_reduce": True,
    "overlap_param_gather": True,
    "overlap_p2p": None,
    "ep_overlap": False,
    "delay_wgrad": False,
}
"""Switches that change when layers run, not what they do; set alike, layouts have their layers in common."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A step takes at least ``seconds``; the fullest rank needs at least ``peak_bytes``."""

    seconds: float
    peak_bytes: float


class Effort(IntEnum):
    """How a bound is found; the next one is at least as high, and takes longer."""

    KERNELS = 0  # of every layer alone, which need no replay
    LAYERS = 1  # replayed, with their own communication
    ORDER = 2  # and the longest path through the schedule's order


class Bounds:
    """Bounds of many layouts, sharing what they have in common."""

    def __init__(self, shared: Shared | None = None) -> None:
        self._shared = shared or Shared()
        self._models: dict[tuple[object, ...], TimedModel] = {}
        self._plans: dict[tuple[object, ...], RunPlan] = {}
        self._kernels: dict[int, dict[int, tuple[Segment, float]]] = {}
        self._hops: dict[tuple[object, ...], tuple[Blocks, Rows]] = {}

    def bound(self, run: RunSpec, effort: Effort = Effort.ORDER) -> Bound:
        """The bound of a legal layout."""
        found, loads = self._bound(run, effort), loads_of(run)
        if loads is None:
            return found
        return replace(found, seconds=found.seconds * min(1.0, *loads.work))  # any microbatch's attention

    def _bound(self, run: RunSpec, effort: Effort) -> Bound:
        p = run.parallelism
        schedule = measured_schedule(run) if run.schedule == AUTOMATIC else schedule_of(run)
        is_open = p.stage_split == BALANCED or run.schedule == AUTOMATIC
        if is_open and counts_by_chunk(run.training):
            return Bound(0.0, 0.0)  # what the split is decides what layers do
        model = self._model(run, schedule, _timed(run, schedule, effort))
        if is_open or schedule.forward_only:
            return _bound_of_any(model.stages(1, 1, "equal")[0], run)
        blocks = self._shared.blocks(run, schedule.directions)
        stages = model.stages(p.pp, p.vp if schedule.directions == 1 else 1, p.stage_split)
        path = _path(schedule, p.pp, p.vp, len(stages))
        hops = self._crossing(run, model.plan, blocks)
        seconds = _pipeline_seconds(schedule, path, stages, hops, run)
        if effort is Effort.ORDER:
            seconds = max(seconds, _walked_seconds(schedule, path, stages, hops, run))
        data, on_device = _data(run, model.plan, schedule.directions), p.offload == StateOffload()
        held = stages[path.placement].sum(axis=1)
        live = _live(schedule, p.pp, p.vp, run)
        peaks = live * stages[:, SAVED][path.placement].min(axis=1)
        if on_device:
            peaks = peaks + _static_bytes(data, held)
            seconds += _optimizer_seconds(data, held[0], blocks)
            if schedule.directions == 1 and schedule.synchronous:
                layers = model.dense_parameters(path.first, p.pp, p.vp, p.stage_split)
                buckets = [data.buckets(each, cut=index == 0) for index, each in enumerate(layers)]
                seconds += _data_seconds(run, data, buckets, blocks, tail=not schedule.splits_backward)
                seconds = max(seconds, _reduction_seconds(run, data, buckets, blocks))
        return Bound(seconds * (1.0 - SLACK), float(peaks.max()) * (1.0 - SLACK))

    def _model(self, run: RunSpec, schedule: Schedule, way: Way) -> TimedModel:
        """The timed layers of a run, in common to all ways to cut them into stages."""
        alone = run if counts_by_chunk(run.training) else on_one_stage(run)
        key: tuple[object, ...] = (
            *(id(run.model), id(run.cluster), alone.gpus, alone.parallelism, run.training),
            *(schedule.forward_only, replace(run.runtime, **OVERLAPS)),
        )
        found = self._models.get((key, way))
        if found is None:
            plan = self._plans.get(key)
            if plan is None:
                plan = self._plans[key] = plan_run(alone, forward_only=schedule.forward_only)
            kernels = self._kernels.setdefault(id(self._shared.kernels(run)), {})
            timer = Timer(self._shared.blocks(alone), kernels, way)
            found = self._models[key, way] = TimedModel(run, plan, timer)
        return found

    def _crossing(self, run: RunSpec, plan: RunPlan, blocks: Blocks) -> Rows:
        """Seconds of a message alone, from each device to the next one."""
        pp = run.parallelism.pp
        key = (id(blocks), pp, plan.message_bytes)
        found = self._hops.get(key)
        if found is None:
            hops = [blocks.costs.hop(plan.message_bytes, device) if pp > 1 else 0.0 for device in range(pp)]
            found = self._hops[key] = (blocks, np.array(hops))
        return found[1]


def _timed(run: RunSpec, schedule: Schedule, effort: Effort) -> Way:
    """How the layers of a run are timed. What two that run at once take together is not known beforehand."""
    overlaps, split = run.runtime.ep_overlap, schedule.splits_backward
    floor = effort is Effort.KERNELS or schedule.pairs or (overlaps and split)
    return Way(split, floor, overlaps and not floor, run.runtime.delay_wgrad and not floor)


def _bound_of_any(whole: Rows, run: RunSpec) -> Bound:
    """Of any split and schedule: the busiest device has at least an equal share of the work."""
    pp = run.parallelism.pp
    seconds = run.microbatches * float(whole[FORWARD] + whole[BACKWARD]) / pp
    return Bound(seconds * (1.0 - SLACK), float(whole[SAVED]) / pp)


def _data(run: RunSpec, plan: RunPlan, copies: int) -> DataParallel:
    """The data parallelism of a run whose layers are those of a plan for fewer replicas."""
    replicas, shards = run.dp * run.parallelism.cp, run.shard_size * copies
    return replace(plan.data, replicas=replicas, shard_ranks=shards, model_copies=copies)


class _Path(NamedTuple):
    """How a microbatch goes through the devices.

    ``placement``: the virtual stages of each device; ``entry``: its first one on the way; ``first``: those of
    device 0. ``hop``: by stage but the last, the link of the ring of devices that leads to the next one;
    ``crosses``: whether one does.
    """

    placement: NDArray[np.intp]
    entry: NDArray[np.intp]
    first: tuple[int, ...]
    hop: NDArray[np.intp]
    crosses: NDArray[np.bool_]


@lru_cache(maxsize=1024)
def _path(schedule: Schedule, p: int, v: int, stages: int) -> _Path:
    placement = schedule.placement(p, v)
    device_of = {stage: device for device, held in enumerate(placement) for stage in held}
    devices = np.array([device_of[stage] for stage in range(stages)])
    here, there = devices[:-1], devices[1:]
    return _Path(
        placement=np.array(placement),
        entry=np.array([min(held) for held in placement]),
        first=tuple(placement[0]),
        hop=np.where(np.abs(here - there) == 1, np.minimum(here, there), np.maximum(here, there)),
        crosses=here != there,
    )


def _pipeline_seconds(schedule: Schedule, path: _Path, stages: Rows, hops: Rows, run: RunSpec) -> float:
    """The longest of the devices' chains of work.

    Before a device's first stage on the way nothing runs on it but that forward, after its last backward
    nothing: the forwards of the stages before come on top of its work, and their backwards.
    """
    forward, backward = stages[:, FORWARD], stages[:, BACKWARD]
    per_device = float(run.microbatches // schedule.directions)
    busy: Rows = per_device * (forward + backward)[path.placement].sum(axis=1)
    if schedule.directions == 1 and schedule.synchronous:
        crossed = hops[path.hop] * path.crosses
        busy += np.concatenate(((0.0,), np.cumsum(forward[:-1] + crossed)))[path.entry]
        if not schedule.splits_backward:
            busy += np.concatenate(((0.0,), np.cumsum(backward[:-1] + crossed)))[path.entry]
    return float(busy.max())


def _walked_seconds(schedule: Schedule, path: _Path, stages: Rows, hops: Rows, run: RunSpec) -> float:
    """The longest path to the end of device 0, where the last gradients come from; 0 where none is known."""
    p = run.parallelism
    alone = not (schedule.splits_backward or schedule.pairs or run.runtime.ep_overlap)
    if p.pp == 1 or not (alone and schedule.synchronous and schedule.directions == 1):
        return 0.0
    links = tuple(np.where(path.crosses, path.hop, p.pp).tolist())
    walked = walk(schedule, p.pp, p.vp, run.microbatches, links)
    durations = [*stages[:, FORWARD].tolist(), *stages[:, BACKWARD].tolist()]
    return walked.seconds(durations, [*hops.tolist(), 0.0]) if walked else 0.0


def _optimizer_seconds(data: DataParallel, held: Rows, blocks: Blocks) -> float:
    """What the device of the first stage does after the last gradient."""
    parameters = float(held[PARAMETERS])
    shard = data.shard(parameters, float(held[EXPERTS]))
    return blocks.costs.total((*data.before_norm(shard), *data.after_norm(shard, parameters)))


def _data_seconds(
    run: RunSpec, data: DataParallel, stages: Sequence[Sequence[Bucket]], blocks: Blocks, *, tail: bool
) -> float:
    """What no overlap hides: the gather that the first forward waits for, the last gradients' reduction.

    ``stages``: of the first device, in the order in which their forwards begin. Without overlap, all count.
    """
    if data.zero == FULLY_SHARDED:
        return 0.0
    every = [bucket for buckets in stages for bucket in buckets]
    seconds = 0.0
    if not run.training.fp8_param_gather:  # else some of it travels in less
        for bucket in stages[0][-1:] if run.runtime.overlap_param_gather else every:
            gather = data.gather_parameters(bucket, "bound")
            seconds += blocks.costs.cost(gather).seconds if gather is not None else 0.0
    if tail and (run.runtime.overlap_grad_reduce or data.zero < 2):
        for bucket in stages[0][-1:] if run.runtime.overlap_grad_reduce else every:
            seconds += _reduced_in(data, bucket, blocks)
    return seconds


def _reduced_in(data: DataParallel, bucket: Bucket, blocks: Blocks) -> float:
    """Seconds of a bucket's messages, which are alike, one after the other."""
    return bucket.messages * blocks.costs.total(data.reduce_gradients(bucket, "bound")[:: bucket.messages])


def _reduction_seconds(
    run: RunSpec, data: DataParallel, stages: Sequence[Sequence[Bucket]], blocks: Blocks
) -> float:
    """ZeRO-2 reduces the first device's gradients after every microbatch, one bucket after the other."""
    if data.zero != 2:
        return 0.0
    known: dict[tuple[float, int], float] = {}
    once = 0.0
    for bucket in (bucket for buckets in stages for bucket in buckets):
        key = (bucket.parameters, bucket.messages)
        if key not in known:
            known[key] = _reduced_in(data, bucket, blocks)
        once += known[key]
    return run.microbatches * once


def _static_bytes(data: DataParallel, held: Rows) -> Rows:
    """By device: weights, gradients and optimizer states, as far as they are not sharded away."""
    dense, expert = optimizer_bytes(data, 1.0, 0.0), optimizer_bytes(data, 1.0, 1.0)
    kept = (held[:, PARAMETERS] - held[:, EXPERTS]) * dense + held[:, EXPERTS] * expert
    if data.zero < 2:
        kept = kept + held[:, PARAMETERS] * data.grad_bytes
    return kept if data.fully_sharded else kept + held[:, WEIGHTS]


def _live(schedule: Schedule, p: int, v: int, run: RunSpec) -> Rows:
    """The most microbatches (of any chunk) that each device keeps all activations of.

    What waits for a weight gradient of its own is less than that.
    """
    return _live_counts(schedule, p, v, run.microbatches, run.runtime.ep_overlap)


@lru_cache(maxsize=4096)
def _live_counts(schedule: Schedule, p: int, v: int, m: int, paired: bool) -> Rows:
    options = StepOptions(
        overlap_grad_reduce=True, overlap_param_gather=True, overlap_p2p=True, overlap_experts=paired
    )
    counts = []
    for order in replayed_orders(schedule, p, m, v, options):
        alive = most = 0
        for action in order:
            for each in action.parts:
                if each.kind is Kind.F:
                    alive += 1
                elif each.kind is not Kind.W:
                    alive -= 1
            most = max(most, alive)  # of a pair, one frees what it kept as the other one keeps more
        counts.append(most)
    return np.array(counts, dtype=float)
