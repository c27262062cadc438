"""A Hugging Face ``config.json`` becomes a model file.

Every key is mapped, known to mean nothing for time and memory, entered as something near it and so noted, or
refused: nothing is passed over in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from simulator.interop.huggingface.dialects import DIALECTS, NOT_IMPORTED, Dialect
from simulator.interop.huggingface.keys import ACTIVATION_KEYS, FIELDS, without_work
from simulator.interop.huggingface.special import SPECIAL, Reading
from simulator.interop.imported import Imported, shown
from simulator.spec.errors import Problem, SpecError, nearest
from simulator.spec.load import parse_model
from simulator.spec.model import ModelSpec
from simulator.spec.text_file import read_text

INSIDE: Final = ("text_config", "llm_config", "language_config")  # where models of several towers keep ours


def import_config(path: Path, *, name: str = "", ignored: Iterable[str] = ()) -> tuple[Imported, ModelSpec]:
    """The model of a ``config.json``, with the account of every key.

    Args:
        path: the file.
        name: of the model; by default that of the checkpoint, or of the file's folder.
        ignored: keys that the caller knows to mean nothing here.

    Raises:
        SpecError: the file cannot be read, is of a family that is not known, or says what is not modelled.
    """
    config = _read(path)
    model_type = str(config.get("model_type", ""))
    imported = Imported(title=f"From {path.name}, of the family {model_type or 'unknown'} on Hugging Face.")
    dialect, config = _dialect(config, model_type, str(path), imported)
    reading = Reading(
        file=str(path),
        config={**dialect.defaults, **config},
        given=frozenset(config),
        fields=dict(dialect.fixed),
        imported=imported,
    )
    _read_keys(reading, dialect, frozenset(ignored))
    if reading.problems:
        raise SpecError(*reading.problems)
    for written, meaning in dialect.near:
        imported.note("approximated", written, meaning)
    imported.keys = _keys(reading, name or _name(config, path))
    return imported, parse_model(imported.yaml_text(), str(path))


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(read_text(path, "a config.json", (".json",)))
    except json.JSONDecodeError as error:
        raise SpecError(
            Problem(file=str(path), line=error.lineno, rule=f"is not JSON: {error.msg}")
        ) from None
    except RecursionError:
        raise SpecError(Problem(file=str(path), rule="is nested too deeply for a config.json")) from None
    if not isinstance(config, dict):
        raise SpecError(Problem(file=str(path), rule="must be a JSON object, as a config.json is"))
    return config


def _dialect(
    config: dict[str, Any], model_type: str, file: str, imported: Imported
) -> tuple[Dialect, dict[str, Any]]:
    """The family, and the keys of its language model."""
    inside = next((config[key] for key in INSIDE if isinstance(config.get(key), dict)), None)
    if inside is not None:
        for key in config.keys() - inside.keys() - set(INSIDE):
            if key.endswith("_config") and not without_work(key):
                imported.note("approximated", key, "left out: the language model alone")
            elif key in {"tie_word_embeddings", "torch_dtype", "quantization_config"}:
                inside = {**inside, key: config[key]}
        model_type, config = str(inside.get("model_type", model_type)), inside
    if model_type in DIALECTS:
        return DIALECTS[model_type], config
    if model_type in NOT_IMPORTED:
        rule = f"has {NOT_IMPORTED[model_type]}, which is not imported"
    else:
        rule = f"must be a known family of models: {', '.join(DIALECTS)}"
    problem = Problem(
        file=file,
        key_path="model_type",
        value=model_type,
        rule=rule,
        suggestion=nearest(model_type, DIALECTS, few=0),
    )
    raise SpecError(problem)


def _read_keys(reading: Reading, dialect: Dialect, ignored: frozenset[str]) -> None:
    """Every key of the file, then what the family's configuration class fills in."""
    for field_name, value in dialect.fixed.items():
        reading.imported.note("implied", *[f"{field_name} {shown(value)}"] * 2)
    for key, value in reading.config.items():
        if key in reading.given:
            _read_key(reading, dialect, key, value, ignored)
    for key, value in dialect.defaults.items():
        if key not in reading.given and _target(dialect, key) not in reading.fields:
            _read_key(reading, dialect, key, value, ignored)


def _target(dialect: Dialect, key: str) -> str:
    """The field that a key is about, which another key may have said already."""
    return "hidden_act" if key in ACTIVATION_KEYS else dialect.names.get(key) or FIELDS.get(key, key)


def _read_key(reading: Reading, dialect: Dialect, key: str, value: Any, ignored: frozenset[str]) -> None:
    if key in ignored:
        reading.ignore(key, "as asked on the command line")
    elif value is None:
        reading.ignore(key, "not set")
    elif key in dialect.names:
        _take(reading, key, dialect.names[key], value)
    elif key in SPECIAL:
        SPECIAL[key](reading, key, value)
    elif key in FIELDS:
        _take(reading, key, FIELDS[key], value)
    elif reason := without_work(key):
        reading.ignore(key, reason)
    else:
        known = (*FIELDS, *SPECIAL, *dialect.names)
        rule = "is not known here; if it means nothing for shapes and work: --ignore " + key
        reading.refuse(key, rule, nearest(key, known, limit=1, few=0))


def _take(reading: Reading, key: str, field_name: str, value: Any) -> None:
    if field_name == "head_dim" and reading.fields.get("attention_type") == "mla":
        reading.ignore(key, "latent attention has head sizes of its own")
    else:
        reading.map(key, field_name, value)


def _keys(reading: Reading, name: str) -> dict[str, Any]:
    """The model file's keys in the order of its fields, with what other keys imply."""
    found = reading.fields
    heads = found.get("num_attention_heads")
    if found.get("attention_type") == "mla":
        found.setdefault("head_dim", found.get("v_head_dim", 0))
    else:
        found["attention_type"] = "gqa" if found.get("num_key_value_heads", heads) != heads else "mha"
    if found.get("num_experts"):
        width = found.get("intermediate_size") or found.get("moe_intermediate_size", 0)
        found.setdefault("intermediate_size", width)
        found.setdefault("moe_intermediate_size", width)
    if "intermediate_size" not in found and found.get("hidden_size"):
        reading.map("intermediate_size", "intermediate_size", 4 * found["hidden_size"])
    order = (*ModelSpec.__dataclass_fields__,)
    source = f"Hugging Face config.json ({reading.config.get('model_type')})"
    near = "; ".join(f"{line.written}: {line.meaning}" for line in reading.imported.of("approximated"))
    said = {"name": name, "source": source, **({"notes": near} if near else {}), **found}
    return {key: said[key] for key in order if key in said}


def _name(config: dict[str, Any], path: Path) -> str:
    checkpoint = str(config.get("_name_or_path") or "").rstrip("/").rpartition("/")[2]
    folder = path.resolve().parent.name if path.stem == "config" else path.stem
    return re.sub(r"[^a-z0-9.]+", "-", (checkpoint or folder).casefold()).strip("-") or "imported"
