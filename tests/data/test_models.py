"""Every model file loads and is named after its file; shapes agree with the collected architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from simulator.spec import catalogue
from simulator.spec.load import load_model

MODELS = catalogue.names("models")
COLLECTED = Path(__file__).parents[3] / "shared" / "reference" / "models.yaml"
GPT_SIZES = ("1.7", "3.6", "7.5", "18.4", "39.1", "76.1", "145.6", "310.1")
CORE_SIZES = ("1.7", "7.1", "16", "32", "70", "119", "177", "314", "462")
MPT_SIZES = ("125m", "350m", "760m", "1b", "3b", "7b", "13b", "30b", "70b")
NAME_OF = {
    "llama2_7b": "llama2-7b",
    "llama2_13b": "llama2-13b",
    "llama2_70b": "llama2-70b",
    "llama3_8b": "llama3-8b",
    "llama31_8b": "llama3.1-8b",
    "llama3_70b": "llama3-70b",
    "llama31_70b": "llama3.1-70b",
    "llama31_405b": "llama3.1-405b",
    "deepseek_v2": "deepseek-v2",
    "deepseek_v3": "deepseek-v3",
    "kimi_k2": "kimi-k2",
    "qwen3_30b_a3b": "qwen3-30b-a3b",
    "qwen3_235b_a22b": "qwen3-235b-a22b",
    "gpt_oss_120b": "gpt-oss-120b",
    "grok1_314b": "grok1-314b",
    "llama4_maverick": "llama4-maverick",
    "nemotron4_15b": "nemotron4-15b",
    "nemotron4_340b": "nemotron4-340b",
    "nemotron3_8b": "nemotron3-8b",
    "nemotron3_22b": "nemotron3-22b",
    "nemotronh_56b": "nemotron-h-56b",
    "nemotron_3_nano": "nemotron-3-nano-30b-a3b",
    "nemotron_3_super": "nemotron-3-super-120b-a12b",
    "nemotron_3_ultra": "nemotron-3-ultra-550b-a55b",
    "nemotron_3_5_lightning": "nemotron-3.5-lightning-30b-a3b",
    "gpt3_175b": "gpt3-175b",
    "meg_22b": "megatron-22b",
    "meg_175b": "megatron-175b",
    "meg_530b": "megatron-530b",
    "meg_1t": "megatron-1t",
    "sc21_529.6B": "megatron-530b",
    "sc21_1008.0B": "megatron-1t",
    **{f"sc21_{size}B": f"megatron-{size}b" for size in GPT_SIZES},
    **{f"mc08_{size}B": f"megatron-core-{size}b" for size in CORE_SIZES},
    **{f"mpt_{size}": f"mpt-{size}" for size in MPT_SIZES},
}
# fields the collection leaves out, words differently, or could not express
OTHER_FORM = {"params_b", "name", "source", "layer_types", "hybrid_override_pattern", "mamba_state_dim"}
REWORDED = {("moe_layer_freq", "every 2nd layer"), ("hidden_act", "gelu (GeGLU)")}


@pytest.mark.parametrize("name", MODELS)
def test_model_loads_under_its_file_name_with_a_source(name: str) -> None:
    model = load_model(name)
    assert model.name == name
    assert model.source


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_of_a_hybrid_has_its_letter(name: str) -> None:
    model = load_model(name)
    if model.hybrid_layer_pattern:
        assert len(model.hybrid_layer_pattern) == model.num_hidden_layers
        assert set(model.hybrid_layer_pattern) <= set("M*E-")
        assert ("E" in model.hybrid_layer_pattern) == model.is_moe


@pytest.mark.parametrize("name", MODELS)
def test_attention_heads_are_shared_evenly(name: str) -> None:
    model = load_model(name)
    if model.layers:
        return
    assert model.num_attention_heads % model.num_key_value_heads == 0
    grouped = model.num_key_value_heads < model.num_attention_heads
    assert model.attention_type == "mla" or (model.attention_type == "gqa") == grouped


def test_mixtral_is_there() -> None:
    assert {"mixtral-8x7b", "mixtral-8x22b"} <= set(MODELS)


def collected() -> dict[str, dict[str, Any]]:
    if not COLLECTED.is_file():
        pytest.skip("the collected architectures are not beside this checkout")
    entries: dict[str, dict[str, Any]] = yaml.safe_load(COLLECTED.read_text())
    return entries


@pytest.mark.parametrize("key", sorted(NAME_OF))
def test_shapes_agree_with_the_collected_architecture(key: str) -> None:
    entry = collected()[key]
    model = load_model(NAME_OF[key])
    for field, value in entry.items():
        if field in OTHER_FORM or (field, value) in REWORDED or str(value).startswith("hybrid"):
            continue
        assert getattr(model, field) == value, field
    pattern = entry.get("hybrid_override_pattern")
    assert pattern in {None, model.hybrid_layer_pattern}
    assert entry.get("mamba_state_dim") in {None, model.ssm_state_size}


def test_every_complete_architecture_has_a_file() -> None:
    complete = {key for key, entry in collected().items() if {"hidden_size", "vocab_size"} <= entry.keys()}
    unsupported = {"deepseek_v4_flash"}  # compressed sparse attention
    assert complete - unsupported == set(NAME_OF)
