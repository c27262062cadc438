"""Stage splits: every layer once, in order, and each rule that is broken is named with a remedy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.partition.stage_balance import StageMemory, balanced
from simulator.partition.stages import Chunk, split_stages
from simulator.spec.stage_layout import parse_layout


def layers(chunks: Sequence[Chunk]) -> list[int]:
    return [len(chunk.layers) for chunk in chunks]


def whole(chunks: Sequence[Chunk], num_layers: int) -> None:
    """Each layer once and in order, the embedding on the first stage, the loss on the last."""
    assert [layer for chunk in chunks for layer in chunk.layers] == list(range(num_layers))
    assert [chunk.embedding for chunk in chunks] == [s == 0 for s in range(len(chunks))]
    assert [chunk.loss for chunk in chunks] == [s == len(chunks) - 1 for s in range(len(chunks))]


@pytest.mark.parametrize(
    ("num_layers", "pp", "vp", "split", "expected"),
    [
        (32, 4, 1, "equal", [8] * 4),
        (32, 4, 2, "equal", [4] * 8),
        (61, 16, 1, "even", [4] * 13 + [3] * 3),
        (126, 16, 8, "embedding-and-loss-as-layers", [0] + [1] * 126 + [0]),  # Llama 3 405B
        (126, 16, 1, "trimmed", [7] + [8] * 14 + [7]),
        (7, 4, 1, "embedding-as-layer", [1, 2, 2, 2]),
        (7, 4, 1, "loss-as-layer", [2, 2, 2, 1]),
        (61, 16, 1, "first=3,last=2", [3] + [4] * 14 + [2]),
        (61, 8, 1, "last=5", [8] * 7 + [5]),
        (22, 3, 2, "first=6,last=8", [3, 4, 4, 3, 4, 4]),
        (10, 4, 1, [1, 3, 3, 3], [1, 3, 3, 3]),
        (10, 2, 2, [4, 6], [2, 3, 2, 3]),
        (10, 2, 2, [1, 2, 3, 4], [1, 2, 3, 4]),
    ],
)
def test_named_and_explicit_splits(
    num_layers: int, pp: int, vp: int, split: str | list[int], expected: list[int]
) -> None:
    chunks = split_stages(num_layers, pp, vp, split)
    whole(chunks, num_layers)
    assert layers(chunks) == expected


def test_mtp_layers_sit_with_the_loss() -> None:
    chunks = split_stages(8, 4, 1, "equal", mtp_layers=2)
    assert [chunk.mtp for chunk in chunks] == [0, 0, 0, 2]


@pytest.mark.parametrize(
    ("layout", "pp", "vp", "num_layers", "mtp", "expected"),
    [
        ("Et*2|(t*2|)*34,t*3|(t*2|)*3,tL", 20, 2, 80, 0, [2] + [2] * 34 + [3] + [2] * 3 + [1]),
        ("Et*3|(tt|)*29,m|L", 16, 2, 61, 1, [3] + [2] * 29 + [0, 0]),  # DeepSeek-V3 in Megatron Bridge
        ("E|t|t|L", 4, 1, 2, 0, [0, 1, 1, 0]),
        ("Et||tL", 3, 1, 2, 0, [1, 0, 1]),
        ("E ((t|)*2 t)*2 tL", 5, 1, 7, 0, [1, 1, 2, 1, 2]),
    ],
)
def test_megatron_layouts(
    layout: str, pp: int, vp: int, num_layers: int, mtp: int, expected: list[int]
) -> None:
    chunks = split_stages(num_layers, pp, vp, layout, mtp_layers=mtp)
    whole(chunks, num_layers)
    assert layers(chunks) == expected
    assert sum(chunk.mtp for chunk in chunks) == mtp


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=12))
def test_a_layout_written_out_or_with_repeats_means_the_same(counts: list[int]) -> None:
    long = "E" + "|".join("t" * n for n in counts) + "L"
    short = "E" + "|".join(f"t*{n}" if n else "" for n in counts) + "L"
    assert parse_layout(long) == parse_layout(short)
    assert [stage.count("t") for stage in parse_layout(long)] == counts


@pytest.mark.parametrize(
    ("num_layers", "pp", "vp", "split", "message"),
    [
        (61, 16, 1, "equal", r"layers \(61\) must be a multiple of pp·vp = 16; the nearest .* is 1"),
        (126, 16, 8, "equal", "nearest pp·vp that fits is 126"),
        (126, 10, 1, "trimmed", r"layers \+ 2 \(128\) must be a multiple of pp·vp = 10; .* is 8"),
        (10, 2, 1, "eqaul", "did you mean equal"),
        (10, 2, 1, [4, 5], "add up to 10 layers, not 9"),
        (10, 2, 2, [4, 5, 1], "give pp·vp = 4 or pp = 2 numbers, not 3"),
        (10, 2, 2, [5, 5], r"layers of device 0 \(5\) must be a multiple of vp = 2"),
        (10, 2, 1, [-1, 11], "must be ≥ 0"),
        (10, 2, 1, "first=2,first=3", "write first=a,last=b"),
        (10, 2, 1, "first=2,last=3", "leaves 5 of 10 layers for 0 devices"),
        (10, 4, 1, "first=3", r"the layers left \(7\) must be a multiple of the devices left = 3"),
        (10, 2, 1, "Et*5|(t*5L", r"column 6: this bracket is never closed\n  Et\*5\|\(t\*5L\n       \^"),
        (10, 2, 1, "Et*5|t*L", "column 8: expected a number after"),
        (10, 2, 1, "Et*5|t*5)L", "column 9: this bracket was never opened"),
        (10, 2, 1, "Et5|t*5L", "column 3: expected E, t, m, L"),
        (10, 2, 1, "Et*5|t*4L", "9 layers"),
        (10, 3, 1, "Et*5|t*5L", "2 stages"),
        (10, 2, 1, "t*5|Et*5L", "exactly one E, at its very beginning"),
        (10, 2, 1, "Et*5L|t*5", "exactly one L, at its very end"),
        (10, 2, 1, "Et*5m|t*5L", "after all transformer layers"),
        (10, 2, 1, "Et*5|t*5mL", "1 MTP layers"),
        (1, 4, 1, "loss-as-layer", "must be a multiple"),
    ],
)
def test_wrong_splits_say_what_is_allowed(
    num_layers: int, pp: int, vp: int, split: str | list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        split_stages(num_layers, pp, vp, split)


def every_split(num_layers: int, stages: int) -> list[tuple[int, ...]]:
    return [c for c in product(range(num_layers + 1), repeat=stages) if sum(c) == num_layers]


costs = st.lists(st.floats(0.1, 3.0), min_size=1, max_size=7)


@settings(max_examples=60, deadline=None)
@given(costs=costs, pp=st.integers(1, 4), embedding=st.floats(0, 2), loss=st.floats(0, 3))
def test_balanced_equals_the_best_of_all_splits(
    costs: list[float], pp: int, embedding: float, loss: float
) -> None:
    def slowest(counts: tuple[int, ...]) -> float:
        ends = [sum(counts[: s + 1]) for s in range(pp)]
        stages = [sum(costs[end - n : end]) for n, end in zip(counts, ends, strict=True)]
        stages[0] += embedding
        stages[-1] += loss
        return max(stages)

    found = balanced(costs, pp, embedding_cost=embedding, loss_cost=loss)
    whole(found.chunks, len(costs))
    assert found.step == pytest.approx(min(map(slowest, every_split(len(costs), pp))))
    assert found.step <= found.even_step


@pytest.mark.parametrize(
    ("name", "costs", "loss", "mtp", "pp", "vp"),
    [
        ("Llama 3 405B", [1.0] * 126, 0.7, 0, 16, 1),
        ("Llama 3 405B", [1.0] * 126, 0.7, 0, 16, 8),
        ("DeepSeek-V3", [0.6] * 3 + [1.0] * 58, 0.5, 1, 16, 1),
        ("DeepSeek-V3", [0.6] * 3 + [1.0] * 58, 0.5, 1, 4, 4),
    ],
)
def test_balanced_beats_the_even_split(
    name: str, costs: list[float], loss: float, mtp: int, pp: int, vp: int
) -> None:
    found = balanced(
        costs, pp, vp, embedding_cost=0.05, loss_cost=loss, mtp_layers=mtp, mtp_cost=1.6, microbatches=64
    )
    whole(found.chunks, len(costs))
    assert found.gain > 0.003


def test_balanced_keeps_within_the_memory_of_every_device() -> None:
    memory = StageMemory(
        capacity=14.0,
        layer_static=[1.0] * 12,
        layer_activations=[1.0] * 12,
        in_flight=[4.0, 3.0, 2.0, 1.0],
        loss=2.0,
    )
    found = balanced([1.0] * 12, 4, memory=memory)
    used = [n * (1 + live) for n, live in zip(layers(found.chunks), memory.in_flight, strict=True)]
    used[-1] += memory.loss
    assert max(used) <= memory.capacity
    assert found.step == 4.0
    assert layers(balanced([1.0] * 12, 4).chunks) == [3, 3, 3, 3]


def test_memory_that_nothing_fits_is_refused() -> None:
    memory = StageMemory(
        capacity=1.0, layer_static=[1.0] * 4, layer_activations=[0.0] * 4, in_flight=[1.0, 1.0]
    )
    with pytest.raises(ValueError, match="use more stages, recompute or tp"):
        balanced([1.0] * 4, 2, memory=memory)
