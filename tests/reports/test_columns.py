"""Tables of a screen give way where words are, never where numbers are."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from reports.columns import table

HEADS = ("kernels", "variant", "points", "held-out error", "remarks")
ROWS = [
    ("grouped gemm", "fp8_block", "29,638", "12.5 %", "few tokens for each of the experts"),
    ("copy", "default", "-", "-", ""),
]


def printed(room):
    console = Console(width=room, color_system=None, record=True, file=io.StringIO())
    console.print(table(HEADS, ROWS, room))
    return console.export_text()


@given(st.integers(56, 200))
def test_no_figure_is_cut_and_no_line_too_long(room):
    text = printed(room)
    assert "29,638" in text
    assert "12.5 %" in text
    assert all(word in text for word in ROWS[0][-1].split())
    assert max(map(len, text.splitlines())) <= room


def test_a_wide_screen_has_a_line_for_each_row():
    assert len(printed(200).strip().splitlines()) == 1 + len(ROWS)
