"""Reading kernel profiles: YAML in ``hardware_profiles/kernels``, whole or built over another one."""

from __future__ import annotations

import math
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from simulator.cost.profile import FORMAT_VERSION, KernelProfile
from simulator.spec.catalogue import is_path
from simulator.spec.errors import Problem, SpecError, listed, nearest
from simulator.spec.text_file import read_text

_SECTIONS = ("gemm", "grouped_gemm", "attention", "memory_bound", "copy")


def load_kernel_profile(name_or_path: str | Path) -> KernelProfile:
    """The profile of this name in ``hardware_profiles/kernels``, or the one in this YAML file.

    A file that names a ``base`` replaces some of its classes (a site overlay), or carries it to another
    device (``widen_site`` is then added in quadrature to every site error that is not replaced). Raises
    SpecError for a name or file that does not exist, an older format, or an unknown or wrong field.
    """
    return _load(str(name_or_path))


def kernel_profile_names() -> list[str]:
    """The names of the shipped profiles."""
    return sorted(p.name.removesuffix(".yaml") for p in _folder().iterdir() if p.name.endswith(".yaml"))


def parse_kernel_profile(data: dict[str, Any], *, origin: str) -> KernelProfile:
    """A profile from the mapping of a YAML file; ``origin`` names it in errors."""
    return _validated(_resolved(data, origin, ()), origin)


@cache
def _load(name: str) -> KernelProfile:
    data, origin = _read(name)
    return parse_kernel_profile(data, origin=origin)


def _folder() -> Traversable:
    return resources.files("hardware_profiles") / "kernels"


def _read(name: str) -> tuple[dict[str, Any], str]:
    path = Path(name)
    source: Traversable = path
    if path.suffix not in {".yaml", ".yml"}:
        source = _folder() / f"{name}.yaml"
    if source is not path and not source.is_file():
        known = kernel_profile_names()
        rule = "must be the name of a shipped kernel profile, or a .yaml file"
        raise SpecError(Problem(value=name, rule=rule, suggestion=nearest(name, known) or listed(known)))
    text = read_text(source, "a kernel profile in YAML", (".yaml", ".yml"))
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        data = yaml.load(text, Loader=loader)  # a safe loader
    except yaml.YAMLError as error:
        raise SpecError(Problem(file=str(source), rule=f"is not YAML: {error}")) from error
    if not isinstance(data, dict):
        rule = "is no kernel profile; a mapping of keys is needed"
        raise SpecError(Problem(file=str(source), rule=rule))
    return data, str(source)


def _resolved(data: dict[str, Any], origin: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """The mapping with its base filled in."""
    version = data.get("format_version")
    if version != FORMAT_VERSION:
        rule = f"must be {FORMAT_VERSION}, the version this release reads"
        remedy = (
            "fit it again from its measurements: stepcast calibrate fit DATA --hardware NAME -o PROFILE.yaml"
        )
        raise SpecError(
            Problem(file=origin, key_path="format_version", value=version, rule=rule, suggestion=remedy)
        )
    if "base" not in data:
        return data
    base_name = str(data["base"])
    if is_path(base_name):
        base_name = str(Path(origin).parent / base_name)
    if base_name in seen:
        raise SpecError(
            Problem(file=origin, key_path="base", value=base_name, rule="must not lead back to itself")
        )
    base_data, base_origin = _read(base_name)
    base = _resolved(base_data, base_origin, (*seen, base_name))
    widen = float(data.get("widen_site", 0.0))
    own = {key: value for key, value in data.items() if key not in {"base", "widen_site", *_SECTIONS}}
    merged = {**base, **own}
    for section in _SECTIONS:
        inherited = _widened(base[section], widen) if widen else base[section]
        merged[section] = {**inherited, **(data.get(section) or {})}
    return merged


def _widened(classes: dict[str, Any], widen: float) -> dict[str, Any]:
    """The classes of another device: marked as transferred, with a larger site error."""
    result = {}
    for key, fitted in classes.items():
        if "forward" in fitted:
            result[key] = _widened(fitted, widen)
        else:
            result[key] = {**fitted, "basis": "transfer", "site": math.hypot(float(fitted["site"]), widen)}
    return result


def _validated(data: dict[str, Any], origin: str) -> KernelProfile:
    try:
        return _adapter().validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = Problem(file=origin, key_path=where, value=first.get("input"), rule=first["msg"])
        raise SpecError(problem) from error


@cache
def _adapter() -> TypeAdapter[KernelProfile]:
    return TypeAdapter(KernelProfile)
