"""``stepcast import hf``: public configurations give models of the published size; nothing is passed over."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from simulator.cli.app import main
from simulator.graph.parameters import count_parameters
from simulator.interop.huggingface.config import import_config
from simulator.spec.errors import SpecError
from simulator.spec.load import load_model
from simulator.spec.model import ModelSpec

CONFIGS: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "hf_configs.yaml").read_text(encoding="utf-8")
)
CONFIGS["vit-base-patch16-224"]["config"]["id2label"] = {str(n): f"class {n}" for n in range(1000)}
SMALL = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 100,
}
WORDS = {"name", "source", "notes", "published_parameters"}


def written(folder: Path, config: dict[str, Any], name: str = "small") -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def imported_model(folder: Path, **changes: Any) -> ModelSpec:
    return import_config(written(folder, {**SMALL, **changes}))[1]


@pytest.mark.parametrize("name", CONFIGS)
def test_size_is_the_published_one(name: str, tmp_path: Path) -> None:
    entry = CONFIGS[name]
    _, model = import_config(written(tmp_path, entry["config"]))
    published = entry["published_billions"] * 1e9
    assert count_parameters(model).without_mtp == pytest.approx(published, rel=0.007)


@pytest.mark.parametrize("name", [name for name, entry in CONFIGS.items() if "shipped" in entry])
def test_model_is_the_shipped_one(name: str, tmp_path: Path) -> None:
    _, model = import_config(written(tmp_path, CONFIGS[name]["config"]))
    shipped = load_model(CONFIGS[name]["shipped"])
    same = [field.name for field in fields(ModelSpec) if field.name not in WORDS]
    different = {name: (getattr(model, name), getattr(shipped, name)) for name in same}
    assert {name: pair for name, pair in different.items() if pair[0] != pair[1]} == {}


@pytest.mark.parametrize(
    "name", ["deepseek-v3", "llama4", "gpt2", "gemma-3-27b", "t5-11b", "bert-large-uncased"]
)
def test_every_key_is_accounted_for(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]["config"]
    imported, _ = import_config(written(tmp_path, config))
    said = {line.written.partition(" ")[0] for line in imported.lines}
    assert set(config.get("text_config", config)) <= said


def test_layers_of_two_types_become_a_period(tmp_path: Path) -> None:
    types = ["sliding_attention", "sliding_attention", "full_attention"] * 2
    model = imported_model(tmp_path, sliding_window=8, layer_types=types)
    assert (model.sliding_window, model.sliding_window_period) == (8, 3)


def test_a_window_that_is_switched_off_is_none(tmp_path: Path) -> None:
    model = imported_model(tmp_path, model_type="qwen2", sliding_window=8, use_sliding_window=False)
    assert model.sliding_window == 0


def test_leading_dense_layers_are_counted(tmp_path: Path) -> None:
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    model = imported_model(tmp_path, model_type="qwen3_moe", mlp_only_layers=[0, 1], **experts)
    assert model.first_k_dense_replace == 2


def test_a_files_own_value_wins_over_the_familys(tmp_path: Path) -> None:
    model = imported_model(tmp_path, model_type="gemma", tie_word_embeddings=False, hidden_activation="relu")
    assert (model.tie_word_embeddings, model.hidden_act) == (False, "relu")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"num_attention_head": 4}, "num_attention_head"),
        ({"hidden_act": "mish"}, "hidden_act"),
        ({"model_type": "lama"}, "model_type"),
        ({"model_type": "qwen3_next"}, "model_type"),
        ({"index_topk": 2048}, "index_topk"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
        ({"num_layers": 3}, "num_layers"),
        ({"model_type": "bert", "is_decoder": True}, "is_decoder"),
        ({"model_type": "bert", "position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"model_type": "whisper"}, "model_type"),
        ({"layer_types": ["linear_attention"] * 6}, "layer_types"),
        ({"layer_types": ["full_attention", *["sliding_attention"] * 5]}, "layer_types"),
        ({"mlp_only_layers": [5]}, "mlp_only_layers"),
        ({"word_embed_proj_dim": 32}, "word_embed_proj_dim"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"hidden_size": "64"}, "hidden_size"),
    ],
)
def test_what_is_unknown_or_not_modelled_is_refused_by_name(
    change: dict[str, Any], key: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError) as caught:
        imported_model(tmp_path, **change)
    assert [problem.key_path for problem in caught.value.problems] == [key]


def test_an_unknown_key_may_be_declared_meaningless(tmp_path: Path) -> None:
    path = written(tmp_path, {**SMALL, "my_note": "hello"})
    imported, _ = import_config(path, ignored=["my_note"])
    assert "my_note" in [line.written for line in imported.of("ignored")]


@pytest.mark.parametrize("text", ["", "[1]", '{"model_type": "llama",', "\xff"])
def test_what_is_no_config_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SpecError):
        import_config(path)


def test_the_command_writes_a_model_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, model = written(tmp_path, SMALL), tmp_path / "model.yaml"
    with pytest.raises(SystemExit) as ended:
        main(["import", "hf", str(path), "-o", str(model), "--name", "tiny"])
    assert ended.value.code == 0
    assert load_model(model).name == "tiny"
    out, err = capsys.readouterr()
    assert not out
    assert "hidden_size 64" in err


def test_the_command_refuses_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, model = written(tmp_path, {**SMALL, "depth": 3}), tmp_path / "model.yaml"
    with pytest.raises(SystemExit) as ended:
        main(["import", "hf", str(path), "-o", str(model)])
    assert ended.value.code == 2
    assert not model.exists()
    assert "--ignore depth" in capsys.readouterr().err
