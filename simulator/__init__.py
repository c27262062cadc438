"""stepcast: predicts the step time, MFU and memory of large-model training on a cluster."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.simulate import simulate
    from simulator.spec.load import load_run

__all__ = ["load_run", "simulate"]

_HOME = {"load_run": "simulator.spec.load", "simulate": "simulator.simulate"}


def __getattr__(name: str) -> Any:
    """Public names, imported when first asked for, so that ``import simulator`` stays light."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Package(ModuleType):
    """Keeps the function ``simulate`` in sight: importing the module of that name would hide it."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
