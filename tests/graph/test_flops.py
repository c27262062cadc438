"""FLOP conventions against the figures their sources print."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.graph.flops import CONVENTIONS, find_convention
from simulator.graph.parameters import count_parameters
from simulator.spec.load import load_model


def per_token(convention: str, name: str, seq_length: int, *, predictions: int | None = None) -> float:
    """GFLOP per token, with another number of prediction layers if one is given."""
    model = load_model(name)
    if predictions is not None:
        model = replace(model, num_nextn_predict_layers=predictions)
    return find_convention(convention).flops_per_token(model, seq_length=seq_length) / 1e9


@pytest.mark.parametrize(
    ("name", "seq_length", "predictions", "printed"),
    [
        ("llama3-8b", 8192, 0, 51.5),
        ("llama3-70b", 8192, 0, 449.3),
        ("llama3.1-405b", 8192, 0, 2524),
        ("qwen3-235b-a22b", 4096, 0, 148.0),
        ("qwen3-30b-a3b", 4096, 0, 23.0),
        ("deepseek-v3", 4096, 1, 260.0),
        ("deepseek-v3", 4096, 0, 249.7),
        ("kimi-k2", 4096, 0, 204.44),
        ("gpt-oss-120b", 4096, 0, 32.62),  # from release 26.06 on, which counts the window
        ("nemotron-3-nano-30b-a3b", 8192, 0, 22.28),
        ("nemotron-3.5-lightning-30b-a3b", 8192, 2, 28.15),  # trained with two prediction layers
        ("nemotron-3-super-120b-a12b", 8192, 2, 84.73),
    ],
)
def test_megatron_counter_reproduces_megatron_bridge_tables(
    name: str, seq_length: int, predictions: int, printed: float
) -> None:
    """Printed TFLOP/s over printed tokens/s; the printed digits carry 0.1 %."""
    assert per_token("megatron", name, seq_length, predictions=predictions) == pytest.approx(
        printed, rel=1e-3
    )


@pytest.mark.parametrize(
    ("name", "seq_length", "printed"),
    [("llama3-8b", 8192, 57.9), ("nemotron3-22b", 4096, 130.17), ("nemotron3-8b", 4096, 51.41)],
)
def test_full_square_reproduces_the_nemo_24_07_table(name: str, seq_length: int, printed: float) -> None:
    assert per_token("megatron-full", name, seq_length) == pytest.approx(printed, rel=1e-3)


@pytest.mark.parametrize(
    ("seq_length", "printed"), [(512, 40.56), (2048, 43.09), (8192, 52.96), (32768, 92.2)]
)
def test_mosaic_reproduces_the_llm_foundry_table(seq_length: int, printed: float) -> None:
    """Printed MFU times peak over printed tokens/s; N grows with the learned positions."""
    model = replace(load_model("mpt-7b"), max_position_embeddings=seq_length)
    counted = CONVENTIONS["mosaic"].flops_per_token(model, seq_length=seq_length) / 1e9
    assert counted == pytest.approx(printed, rel=4e-3)


@pytest.mark.parametrize(
    ("name", "global_batch_size", "flops"),
    [("megatron-145.6b", 2304, 5.642e18), ("megatron-1t", 3072, 5.139e19)],
)
def test_narayanan_2021_reproduces_table_1(name: str, global_batch_size: int, flops: float) -> None:
    counted = CONVENTIONS["narayanan-2021"].flops_per_step(
        load_model(name), seq_length=2048, global_batch_size=global_batch_size
    )
    assert counted == pytest.approx(flops, rel=1e-4)


GPTS = ("megatron-1.7b", "megatron-22b", "megatron-175b", "megatron-1t")


@pytest.mark.parametrize("name", GPTS)
def test_korthikanti_2022_is_the_full_square_counter(name: str) -> None:
    """72·B·L·s·h²·(1 + s/6h + V/12hL) is three forwards of every GEMM, the core's square and the logits."""
    assert per_token("korthikanti-2022", name, 2048) == pytest.approx(per_token("megatron-full", name, 2048))


@pytest.mark.parametrize("name", GPTS)
def test_recompute_adds_its_forwards(name: str) -> None:
    """Full: a third of the layers' FLOPs, not of the logits'. Selective: 4·B·L·s²·h."""
    model, s = load_model(name), 2048
    h, layers = model.hidden_size, model.num_hidden_layers
    base = CONVENTIONS["korthikanti-2022"].flops_per_step(model, seq_length=s, global_batch_size=1)
    full = CONVENTIONS["narayanan-2021"].flops_per_step(model, seq_length=s, global_batch_size=1)
    selective = CONVENTIONS["korthikanti-2022-selective"].flops_per_step(
        model, seq_length=s, global_batch_size=1
    )
    logits = 6 * s * h * model.vocab_size
    assert full - base == pytest.approx((base - logits) / 3)
    assert selective - base == pytest.approx(4 * layers * s**2 * h)


def test_palm_adds_the_full_square_to_six_n() -> None:
    model = load_model("gpt3-175b")
    parameters = count_parameters(model).total
    attention = 12 * model.num_hidden_layers * model.hidden_size * 2048
    assert per_token("6n", "gpt3-175b", 2048) * 1e9 == pytest.approx(6 * parameters)
    assert per_token("palm-6n", "gpt3-175b", 2048) * 1e9 == pytest.approx(6 * parameters + attention)


@given(st.sampled_from(("llama3-8b", "deepseek-v3", "nemotron-h-56b")), st.integers(1, 1 << 17))
def test_causal_attention_is_half_the_square(name: str, seq_length: int) -> None:
    """A token sees s/2 keys on average, so twice the length costs a token what the square costs."""
    model = load_model(name)
    causal = CONVENTIONS["megatron"].flops_per_token(model, seq_length=2 * seq_length)
    square = CONVENTIONS["megatron-full"].flops_per_token(model, seq_length=seq_length)
    assert causal == pytest.approx(square)


def test_windows_count_only_the_keys_inside() -> None:
    """Half of GPT-OSS's layers see 128 keys: beyond that length they add nothing per token."""
    model = load_model("gpt-oss-120b")
    rule = CONVENTIONS["megatron"]
    short, long = (rule.flops_per_token(model, seq_length=s) for s in (4096, 8192))
    full_layers = model.num_hidden_layers / 2
    added = 12 * full_layers * model.num_attention_heads * model.head_dim * (8192 - 4096) / 2
    assert long - short == pytest.approx(added, rel=2e-3)
    inside = rule.flops_per_token(model, seq_length=128)
    assert inside == rule.flops_per_token(replace(model, sliding_window=0), seq_length=128)


@given(st.integers(1, 4096), st.integers(1, 64))
def test_steps_are_linear_in_the_batch_and_logits_in_the_padded_vocabulary(batch: int, padding: int) -> None:
    model, rule = load_model("llama3-8b"), CONVENTIONS["megatron"]
    step = rule.flops_per_step(model, seq_length=8192, global_batch_size=batch)
    assert step == pytest.approx(batch * 8192 * rule.flops_per_token(model, seq_length=8192))
    padded = rule.flops_per_token(model, seq_length=8192, padded_vocab_size=model.vocab_size + padding)
    assert padded - rule.flops_per_token(model, seq_length=8192) == pytest.approx(
        6 * model.hidden_size * padding, rel=1e-4
    )


@pytest.mark.parametrize("convention", ["narayanan-2021", "korthikanti-2022", "korthikanti-2022-selective"])
@pytest.mark.parametrize("name", ["llama3-8b", "deepseek-v3", "nemotron-h-56b", "nemotron4-15b"])
def test_formulas_for_gpt_refuse_other_models(convention: str, name: str) -> None:
    with pytest.raises(ValueError, match="use 'megatron'"):
        per_token(convention, name, 2048)


def test_only_the_hardware_conventions_include_recompute() -> None:
    including = {name for name, convention in CONVENTIONS.items() if convention.includes_recompute}
    assert including == {"narayanan-2021", "korthikanti-2022-selective"}


def test_unknown_convention_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'megatron-full'"):
        find_convention("megatron-ful")
