"""Schedules written by users: a CSV file in the format of PyTorch's pipeline runtime.

One row per device, one action per cell (``0F0``, ``1I3``, ``1W3``, ``0B2``, ``(0F3;3B1)OVERLAP_F_B``);
empty cells are idle slots. Cells for parameters and messages (``0UNSHARD``, ``1SEND_F0``…) are skipped:
the simulator places those itself.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from simulator.schedule.actions import Action, Order
from simulator.schedule.evaluate import Times, replay
from simulator.schedule.legality import IllegalOrdersError, compile_orders, unpaired
from simulator.schedule.notation import parse_action
from simulator.spec.errors import Problem, SpecError
from simulator.spec.text_file import read_text

_NOT_COMPUTE = re.compile(r"\d+(UNSHARD|RESHARD|REDUCE_GRAD|(SEND|RECV)_[FB]\d+)")
_PAIR_ENDING = "OVERLAP_F_B"
MAX_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSchedule:
    """Legal orders read from a file."""

    orders: list[Order]
    microbatches: int
    chunks: int  # most stages of one direction on a device
    directions: int
    placement: list[list[int]]  # stages of each device; with two directions, that of either

    @property
    def devices(self) -> int:
        """One per row."""
        return len(self.orders)

    @property
    def splits_backward(self) -> bool:
        """Whether input and weight gradients run apart."""
        return any(a.kind.name == "I" for order in self.orders for a in unpaired(order))


def read_orders(file: Path) -> UserSchedule:
    """Read and check a schedule.

    Raises:
        SpecError: the file cannot be read, a cell is no action, or the orders are not legal; names the line.
    """
    lines: list[int] = []  # of each device
    orders: list[Order] = []
    problems: list[Problem] = []
    text = read_text(file, "a CSV file of actions", (".csv",), most=MAX_BYTES)
    rows = csv.reader(text.splitlines(keepends=True))
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        lines.append(rows.line_num)
        order: Order = []
        for column, cell in enumerate(row, start=1):
            try:
                order += _parse_cell(cell.strip())
            except ValueError as error:
                where = f"cell {column}"
                problems.append(Problem(file=str(file), line=lines[-1], key_path=where, rule=str(error)))
        orders.append(order)
    if not orders:
        problems.append(
            Problem(file=str(file), rule="a schedule has one row of actions per device; this file has none")
        )
    if problems:
        raise SpecError(*problems)
    return _checked(file, orders, lines)


def _parse_cell(cell: str) -> list[Action]:
    if not cell or _NOT_COMPUTE.fullmatch(cell):
        return []
    return [parse_action(cell.removesuffix(_PAIR_ENDING) if cell.startswith("(") else cell)]


def _checked(file: Path, orders: list[Order], lines: list[int]) -> UserSchedule:
    try:
        program = compile_orders(orders)
        replay(program, Times(F=1.0, B=1.0, W=1.0))
    except IllegalOrdersError as error:
        line = lines[error.device] if error.device >= 0 else 0
        raise SpecError(
            Problem(file=str(file), line=line, rule=f"{error}; each row is a device, from 0")
        ) from None
    held = [sorted({(a.direction, a.stage) for a in unpaired(order)}) for order in orders]
    directions = 1 + max(direction for stages in held for direction, _ in stages)
    return UserSchedule(
        orders=orders,
        microbatches=program.microbatches * directions,
        chunks=max(1, max(map(len, held)) // directions),
        directions=directions,
        placement=[[stage for _, stage in stages] for stages in held],
    )
