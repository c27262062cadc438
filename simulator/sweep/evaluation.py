"""What became of a layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

NO_ROOM: Final = "memory"  # the message of a layout that does not fit
Status: TypeAlias = Literal["ok", "infeasible", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What became of a layout.

    ``infeasible``: legal, but it does not fit or breaks a constraint on results; ``failed``: the simulator
    could not run it. ``message`` says why; figures that were not computed are 0.
    """

    number: int
    labels: tuple[Any, ...]
    status: Status
    message: str = ""
    step_time_s: float = 0.0
    tokens_per_s: float = 0.0
    mfu: float = 0.0
    bubble_fraction: float = 0.0
    peak_bytes: float = 0.0
    capacity_bytes: float = 0.0
    breakdown_s: Mapping[str, float] = field(default_factory=dict)
