"""Schedules from CSV files in PyTorch's format: read, checked, and wrong ones refused with their line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulator.schedule.evaluate import Times, evaluate
from simulator.schedule.notation import format_action
from simulator.schedule.registry import SCHEDULES
from simulator.schedule.user_csv import read_orders
from simulator.spec.errors import SpecError


def write(folder: Path, *rows: str) -> Path:
    file = folder / "mine.csv"
    file.write_text("\n".join(rows) + "\n")
    return file


@pytest.mark.parametrize("name", [name for name, s in SCHEDULES.items() if not s.forward_only])
def test_every_registered_schedule_survives_the_round_trip(tmp_path: Path, name: str) -> None:
    schedule = SCHEDULES[name]
    v = schedule.natural_v
    orders = schedule.order(4, 8, v)
    read = read_orders(write(tmp_path, *(",".join(map(format_action, order)) for order in orders)))
    assert read.orders == orders
    assert (read.devices, read.microbatches, read.chunks) == (4, 8, v)
    assert read.splits_backward == schedule.splits_backward


def test_idle_slots_blanks_messages_and_parameter_cells_are_skipped(tmp_path: Path) -> None:
    read = read_orders(
        write(
            tmp_path,
            "0UNSHARD,0F0,0SEND_F0, 0F1 ,,0RECV_B0,0B0,0B1,0REDUCE_GRAD",
            "",
            ",1F0,(1F1;1B0)OVERLAP_F_B,1B1,",
        )
    )
    assert [" ".join(map(format_action, order)) for order in read.orders] == [
        "0F0 0F1 0B0 0B1",
        "1F0 (1F1;1B0) 1B1",
    ]
    assert evaluate(read.orders, Times(F=1, B=1, W=1), read.chunks).makespan == 9


@pytest.mark.parametrize(
    ("rows", "line", "message"),
    [
        (("0F0,0B0", "1F0,1X0"), 2, "'1X0' is not an action"),
        (("0F0,0B0", "", "1F0,1B0,1B0"), 3, "1B0 is there a second time"),
        (("0F0,0F1,0B0", "1F0,1B0,1F1,1B1"), 1, "input gradient of microbatch 1 on stage 0 is missing"),
        (("0F0,0B0", "1B0,1F0"), 1, "deadlock: device 0 before 0B0 waits for .* device 1 before 1B0"),
        (("0F0,(0B0;0F1)",), 1, "is not a pair"),
        (("", ""), 0, "this file has none"),
    ],
)
def test_wrong_files_are_refused_with_their_line(
    tmp_path: Path, rows: tuple[str, ...], line: int, message: str
) -> None:
    file = write(tmp_path, *rows)
    with pytest.raises(SpecError, match=message) as caught:
        read_orders(file)
    assert re.search(rf"mine\.csv:{line}\b" if line else r"mine\.csv", str(caught.value))
