"""Kernel profiles as YAML files."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from simulator.cost.profile import FORMAT_VERSION, AttentionKernel, Fitted, KernelProfile

_DIGITS = 4


def profile_document(profile: KernelProfile) -> dict[str, Any]:
    """A whole profile as the mapping of its YAML file."""
    return {
        "format_version": FORMAT_VERSION,
        "name": profile.name,
        **({"title": profile.title} if profile.title else {}),
        "device": profile.device,
        "date": profile.date,
        "notes": profile.notes,
        "fitted_on": {key: _rounded(value) for key, value in profile.fitted_on.items()},
        "default_attention": profile.default_attention,
        **class_documents(profile),
    }


def class_documents(profile: KernelProfile) -> dict[str, Any]:
    """The sections of a profile."""
    return {
        "gemm": {key: fitted_document(fit) for key, fit in profile.gemm.items()},
        "grouped_gemm": {key: fitted_document(fit) for key, fit in profile.grouped_gemm.items()},
        "attention": {key: attention_document(kernel) for key, kernel in profile.attention.items()},
        "memory_bound": {key: fitted_document(fit) for key, fit in profile.memory_bound.items()},
        "copy": {key: fitted_document(fit) for key, fit in profile.copy.items()},
    }


def attention_document(kernel: AttentionKernel) -> dict[str, Any]:
    """Both directions of one kernel generation."""
    return {"forward": fitted_document(kernel.forward), "backward": fitted_document(kernel.backward)}


def fitted_document(fit: Fitted[Any]) -> dict[str, Any]:
    """One class, without what is empty."""
    return {key: _rounded(value) for key, value in asdict(fit).items() if value not in (None, "", (), {}, 0)}


def dump(document: dict[str, Any]) -> str:
    """YAML in the order given, long lists in one line."""
    import yaml  # noqa: PLC0415

    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


def _rounded(value: Any) -> Any:
    """Four significant digits: more than any coefficient deserves."""
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(entry) for entry in value]
    return value
