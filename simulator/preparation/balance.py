"""``stage_split: balanced``: the split that suits the run's own layer times and memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from simulator.engine.block import Blocks
from simulator.memory.report import MemoryReport
from simulator.memory.shards import gradient_bytes, optimizer_bytes, weight_bytes
from simulator.partition.chunk import ChunkShare
from simulator.partition.data import DataParallel
from simulator.partition.layer_share import LayerShare
from simulator.partition.stage_balance import StageMemory, balanced_splits
from simulator.partition.stages import Chunk, layout_text, split_stages
from simulator.preparation.prepared import Prepared, with_schedule
from simulator.schedule.actions import Kind, Order
from simulator.schedule.definition import Schedule
from simulator.schedule.legality import unpaired
from simulator.spec.run import RunSpec
from simulator.spec.stage_split import NAMED_SPLITS


def balance(run: RunSpec, schedule: Schedule, blocks: Blocks) -> Prepared:
    """The run with the quickest of several splits, each replayed: balanced ones and those with a name.

    It needs no more memory than the device has or, where that is too little for the even split, than that one
    needs. The split is written as a Megatron layout string, and how much it gains as a choice.
    """
    even = with_schedule(_split(run, "even"), schedule)
    if run.parallelism.pp == 1:
        return even
    best, took = even, even.replay(blocks).seconds
    room = max(even.memory().peak_bytes, run.cluster.device.memory_bytes)
    takes = took
    for layout in dict.fromkeys((*_balanced_layouts(even, blocks), *_named_layouts(run))):
        other = with_schedule(_split(run, layout), schedule)
        seconds = other.replay(blocks).seconds
        if seconds < takes and other.memory().peak_bytes <= room:
            best, takes = other, seconds
    layout = layout_text(_chunks(best.run))
    less = f"{100 * (1 - takes / took):.1f} % less than the even split's {took:.4g} s"
    words = "the even split; none found is shorter" if best is even else f"{takes:.4g} s a step, {less}"
    return replace(best, choices=(f"stage_split balanced: {layout}, {words}",))


def _split(run: RunSpec, split: str) -> RunSpec:
    return replace(run, parallelism=replace(run.parallelism, stage_split=split))


def _chunks(run: RunSpec) -> tuple[Chunk, ...]:
    p, model = run.parallelism, run.model
    mtp = model.num_nextn_predict_layers
    return split_stages(model.num_hidden_layers, p.pp, p.vp, p.stage_split, mtp_layers=mtp)


def _named_layouts(run: RunSpec) -> Iterator[str]:
    """The splits with a name that are defined for the run."""
    for name in NAMED_SPLITS:
        with suppress(ValueError):
            yield layout_text(_chunks(_split(run, name)))


def _balanced_layouts(even: Prepared, blocks: Blocks) -> Iterator[str]:
    """Splits of least time for the layers' times, which are those of the even split."""
    run, p = even.run, even.run.parallelism
    mtp = run.model.num_nextn_predict_layers
    parts = _Parts.of(_chunks(run), even.plan.chunks)
    held = even.held if even.schedule.directions == 1 else even.held[: p.pp // 2]  # the rest mirrors them
    for memory in (_memory(even, parts, held), None):  # its sums are rough; reports decide in the end
        with suppress(ValueError):  # nothing fits
            found = balanced_splits(
                [_seconds(layer, blocks) for layer in parts.layers],
                p.pp,
                p.vp,
                embedding_cost=sum(_seconds(layer, blocks) for layer in parts.first),
                loss_cost=sum(_seconds(layer, blocks) for layer in parts.last),
                mtp_layers=mtp,
                microbatches=run.microbatches,
                placement=held,
                memory=memory,
            )
            yield from (layout_text(split.chunks) for split in found)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Shares of a rank in model order: before the layers, the layers, after them."""

    first: Sequence[LayerShare]
    layers: Sequence[LayerShare]
    last: Sequence[LayerShare]

    @classmethod
    def of(cls, chunks: Sequence[Chunk], shares: Sequence[ChunkShare]) -> _Parts:
        """Of all virtual stages."""
        layers: list[LayerShare] = []
        for chunk, share in zip(chunks, shares, strict=True):
            layers += share.layers[chunk.embedding : chunk.embedding + len(chunk.layers)]
        end = shares[-1].layers[chunks[-1].embedding + len(chunks[-1].layers) :]
        return cls(shares[0].layers[:1], layers, end)


def _seconds(layer: LayerShare, blocks: Blocks) -> float:
    """Of one microbatch."""
    return blocks.block(layer.forward).seconds + blocks.block(layer.backward).seconds


def _memory(even: Prepared, parts: _Parts, held: Sequence[Sequence[int]]) -> StageMemory:
    """What the layers take, and the room for them: what else the even split's report counts is kept free."""
    orders = even.orders()
    report = even.memory(orders)
    live = _in_flight(orders, [chunk.saved_bytes for chunk in even.plan.chunks])
    static = [_static_bytes(even.plan.data, layer) for layer in parts.layers]
    saved = [layer.saved_bytes for layer in parts.layers]
    stages = [list(chunk.layers) for chunk in even.plan.chunks]

    def held_bytes(stage: int, layers: Sequence[LayerShare]) -> float:
        return sum(_static_bytes(even.plan.data, x) + live[stage] * x.saved_bytes for x in layers)

    modelled = [sum(held_bytes(stage, stages[stage]) for stage in device) for device in held]
    return StageMemory(
        capacity=_room(report, modelled),
        layer_static=static,
        layer_activations=saved,
        in_flight=live,
        embedding=held_bytes(0, parts.first),
        loss=held_bytes(len(stages) - 1, parts.last),
    )


def _room(report: MemoryReport, modelled: Sequence[float]) -> float:
    beside = max(stage.peak_bytes - bytes_ for stage, bytes_ in zip(report.stages, modelled, strict=False))
    return max(report.capacity_bytes - beside, *modelled)


def _static_bytes(data: DataParallel, layer: LayerShare) -> float:
    """Weights, gradients and optimizer states of one layer."""
    alone = [ChunkShare(layers=(layer,), buckets=data.buckets((layer.parameters,), cut=False))]
    states = optimizer_bytes(data, layer.parameters, layer.expert_parameters)
    return weight_bytes(data, alone) + gradient_bytes(data, alone) + states


def _in_flight(orders: Sequence[Order], saved: Sequence[float]) -> list[int]:
    """Microbatches of each stage between forward and end of backward, when their device keeps the most."""
    most = [0] * len(saved)
    for order in orders:
        alive = dict.fromkeys((action.stage for action in order), 0)
        kept, peak, at_peak = 0.0, 0.0, dict(alive)
        for action in unpaired(order):
            if action.kind is not Kind.I:
                change = 1 if action.kind is Kind.F else -1
                alive[action.stage] = alive.get(action.stage, 0) + change
                kept += change * saved[action.stage]
            if kept > peak:
                peak, at_peak = kept, dict(alive)
        for stage, count in at_peak.items():
            most[stage] = max(most[stage], count)
    return most
