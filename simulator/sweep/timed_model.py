"""A model's layers, timed once, and their sums over the stages of any split: rows of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simulator.engine.block import Blocks
from simulator.engine.overlap import communicates
from simulator.graph.operators import Attention, Copy, Gemm, GroupedGemm, MemoryBound
from simulator.partition.chunk import stages_of
from simulator.partition.layer_share import LayerShare
from simulator.partition.plan import RunPlan
from simulator.partition.segment import COMPUTE, Segment
from simulator.spec.model import ModelSpec
from simulator.spec.run import RunSpec, Training

Rows: TypeAlias = NDArray[np.float64]
SplitOf: TypeAlias = str | tuple[int, ...]

FORWARD, BACKWARD, PARAMETERS, EXPERTS, WEIGHTS, SAVED = range(6)
"""Columns of a row: seconds of both passes, elements held (those of experts among them), bytes of weights and
of what is kept between the passes."""

KERNELS: Final = (Gemm, GroupedGemm, Attention, MemoryBound, Copy)
Seconds = Callable[[Segment], float]


class Way(NamedTuple):
    """How layers are timed. ``split``: a backward pass in its two parts. ``floor``: their kernels alone.

    ``paired``: a forward and a backward of layers with experts may be one block, as the engine joins them,
    with weight gradients beside communication where ``delay_wgrad`` says so.
    """

    split: bool
    floor: bool
    paired: bool
    delay_wgrad: bool


class Timer:
    """Times layers by replayed blocks or, where two of them may hide in each other, by their kernels."""

    def __init__(self, blocks: Blocks, known: dict[int, tuple[Segment, float]], way: Way) -> None:
        """``known``: kernels' seconds of segments on this cluster, to be added to."""
        self._blocks = blocks
        self._known = known
        self._way = way
        self._split = way.split
        self._seconds: Seconds = self._kernels if way.floor else lambda segment: blocks.block(segment).seconds

    def rows(self, layers: Sequence[LayerShare]) -> dict[int, tuple[float, ...]]:
        """By identity of each of these layers."""
        rows = {id(layer): self._row(layer) for layer in layers}
        if self._way.paired:
            joined = [
                layer for layer in layers if communicates(layer.forward) and communicates(layer.backward)
            ]
            saved = max((self._gain(a, b) for a in joined for b in joined), default=0.0)
            for layer in joined:
                forward, backward, *rest = rows[id(layer)]
                rows[id(layer)] = (forward - saved / 2.0, backward - saved / 2.0, *rest)
        return rows

    def _gain(self, ahead: LayerShare, back: LayerShare) -> float:
        """What a layer's forward and another's backward save as one block. Half of it for every forward and
        every backward, whatever its partner, is at least what is saved."""
        joint = self._blocks.joint(ahead.forward, back.backward, delay_wgrad=self._way.delay_wgrad)
        apart = self._seconds(ahead.forward) + self._seconds(back.backward)
        return max(0.0, apart - self._blocks.block(joint).seconds)

    def _row(self, layer: LayerShare) -> tuple[float, ...]:
        backward = [layer.input_gradient, layer.weight_gradient] if self._split else [layer.backward]
        return (
            self._seconds(layer.forward),
            sum(map(self._seconds, backward)),
            layer.parameters,
            layer.expert_parameters,
            layer.weight_bytes,
            layer.saved_bytes,
        )

    def _kernels(self, segment: Segment) -> float:
        quickest = self._blocks.quickest(segment)
        known = self._known.get(id(quickest))
        if known is None:
            kernels = (s.op for s in quickest.steps if s.stream == COMPUTE and isinstance(s.op, KERNELS))
            known = self._known[id(quickest)] = (quickest, self._blocks.costs.total(kernels))
        return known[1]


class _Cuts(NamedTuple):
    """What each virtual stage holds: layers [start, stop), and how often the embedding, MTP layers and the
    loss."""

    start: NDArray[np.intp]
    stop: NDArray[np.intp]
    embedding: Rows
    mtp: NDArray[np.intp]
    loss: Rows


@lru_cache(maxsize=1024)
def _cuts(model: ModelSpec, pp: int, vp: int, split: SplitOf) -> _Cuts:
    chunks = stages_of(model, pp, vp, split)
    return _Cuts(
        start=np.array([chunk.layers[0] if chunk.layers else 0 for chunk in chunks]),
        stop=np.array([chunk.layers[-1] + 1 if chunk.layers else 0 for chunk in chunks]),
        embedding=np.array([[float(chunk.embedding)] for chunk in chunks]),
        mtp=np.array([chunk.mtp for chunk in chunks]),
        loss=np.array([[float(chunk.loss)] for chunk in chunks]),
    )


class TimedModel:
    """The layers of a plan: of one stage or, where settings count layers of each chunk, cut as they are."""

    def __init__(self, run: RunSpec, plan: RunPlan, timer: Timer) -> None:
        self.run = run  # kept, so that the identities in its key stay its own
        self.plan = plan
        self._stages: dict[tuple[object, ...], Rows] = {}
        self._dense: dict[tuple[object, ...], list[tuple[float, ...]]] = {}
        known = timer.rows(list(dict.fromkeys(layer for chunk in plan.chunks for layer in chunk.layers)))
        chunks = [np.array([known[id(layer)] for layer in chunk.layers]) for chunk in plan.chunks]
        self._whole = (
            np.array([rows.sum(axis=0) for rows in chunks]) if counts_by_chunk(run.training) else None
        )
        layers, mtp = run.model.num_hidden_layers, run.model.num_nextn_predict_layers
        rows = chunks[0]
        self._embedding, self._loss = rows[0], rows[1 + layers + mtp :].sum(axis=0)
        self._before = _running(rows[1 : 1 + layers])
        self._mtp = _running(rows[1 + layers : 1 + layers + mtp])

    def stages(self, pp: int, vp: int, split: SplitOf) -> Rows:
        """By virtual stage, the sums over its layers."""
        if self._whole is not None:
            return self._whole
        key = (pp, vp, split)
        found = self._stages.get(key)
        if found is None:
            cuts = _cuts(self.run.model, pp, vp, split)
            ends = cuts.embedding * self._embedding + cuts.loss * self._loss + self._mtp[cuts.mtp]
            found = self._stages[key] = self._before[cuts.stop] - self._before[cuts.start] + ends
        return found

    def dense_parameters(
        self, held: Sequence[int], pp: int, vp: int, split: SplitOf
    ) -> list[tuple[float, ...]]:
        """By virtual stage of a device: the parameters of its decoder layers that every replica holds, one by
        one, and of the embedding."""
        key = (pp, vp, split, *held)
        found = self._dense.get(key)
        if found is None:
            found = self._dense[key] = [
                tuple(layer.parameters - layer.expert_parameters for layer in layers)
                for layers in self._layers(held, pp, vp, split)
            ]
        return found

    def _layers(self, held: Sequence[int], pp: int, vp: int, split: SplitOf) -> list[tuple[LayerShare, ...]]:
        if self._whole is not None:
            return [self.plan.chunks[stage].layers for stage in held]
        every, chunks = self.plan.chunks[0].layers, stages_of(self.run.model, pp, vp, split)
        return [
            (*every[: chunks[stage].embedding], *(every[1 + index] for index in chunks[stage].layers))
            for stage in held
        ]


def _running(rows: Rows) -> Rows:
    """Sums of the first 0, 1, … rows."""
    return np.concatenate((np.zeros((1, 6)), np.cumsum(rows.reshape(-1, 6), axis=0)))


def counts_by_chunk(training: Training) -> bool:
    """Whether settings count layers of each chunk, so that layers differ with the split."""
    recompute = training.recompute
    several = recompute.method == "block" or recompute.num_layers > 1
    return training.activation_offload_layers > 0 or (recompute.granularity == "full" and several)


def on_one_stage(run: RunSpec) -> RunSpec:
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
