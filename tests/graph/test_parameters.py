"""Parameter counts against what publishers print, and against sums done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.graph.blocks import layer_blocks
from simulator.graph.parameters import count_parameters
from simulator.spec import catalogue
from simulator.spec.load import load_model
from simulator.spec.model import ModelSpec

ALLOWED = 0.005
# printed counts that miss by more, with the deviation and its reason
DEVIATIONS = {
    "grok1-314b": (0.0054, "314B as announced; the published shapes give 315.7B"),
    "kimi-k2": (-0.0131, "the report rounds to 1.04T; the shapes give 1.026T"),
    "megatron-1.7b": (-0.0281, "printed with two digits"),
    "megatron-3.6b": (-0.0105, "printed with two digits"),
    "megatron-core-1.7b": (0.0268, "printed with two digits"),
    "megatron-core-16b": (0.0068, "printed with two digits"),
    "megatron-core-32b": (-0.0163, "printed with two digits"),
    "nemotron-3-super-120b-a12b": (0.0056, "the name's 120B; printed with two digits"),
    "nemotron-h-56b": (0.0058, "the name's 56B; printed with two digits"),
}
PUBLISHED = [name for name in catalogue.names("models") if load_model(name).published_parameters]


@pytest.mark.parametrize("name", sorted(set(PUBLISHED) - set(DEVIATIONS)))
def test_count_meets_the_published_one(name: str) -> None:
    model = load_model(name)
    assert count_parameters(model).without_mtp == pytest.approx(model.published_parameters, rel=ALLOWED)


@pytest.mark.parametrize("name", sorted(DEVIATIONS))
def test_listed_deviations_are_real_and_as_listed(name: str) -> None:
    model = load_model(name)
    deviation = count_parameters(model).without_mtp / model.published_parameters - 1
    assert abs(deviation) > ALLOWED
    assert deviation == pytest.approx(DEVIATIONS[name][0], abs=1e-4)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("llama3-8b", 8_030_261_248),
        ("llama3.1-405b", 405_853_388_800),
        ("mixtral-8x7b", 46_702_792_704),
        ("mpt-7b", 6_658_859_008),
        ("qwen3-30b-a3b", 30_532_122_624),
    ],
)
def test_count_is_exact_where_the_publisher_gives_every_digit(name: str, count: int) -> None:
    """Sums of the tensors in the published checkpoints (llm-foundry's table for MPT)."""
    assert count_parameters(load_model(name)).total == count


@pytest.mark.parametrize(
    ("name", "active_billions"),
    [
        ("deepseek-v3", 37),
        ("deepseek-v2", 21),
        ("kimi-k2", 32.6),
        ("qwen3-235b-a22b", 22),
        ("qwen3-30b-a3b", 3.3),
        ("mixtral-8x7b", 12.9),
        ("mixtral-8x22b", 39),
        ("nemotron-3-nano-30b-a3b", 3.6),
        ("llama4-maverick", 17),
    ],
)
def test_active_parameters_round_to_the_published_ones(name: str, active_billions: float) -> None:
    assert count_parameters(load_model(name)).active / 1e9 == pytest.approx(active_billions, rel=0.025)


def test_prediction_module_of_deepseek_v3() -> None:
    """14B with its copies of the embedding and the head (DeepSeek-V3's README), which we share."""
    model = load_model("deepseek-v3")
    copies = 2 * model.vocab_size * model.hidden_size
    assert (count_parameters(model).mtp + copies) / 1e9 == pytest.approx(14, abs=0.6)


def test_experts_stand_after_the_dense_layers_and_at_their_period() -> None:
    v3 = layer_blocks(load_model("deepseek-v3"))
    assert [blocks[1] for blocks in v3[:4]] == ["mlp", "mlp", "mlp", "experts"]
    maverick = layer_blocks(load_model("llama4-maverick"))
    assert [blocks[1] for blocks in maverick[:4]] == ["mlp", "experts", "mlp", "experts"]


@st.composite
def gpt(draw: st.DrawFn) -> ModelSpec:
    """A GPT with h = 64·n and a vocabulary that needs no padding."""
    hidden = 64 * draw(st.integers(1, 64))
    return ModelSpec(
        name="gpt",
        num_hidden_layers=draw(st.integers(1, 100)),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_attention_heads=hidden // 64,
        vocab_size=draw(st.integers(1, 100_000)),
        gated_mlp=False,
        norm="layernorm",
        linear_bias=True,
        position_embedding="learned",
        max_position_embeddings=draw(st.integers(1, 8192)),
        tie_word_embeddings=True,
    )


@given(gpt())
def test_gpt_follows_the_formula_of_narayanan_2021(model: ModelSpec) -> None:
    """Equation 2: 12·l·h²·(1 + 13/(12h) + (V + s)/(12·l·h)); the last norm's 2h are not in it."""
    layers, h = model.num_hidden_layers, model.hidden_size
    formula = 12 * layers * h**2 + 13 * layers * h + (model.vocab_size + model.max_position_embeddings) * h
    assert count_parameters(model).total == formula + 2 * h


@given(gpt(), st.integers(1, 64), st.integers(1, 8))
def test_parts_sum_and_only_visited_experts_are_active(model: ModelSpec, experts: int, visited: int) -> None:
    sparse = replace(
        model,
        num_experts=experts,
        num_experts_per_tok=min(visited, experts),
        moe_intermediate_size=model.intermediate_size,
    )
    count = count_parameters(sparse)
    one = count.experts // (experts * model.num_hidden_layers)
    assert count.active == count.total - (experts - min(visited, experts)) * one * model.num_hidden_layers
    assert count.experts == experts * count_parameters(model).mlp
    untied = count_parameters(replace(sparse, tie_word_embeddings=False))
    assert untied.total - count.total == model.vocab_size * model.hidden_size
