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
from functools import lru_cache
from itertools import accumulate

from simulator.engine.block import Blocks
from simulator.engine.step import StepOptions, replayed_orders
from simulator.graph.operators import Attention, Copy, Gemm, GroupedGemm, MemoryBound
from simulator.memory.shards import optimizer_bytes
from simulator.partition.data import FULLY_SHARDED, Bucket, DataParallel
from simulator.partition.layer_share import LayerShare
from simulator.partition.plan import RunPlan, plan_run
from simulator.partition.segment import COMPUTE, Segment
from simulator.partition.stages import Chunk, split_stages
from simulator.preparation.automatic import measured_schedule
from simulator.preparation.prepare import schedule_of
from simulator.preparation.prepared import step_options
from simulator.schedule.actions import Kind
from simulator.schedule.definition import Schedule
from simulator.shared import Shared
from simulator.spec.run import AUTOMATIC, RunSpec, Training
from simulator.spec.sharding import StateOffload
from simulator.spec.stage_split import BALANCED

KERNELS = (Gemm, GroupedGemm, Attention, MemoryBound, Copy)
SLACK = 1e-9  # of a bound: sums are added in another order than the engine's


@dataclass(frozen=True, slots=True)
class Bound:
    """A step takes at least ``seconds``; the fullest rank needs at least ``peak_bytes``."""

    seconds: float
    peak_bytes: float


@dataclass(frozen=True, slots=True)
class _Part:
    """A layer, or several as their sum: what it takes, holds and keeps."""

    forward_s: float = 0.0
    backward_s: float = 0.0
    parameters: float = 0.0
    expert_parameters: float = 0.0
    weight_bytes: float = 0.0
    saved_bytes: float = 0.0

    def __add__(self, other: _Part) -> _Part:
        return _Part(
            self.forward_s + other.forward_s,
            self.backward_s + other.backward_s,
            self.parameters + other.parameters,
            self.expert_parameters + other.expert_parameters,
            self.weight_bytes + other.weight_bytes,
            self.saved_bytes + other.saved_bytes,
        )


class Bounds:
    """Bounds of many layouts, sharing what they have in common."""

    def __init__(self, shared: Shared | None = None) -> None:
        self._shared = shared or Shared()
        self._models: dict[tuple[object, ...], _Model] = {}
        self._plans: dict[tuple[object, ...], RunPlan] = {}

    def bound(self, run: RunSpec, *, rough: bool = False) -> Bound:
        """The bound of a legal layout. A ``rough`` one counts kernels alone, which need no replay."""
        p = run.parallelism
        schedule = measured_schedule(run) if run.schedule == AUTOMATIC else schedule_of(run)
        options = step_options(run, schedule, whole=False)
        is_open = p.stage_split == BALANCED or run.schedule == AUTOMATIC
        if is_open and _counts_by_chunk(run.training):
            return Bound(0.0, 0.0)  # what the split is decides what layers do
        model = self._model(
            run,
            split=schedule.splits_backward,
            floor=rough or schedule.pairs or options.overlap_experts,
            forward_only=schedule.forward_only,
        )
        blocks = self._shared.blocks(run, schedule.directions)
        if is_open or schedule.forward_only:
            return _bound_of_any(model.stages(1, 1, "equal")[0], run)
        stages = model.stages(p.pp, p.vp if schedule.directions == 1 else 1, p.stage_split)
        placement = schedule.placement(p.pp, p.vp)
        hops = (
            [blocks.costs.hop(model.plan.message_bytes, device) for device in range(p.pp)]
            if p.pp > 1
            else [0.0]
        )
        seconds = _pipeline_seconds(schedule, placement, stages, hops, run.microbatches)
        data, on_device = _data(run, model.plan, schedule.directions), p.offload == StateOffload()
        first = sum((stages[stage] for stage in placement[0]), _Part())
        live = _live(schedule, p.pp, p.vp, run)
        peak = max(
            (_static_bytes(data, held) if on_device else 0.0)
            + count * min(stage.saved_bytes for stage in held)
            for count, held in zip(live, ([stages[s] for s in device] for device in placement), strict=True)
        )
        if on_device:
            seconds += _optimizer_seconds(data, first, blocks)
            if schedule.directions == 1 and schedule.synchronous:
                layers = model.dense_parameters(placement[0], p.pp, p.vp, p.stage_split)
                buckets = [data.buckets(each, cut=index == 0) for index, each in enumerate(layers)]
                seconds += _data_seconds(run, data, buckets, blocks, tail=not schedule.splits_backward)
                seconds = max(seconds, _reduction_seconds(run, data, buckets, blocks))
        return Bound(seconds * (1.0 - SLACK), peak)

    def _model(self, run: RunSpec, *, split: bool, floor: bool, forward_only: bool) -> _Model:
        """The timed layers of a run, in common to all ways to cut them into stages."""
        training, by_chunk = run.training, _counts_by_chunk(run.training)
        alone = run if by_chunk else _one_stage(run)
        key: tuple[object, ...] = (
            *(id(run.model), id(run.cluster), alone.gpus, alone.parallelism, training, forward_only),
            replace(run.runtime, overlap_grad_reduce=True, overlap_param_gather=True, overlap_p2p=None),
        )
        found = self._models.get((key, split, floor))
        if found is None:
            plan = self._plans.get(key)
            if plan is None:
                plan = self._plans[key] = plan_run(alone, forward_only=forward_only)
            timer = _Timer(self._shared.blocks(alone), split=split, floor=floor)
            found = self._models[key, split, floor] = _Model(run, plan, timer, by_chunk=by_chunk)
        return found


def _bound_of_any(model: _Part, run: RunSpec) -> Bound:
    """Of any split and schedule: the busiest device has at least an equal share of the work."""
    seconds = run.microbatches * (model.forward_s + model.backward_s) / run.parallelism.pp
    return Bound(seconds * (1.0 - SLACK), model.saved_bytes / run.parallelism.pp)


def _counts_by_chunk(training: Training) -> bool:
    """Whether settings count layers of each chunk, so that layers differ with the split."""
    recompute = training.recompute
    several = recompute.method == "block" or recompute.num_layers > 1
    return training.activation_offload_layers > 0 or (recompute.granularity == "full" and several)


class _Timer:
    """Times layers by replayed blocks or, where two of them may hide in each other, by their kernels."""

    def __init__(self, blocks: Blocks, *, split: bool, floor: bool) -> None:
        self._blocks = blocks
        self._split = split
        self._floor = floor

    def part(self, layer: LayerShare) -> _Part:
        """A layer."""
        backward = [layer.input_gradient, layer.weight_gradient] if self._split else [layer.backward]
        return _Part(
            forward_s=self._seconds(layer.forward),
            backward_s=sum(map(self._seconds, backward)),
            parameters=layer.parameters,
            expert_parameters=layer.expert_parameters,
            weight_bytes=layer.weight_bytes,
            saved_bytes=layer.saved_bytes,
        )

    def _seconds(self, segment: Segment) -> float:
        if not self._floor:
            return self._blocks.block(segment).seconds
        steps = self._blocks.quickest(segment).steps
        kernels = (step.op for step in steps if step.stream == COMPUTE and isinstance(step.op, KERNELS))
        return self._blocks.costs.total(kernels)


class _Model:
    """A model's layers, timed, and their sums over stages."""

    def __init__(self, run: RunSpec, plan: RunPlan, timer: _Timer, *, by_chunk: bool) -> None:
        self.run = run  # kept, so that the identities in its key stay its own
        self.plan = plan
        self._stages: dict[object, Sequence[_Part]] = {}
        self._chunks: dict[object, Sequence[Chunk]] = {}
        known: dict[int, _Part] = {}
        chunks = []
        for chunk in plan.chunks:
            for layer in chunk.layers:
                if id(layer) not in known:
                    known[id(layer)] = timer.part(layer)
            chunks.append([known[id(layer)] for layer in chunk.layers])
        self._whole = [sum(parts, _Part()) for parts in chunks] if by_chunk else None
        layers, mtp = run.model.num_hidden_layers, run.model.num_nextn_predict_layers
        parts = chunks[0]
        self._embedding, self._loss = parts[0], sum(parts[1 + layers + mtp :], _Part())
        self._mtp = parts[1 + layers : 1 + layers + mtp]
        self._before = list(accumulate(parts[1 : 1 + layers], initial=_Part()))

    def stages(self, pp: int, vp: int, split: str | tuple[int, ...]) -> Sequence[_Part]:
        """The sums of the layers of each virtual stage."""
        if self._whole is not None:
            return self._whole
        found = self._stages.get((pp, vp, split))
        if found is None:
            model = self.run.model
            chunks = split_stages(
                model.num_hidden_layers,
                pp,
                vp,
                split,
                mtp_layers=model.num_nextn_predict_layers,
            )
            found = self._stages[pp, vp, split] = [self._stage(chunk) for chunk in chunks]
            self._chunks[pp, vp, split] = chunks
        return found

    def dense_parameters(
        self, held: Sequence[int], pp: int, vp: int, split: str | tuple[int, ...]
    ) -> list[tuple[float, ...]]:
        """By virtual stage of a device: the parameters of its decoder layers that every replica holds, one by
        one, and of the embedding."""
        if self._whole is not None:
            chunks = [self.plan.chunks[stage].layers for stage in held]
        else:
            self.stages(pp, vp, split)
            every, cut = self.plan.chunks[0].layers, self._chunks[pp, vp, split]
            chunks = [
                (*every[: cut[stage].embedding], *(every[1 + index] for index in cut[stage].layers))
                for stage in held
            ]
        return [tuple(layer.parameters - layer.expert_parameters for layer in chunk) for chunk in chunks]

    def _stage(self, chunk: Chunk) -> _Part:
        total = _Part()
        if chunk.embedding:
            total += self._embedding
        if chunk.layers:  # consecutive ones
            total += _difference(self._before[chunk.layers[-1] + 1], self._before[chunk.layers[0]])
        for part in self._mtp[: chunk.mtp]:
            total += part
        return total + self._loss if chunk.loss else total


def _difference(a: _Part, b: _Part) -> _Part:
    return _Part(
        a.forward_s - b.forward_s,
        a.backward_s - b.backward_s,
        a.parameters - b.parameters,
        a.expert_parameters - b.expert_parameters,
        a.weight_bytes - b.weight_bytes,
        a.saved_bytes - b.saved_bytes,
    )


def _one_stage(run: RunSpec) -> RunSpec:
    """A run on one pipeline stage, whose layers do what those of every stage of ``run`` do.

    Where TP and CP stay inside a scale-up domain and nothing else divides a layer, one replica will do.
    """
    p, inner = run.parallelism, run.parallelism.tp * run.parallelism.cp
    fsdp = replace(  # what it does by default depends on pp
        p.fsdp,
        reshard_after_forward=p.gathered_until == "forward",
        reshard_after_backward=p.gathered_until != "step",
        gradient_sync=p.gradients_reduced,
    )
    one = replace(p, pp=1, vp=1, dp=0, schedule="", stage_split="equal", fsdp=fsdp)
    inside = run.cluster.scale_up.domain_size % inner == 0 and run.runtime.rank_order.startswith("tp-cp")
    alone = inside and not run.model.is_moe and p.zero < 2
    return replace(run, gpus=inner if alone else run.gpus // p.pp, parallelism=one)


def _data(run: RunSpec, plan: RunPlan, copies: int) -> DataParallel:
    """The data parallelism of a run whose layers are those of a plan for fewer replicas."""
    replicas, shards = run.dp * run.parallelism.cp, run.shard_size * copies
    return replace(plan.data, replicas=replicas, shard_ranks=shards, model_copies=copies)


def _pipeline_seconds(
    schedule: Schedule,
    placement: Sequence[Sequence[int]],
    stages: Sequence[_Part],
    hops: Sequence[float],
    microbatches: int,
) -> float:
    """The longest of the devices' chains of work."""
    per_device = microbatches // schedule.directions
    busy = [
        per_device * sum(stages[stage].forward_s + stages[stage].backward_s for stage in held)
        for held in placement
    ]
    if schedule.directions > 1 or not schedule.synchronous:
        return max(busy)
    device_of = {stage: device for device, held in enumerate(placement) for stage in held}
    head, tail, longest = 0.0, 0.0, 0.0
    entered: set[int] = set()
    for number, stage in enumerate(stages):
        device = device_of[number]
        if device not in entered:  # the device's first stage: nothing runs on it before this forward
            entered.add(device)
            after = 0.0 if schedule.splits_backward else tail
            longest = max(longest, head + busy[device] + after)
        crossed = 0.0
        if number + 1 < len(stages) and device_of[number + 1] != device:
            crossed = hops[_hop(device, device_of[number + 1])]
        head += stage.forward_s + crossed
        tail += stage.backward_s + crossed
    return longest


def _hop(source: int, target: int) -> int:
    """Which link of the ring of devices a message takes."""
    return min(source, target) if abs(source - target) == 1 else max(source, target)


def _optimizer_seconds(data: DataParallel, held: _Part, blocks: Blocks) -> float:
    """What the device of the first stage does after the last gradient."""
    shard = data.shard(held.parameters, held.expert_parameters)
    return blocks.costs.total((*data.before_norm(shard), *data.after_norm(shard, held.parameters)))


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
            seconds += blocks.costs.total(data.reduce_gradients(bucket, "bound"))
    return seconds


def _reduction_seconds(
    run: RunSpec, data: DataParallel, stages: Sequence[Sequence[Bucket]], blocks: Blocks
) -> float:
    """ZeRO-2 reduces the first device's gradients after every microbatch, one bucket after the other."""
    if data.zero != 2:
        return 0.0
    every = (bucket for buckets in stages for bucket in buckets)
    once = sum(blocks.costs.total(data.reduce_gradients(bucket, "bound")) for bucket in every)
    return run.microbatches * once


def _static_bytes(data: DataParallel, held: Sequence[_Part]) -> float:
    """Weights, gradients and optimizer states of a device, as far as they are not sharded away."""
    total = sum(held, _Part())
    kept = optimizer_bytes(data, total.parameters, total.expert_parameters)
    if data.zero < 2:
        kept += total.parameters * data.grad_bytes
    return kept if data.fully_sharded else kept + total.weight_bytes


def _live(schedule: Schedule, p: int, v: int, run: RunSpec) -> Sequence[int]:
    """The most microbatches (of any chunk) that each device keeps activations of."""
    options = step_options(run, schedule, whole=False)
    return _live_counts(schedule, p, v, run.microbatches, options.overlap_experts)


@lru_cache(maxsize=4096)
def _live_counts(schedule: Schedule, p: int, v: int, m: int, paired: bool) -> tuple[int, ...]:
    options = StepOptions(
        overlap_grad_reduce=True, overlap_param_gather=True, overlap_p2p=True, overlap_experts=paired
    )
    counts = []
    for order in replayed_orders(schedule, p, m, v, options):
        alive = most = 0
        for action in order:
            for each in (action,) if action.partner is None else (action, action.partner):
                if each.kind is Kind.F:
                    alive += 1
                    most = max(most, alive)
                elif each.kind is not Kind.I:
                    alive -= 1
        counts.append(most)
    return tuple(counts)
