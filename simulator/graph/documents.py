"""What attention computes when each sequence holds several documents and stays inside them.

A seeded sample of sequences stands for all. A *piece* is a run of queries of one document: ``tokens`` of
them, with ``before`` keys of the document ahead of the first.
"""

from __future__ import annotations

from functools import lru_cache
from math import log
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.graph.operators import Mask
from simulator.spec.documents import Documents

Numbers = npt.NDArray[np.float64]

TILE = 128  # queries of a thread block, which computes whole tiles (:mod:`simulator.cost.attention`)
SEQUENCES = 1024  # of a sample, at most
SAMPLED = 2**18  # documents of a sample, about


class Sample(NamedTuple):
    """Documents of many sequences: ``lengths``, and by document its ``sequence`` and where it ``starts``."""

    lengths: Numbers
    sequence: npt.NDArray[np.int64]
    starts: Numbers
    sequences: int


class Work(NamedTuple):
    """Of pieces or their sums: query-key pairs, pairs in whole tiles, queries in whole tiles."""

    pairs: Numbers
    tiles: Numbers
    queries: Numbers

    @property
    def computed(self) -> Numbers:
        """Pairs that a kernel computes: tiles on the diagonal whole."""
        return self.tiles + 0.5 * TILE * self.queries


@lru_cache(maxsize=64)
def sample(documents: Documents, seq: int) -> Sample:
    """Sequences of ``seq`` tokens filled with drawn documents; the parts of a cut one are strangers."""
    rng = np.random.default_rng((documents.seed, seq))
    typical = min(seq, max(1.0, _mean(documents)))
    count = int(min(SEQUENCES, max(32, SAMPLED * typical / seq)))
    drawn = _draw(documents, rng, int(1.2 * count * seq / typical) + 64)
    while drawn.sum() < count * seq:
        drawn = np.concatenate([drawn, _draw(documents, rng, len(drawn))])
    lengths, sequence = _cut(drawn, seq, count) if documents.packing == "cut" else _whole(drawn, seq, count)
    ends = np.cumsum(lengths)
    first = np.searchsorted(sequence, sequence)  # the first document of each one's sequence
    return Sample(lengths, sequence, ends - lengths - (ends - lengths)[first], count)


def filled(documents: Documents, seq: int) -> float:
    """Share of tokens that are not padding."""
    drawn = sample(documents, seq)
    return float(drawn.lengths.sum()) / (drawn.sequences * seq)


@lru_cache(maxsize=256)
def whole_mask(documents: Documents, seq: int, window: int) -> Mask:
    """The mean mask of a sequence that one rank has whole."""
    drawn = sample(documents, seq)
    return mean_mask(work(np.zeros_like(drawn.lengths), drawn.lengths, window), drawn)


def mean_mask(pieces: Work, drawn: Sample, ranks: int = 1) -> Mask:
    """Of one rank and sequence, where ``ranks`` share the pieces of a sample."""
    longest = np.zeros(drawn.sequences)
    np.maximum.at(longest, drawn.sequence, drawn.lengths)
    pairs, tiles, queries = (float(part.sum()) / (drawn.sequences * ranks) for part in pieces)
    return Mask(pairs, tiles, queries, float(longest.mean()))


def work(before: Numbers, tokens: Numbers, window: int) -> Work:
    """Of causal pieces; ``window``: keys a query sees at most (0: all before it)."""
    padded = TILE * np.ceil(tokens / TILE)
    return Work(
        _seen(before + tokens, window) - _seen(before, window),
        _seen(before + padded, window) - _seen(before, window),
        padded,
    )


def _seen(tokens: Numbers, window: int) -> Numbers:
    """Pairs of the first tokens of a document with those before them: n²/2, less beyond a window."""
    squares = tokens**2 / 2.0
    return np.where(tokens > window, window * tokens - window**2 / 2.0, squares) if window else squares


def _mean(documents: Documents) -> float:
    if documents.distribution != "listed":
        return documents.mean
    return float(np.average(documents.lengths, weights=documents.shares or None))


def _draw(documents: Documents, rng: np.random.Generator, count: int) -> Numbers:
    """So many lengths; a lognormal one with that mean has the median mean·exp(−σ²/2)."""
    if documents.distribution == "fixed":
        return np.full(count, float(round(documents.mean)))
    if documents.distribution == "lognormal":
        location = log(documents.mean) - documents.sigma**2 / 2.0
        return np.maximum(1.0, np.round(rng.lognormal(location, documents.sigma, count)))
    shares = np.array(documents.shares or [1.0] * len(documents.lengths))
    return rng.choice(np.array(documents.lengths, dtype=float), count, p=shares / shares.sum())


def _cut(drawn: Numbers, seq: int, count: int) -> tuple[Numbers, npt.NDArray[np.int64]]:
    """One stream, cut wherever a sequence is full."""
    borders = np.union1d(np.cumsum(drawn), np.arange(1, count + 1) * float(seq))
    borders = borders[borders <= count * seq]
    starts = np.concatenate([[0.0], borders[:-1]])
    return borders - starts, (starts // seq).astype(np.int64)


def _whole(drawn: Numbers, seq: int, count: int) -> tuple[Numbers, npt.NDArray[np.int64]]:
    """First fit: a document goes to the first sequence with room for it; longer ones lose their end."""
    room, lengths, places = np.full(count, float(seq)), [], []
    for tokens in np.minimum(drawn, seq):
        place = int(np.argmax(room >= tokens))
        if room[place] < tokens:  # none has room
            break
        room[place] -= tokens
        lengths.append(tokens)
        places.append(place)
    order = np.argsort(np.array(places), kind="stable")
    return np.array(lengths)[order], np.array(places, dtype=np.int64)[order]
