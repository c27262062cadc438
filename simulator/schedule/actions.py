"""The alphabet of schedules: one action is one kind of work on one stage for one microbatch."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, TypeAlias


class Kind(IntEnum):
    """F forward, B full backward, I input gradient only, W weight gradient only."""

    F = 0
    B = 1
    I = 2  # noqa: E741
    W = 3


class Action(NamedTuple):
    """``stage`` counts virtual stages 0 … p·v−1 along the model; ``microbatch`` counts from 0.

    ``partner`` is set on the forward of an overlapped forward–backward pair (DualPipe): the backward-type
    action that runs beside it. ``direction`` is 1 for microbatches that enter at the last device (DualPipe).
    """

    kind: Kind
    stage: int
    microbatch: int
    direction: int = 0
    partner: Action | None = None

    @property
    def parts(self) -> tuple[Action, ...]:
        """Itself, and the one that runs beside it."""
        return (self,) if self.partner is None else (self, self.partner)


Order: TypeAlias = list[Action]
"""What one device runs, first to last."""
