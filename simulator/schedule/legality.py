"""When are orders legal? And what does each action wait for and release?

Orders are legal if every microbatch meets every stage with one F and either one B or one I and one W, all
actions of a stage are on one device, and each device, running its order strictly first to last, always gets
its inputs in the end (no deadlock). Orders without any backward are legal too: forward-only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from simulator.schedule.actions import Action, Kind, Order
from simulator.schedule.notation import format_action

PAIR_B, PAIR_I = 4, 5
"""Codes of a step that is a pair with a full backward or an input gradient; a single action's is its kind."""

_OUTPUT_NAMES = ("forward", "input gradient", "weight gradient")


class IllegalOrdersError(ValueError):
    """Orders that cannot run. ``device`` is where, or -1."""

    def __init__(self, message: str, device: int = -1) -> None:
        super().__init__(message)
        self.device = device


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Orders with their data flow. A slot is one output: of one kind, stage, microbatch and direction.

    ``steps[d]`` holds (code, slots awaited, slots released) of device d's actions in order; ``home[slot]`` is
    the device that writes the slot.
    """

    orders: list[Order]
    steps: list[list[tuple[int, tuple[int, ...], tuple[int, ...]]]]
    home: list[int]
    stages: int
    microbatches: int
    forward_only: bool

    def describe_slot(self, slot: int) -> str:
        """A slot in words."""
        rest, microbatch = divmod(slot, self.microbatches)
        rest, stage = divmod(rest, self.stages)
        direction, output = divmod(rest, 3)
        entry = " (entering at the last device)" if direction else ""
        return f"{_OUTPUT_NAMES[output]} of microbatch {microbatch} on stage {stage}{entry}"


def unpaired(order: Order) -> Iterator[Action]:
    """Actions one by one; of a pair the forward first."""
    for action in order:
        if action.partner is None:
            yield action
        else:
            yield action._replace(partner=None)
            yield action.partner


def compile_orders(orders: Sequence[Order]) -> Program:
    """Link every action to the outputs it waits for.

    Raises:
        IllegalOrdersError: an action is missing or there twice, or a stage is spread over devices.
    """
    flat = [action for order in orders for action in order]
    flat += [action.partner for action in flat if action.partner is not None]
    kinds, stages_run, microbatches_run, directions_run, _ = zip(*flat, strict=True) if flat else ((),) * 5
    stages = 1 + max(stages_run, default=0)
    microbatches = 1 + max(microbatches_run, default=0)
    directions = 1 + max(directions_run, default=0)
    plane = stages * microbatches  # slots of one output kind
    if directions * plane > len(flat):  # before a stray number asks for a huge table
        _name_missing_forward(flat, stages, microbatches, directions)
    home = [-1] * (3 * directions * plane)
    last = stages - 1

    def link(action: Action) -> tuple[tuple[int, ...], tuple[int, ...]]:
        kind, stage, microbatch, direction, _ = action
        forward = (3 * direction * stages + stage) * microbatches + microbatch
        gradient = forward + plane
        if kind == Kind.F:
            return ((forward - microbatches,) if stage else ()), (forward,)
        if kind == Kind.W:
            return (gradient,), (gradient + plane,)
        awaited = (forward, gradient + microbatches) if stage < last else (forward,)
        return awaited, ((gradient, gradient + plane) if kind == Kind.B else (gradient,))

    steps = []
    for device, order in enumerate(orders):
        own = []
        for action in order:
            code: int = action.kind
            awaited, released = link(action)
            if action.partner is not None:
                code = PAIR_B if action.partner.kind == Kind.B else PAIR_I
                more_awaited, more_released = link(action.partner)
                awaited, released = awaited + more_awaited, released + more_released
            for slot in released:
                if home[slot] >= 0:
                    raise IllegalOrdersError(f"{format_action(action)} is there a second time", device)
                home[slot] = device
            own.append((code, awaited, released))
        steps.append(own)
    program = Program(
        orders=list(orders),
        steps=steps,
        home=home,
        stages=stages,
        microbatches=microbatches,
        forward_only=set(kinds) <= {Kind.F},
    )
    _check_complete(program)
    return program


def _name_missing_forward(
    flat: Sequence[Action], stages: int, microbatches: int, directions: int
) -> NoReturn:
    """Fewer actions than (stage, microbatch) pairs: some pair has none."""
    there = {(a.direction, a.stage, a.microbatch) for a in flat if a.kind == Kind.F}
    stage, microbatch = next(
        (s, k)
        for d in range(directions)
        for s in range(stages)
        for k in range(microbatches)
        if (d, s, k) not in there
    )
    raise IllegalOrdersError(
        f"the forward of microbatch {microbatch} on stage {stage} is missing, "
        f"of {stages} stages and {microbatches} microbatches"
    )


def _check_complete(program: Program) -> None:
    """Each output of each (stage, microbatch) is written, all of a stage's on one device."""
    home, plane = program.home, program.stages * program.microbatches
    for first in range(0, len(home), 3 * plane):
        for begin in range(first, first + plane, program.microbatches):
            outputs = range(begin, begin + (1 if program.forward_only else 3) * plane, plane)
            writers = {
                device for output in outputs for device in home[output : output + program.microbatches]
            }
            if -1 in writers:
                missing = next(
                    slot
                    for output in outputs
                    for slot in range(output, output + program.microbatches)
                    if home[slot] < 0
                )
                holder = max(writers)
                raise IllegalOrdersError(f"the {program.describe_slot(missing)} is missing", holder)
            if len(writers) > 1:
                stage = begin // program.microbatches % program.stages
                spread = " and ".join(map(str, sorted(writers)))
                message = f"stage {stage} is spread over devices {spread}; one device must run all of it"
                raise IllegalOrdersError(message, max(writers))
