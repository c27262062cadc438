"""Who computes how much of the attention inside documents: CP ranks, microbatches, replicas.

Slices of each document (Transformer Engine's ring over packed sequences; "per-document" in WLB-LLM, Wang
2025) give every rank equal work, in shorter pieces. Slices of the packed sequence (Llama 3, section 3.3.2)
do not: ranks whose slices lie late in long documents have more to do, and in each layer the others wait for
them. Microbatches differ either way; so a pipeline stalls behind the heaviest, and the replica with most work
ends the step.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from simulator.graph.documents import Numbers, Sample, Work, mean_mask, sample, whole_mask, work
from simulator.graph.operators import Mask
from simulator.spec.documents import Documents

DRAWN = 2**20  # relative loads drawn for the choice of one replica
REPLICAS = 4096  # of them, at most


class DocumentShare(NamedTuple):
    """One rank's documents.

    ``mask``: mean over ranks, per sequence. ``peak``: work of the fullest rank of a microbatch over that.
    """

    mask: Mask
    peak: float


class MicrobatchLoads(NamedTuple):
    """Attention work over the mean, by microbatch, of the replica that ends the step.

    ``mean`` of them is what the others wait for, in groups of ``axis``.
    """

    work: tuple[float, ...]
    mean: float
    axis: str

    def of(self, microbatch: int) -> float:
        """Of a microbatch; pipelines with two directions count through both."""
        return self.work[microbatch % len(self.work)]


@lru_cache(maxsize=256)
def share_documents(
    documents: Documents, seq: int, window: int, ranks: int, batch: int, *, whole_sequences: bool
) -> DocumentShare:
    """What a rank of ``ranks`` computes of causal attention, zig-zag: slices r and 2c−1−r of 2c."""
    drawn = sample(documents, seq)
    by_rank = _by_rank(drawn, seq, window, ranks, whole_sequences=whole_sequences)
    mask = mean_mask(by_rank, drawn, ranks)
    loads = _microbatches(by_rank.computed, batch)
    mean = float(loads.mean())
    return DocumentShare(mask, float(loads.max(axis=1).mean()) / mean if mean else 1.0)


@lru_cache(maxsize=256)
def ring_masks(documents: Documents, seq: int, ranks: int) -> tuple[Mask, Mask]:
    """A rank's first block on a ring, of its own slices, and each other: two slice × slice squares."""
    drawn = sample(documents, seq)
    tokens = drawn.lengths / (2 * ranks)
    nothing = np.zeros_like(tokens)
    first, apart = work(nothing, tokens, 0), work(tokens, tokens, 0)
    square = Work(*(later - own for later, own in zip(apart, first, strict=True)))
    queries = 2 * first.queries
    own = Work(*(2 * a + b for a, b in zip(first, square, strict=True)))._replace(queries=queries)
    other = Work(*(2 * a for a in square))._replace(queries=queries)
    longest = whole_mask(documents, seq, 0).keys
    return (
        mean_mask(own, drawn)._replace(keys=longest / ranks),
        mean_mask(other, drawn)._replace(keys=longest / (2 * ranks)),
    )


@lru_cache(maxsize=256)
def microbatch_loads(
    documents: Documents,
    seq: int,
    window: int,
    ranks: int,
    batch: int,
    *,
    whole_sequences: bool,
    microbatches: int,
    depth: float,
    replicas: int,
    meeting: int,
    axis: str,
) -> MicrobatchLoads | None:
    """Loads of the replica that is expected to end the step; ``None`` where all are equal.

    Args:
        documents, seq, window, ranks, batch, whole_sequences: as of :func:`share_documents`.
        microbatches: of a replica in a step.
        depth: stages that a pipeline fills and drains through, in microbatches: (p − 1) / v.
        replicas: data-parallel ones.
        meeting: of them, those that wait for each other in every layer, along ``axis``.

    A pipeline takes about Σw + depth·max(w). Many replicas are drawn; of that length, the expected maximum
    over all replicas of a step is taken, and the drawn replica that comes closest to it.
    """
    drawn = sample(documents, seq)
    by_rank = _by_rank(drawn, seq, window, ranks, whole_sequences=whole_sequences)
    loads = np.sort(_microbatches(by_rank.computed, batch).max(axis=1))
    if not loads[-1] or loads[0] == loads[-1]:
        return None
    loads = loads / loads.mean()
    count = max(64, min(REPLICAS, DRAWN // microbatches))
    rng = np.random.default_rng((documents.seed, seq, microbatches))
    highest = rng.random((count, microbatches)) ** (1.0 / meeting)  # quantiles of the largest of those
    vectors = loads[(highest * len(loads)).astype(np.int64)]
    lengths = vectors.sum(axis=1) + depth * vectors.max(axis=1)
    expected = expected_maximum(lengths, max(1, replicas // meeting))
    chosen = vectors[np.argmin(np.abs(lengths - expected))]
    return MicrobatchLoads(tuple(map(float, chosen)), float(chosen.mean()), axis)


def expected_maximum(values: Numbers, draws: int) -> float:
    """Mean of the largest of so many draws from equally likely values."""
    ordered = np.sort(values)
    below = (np.arange(len(ordered) + 1) / len(ordered)) ** draws
    return float(ordered @ np.diff(below))


def _by_rank(drawn: Sample, seq: int, window: int, ranks: int, *, whole_sequences: bool) -> Work:
    """Work of [sequence, rank]."""
    totals = [np.zeros((drawn.sequences, ranks)) for _ in Work._fields]
    for index in range(2 * ranks if ranks > 1 else 1):
        rank = min(index, 2 * ranks - 1 - index)
        if whole_sequences:
            width = seq / (2 * ranks if ranks > 1 else 1)
            first = np.maximum(drawn.starts, index * width)
            stop = np.minimum(drawn.starts + drawn.lengths, (index + 1) * width)
            before, tokens = np.maximum(first - drawn.starts, 0.0), np.maximum(stop - first, 0.0)
        else:
            tokens = drawn.lengths / (2 * ranks if ranks > 1 else 1)
            before = index * tokens
        for total, part in zip(totals, work(before, tokens, window), strict=True):
            total[:, rank] += np.bincount(drawn.sequence, part, minlength=drawn.sequences)
    return Work(*totals)


def _microbatches(computed: Numbers, batch: int) -> Numbers:
    """Pairs of [microbatch, rank], each of ``batch`` sequences of the sample."""
    whole = len(computed) // batch * batch
    if not whole:  # a microbatch larger than the sample: all of them alike
        return np.asarray(computed.sum(axis=0, keepdims=True))
    return np.asarray(computed[:whole].reshape(-1, batch, computed.shape[1]).sum(axis=1))
