"""Actions in the papers' letters: ``F(s, k)`` is the forward of microbatch k on stage s.

As text an action is ``<stage><kind><microbatch>``: ``0F3``, ``2I1``, ``2W1``, ``3B0``; ``(0F3;3B1)`` is a
pair that overlaps and a leading ``r`` marks the direction that enters at the last device.
"""

from __future__ import annotations

import re

from simulator.schedule.actions import Action, Kind

# tuple.__new__ skips NamedTuple's argument handling: long schedules make hundreds of thousands of actions
_new = tuple.__new__
_F, _B, _I, _W = Kind.F, Kind.B, Kind.I, Kind.W
_TEXT = re.compile(r"(r?)(\d+)([FBIW])(\d+)")


def F(stage: int, microbatch: int, direction: int = 0) -> Action:  # noqa: N802
    """Forward."""
    return _new(Action, (_F, stage, microbatch, direction, None))


def B(stage: int, microbatch: int, direction: int = 0) -> Action:  # noqa: N802
    """Full backward: the gradient for the previous stage leaves at its end."""
    return _new(Action, (_B, stage, microbatch, direction, None))


def I(stage: int, microbatch: int, direction: int = 0) -> Action:  # noqa: E743, N802
    """Input gradient only; the zero-bubble papers call it B."""
    return _new(Action, (_I, stage, microbatch, direction, None))


def W(stage: int, microbatch: int, direction: int = 0) -> Action:  # noqa: N802
    """Weight gradient only."""
    return _new(Action, (_W, stage, microbatch, direction, None))


def pair(forward: Action, backward: Action) -> Action:
    """F&B: a forward with the backward that runs beside it, as one action."""
    return forward._replace(partner=backward)


def format_action(action: Action) -> str:
    """An action as text."""
    if action.partner is not None:
        return f"({format_action(action._replace(partner=None))};{format_action(action.partner)})"
    return f"{'r' if action.direction else ''}{action.stage}{action.kind.name}{action.microbatch}"


def parse_action(text: str) -> Action:
    """The action that ``text`` names.

    Raises:
        ValueError: ``text`` is not in this notation.
    """
    if text.startswith("(") and text.endswith(")"):
        forward, separator, backward = text[1:-1].partition(";")
        pair_of = [parse_action(part) for part in (forward, backward)] if separator else []
        if [a.kind for a in pair_of] not in ([Kind.F, Kind.B], [Kind.F, Kind.I]):
            raise ValueError(f"{text!r} is not a pair; write a forward and a backward, as in (0F3;3B1)")
        return pair(*pair_of)
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not an action; write stage, kind (F, B, I or W) and microbatch, as in 0F3"
        )
    reverse, stage, kind, microbatch = match.groups()
    return Action(Kind[kind], int(stage), int(microbatch), int(bool(reverse)))
