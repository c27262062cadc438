"""Measurement tables: recognised by header, refused with the line that is wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from calibration.readers import KINDS, read_table
from simulator.spec.errors import SpecError

HEADER = "dtype,m,n,k,time_us,kernel,source"
ROW = "bf16,512,1024,2048,12.5,lib,here"


def table(tmp_path: Path, *lines: str, name: str = "t.csv") -> Path:
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rows_and_their_lines(tmp_path: Path) -> None:
    found = read_table(table(tmp_path, HEADER, ROW, "", ROW))
    assert found.kind == "gemm"
    assert list(found.lines) == [2, 4]
    assert found.seconds == pytest.approx([12.5e-6, 12.5e-6])
    assert list(found.source) == ["here", "here"]


def test_gzipped_tables_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(f"{HEADER}\n{ROW}\n".encode()))
    assert len(read_table(path)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_recognised_by_its_header(tmp_path: Path, kind: str) -> None:
    assert read_table(table(tmp_path, ",".join(KINDS[kind]))).kind == kind


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([HEADER, ROW, "bf16,512,1024,2048"], r":3(.|\n)*4 fields"),
        ([HEADER, ROW, "bf16,512,big,2048,12.5,lib,here"], r":3(.|\n)*n is 'big'"),
        ([HEADER, "bf16,512,1024,2048,-1,lib,here"], r":2(.|\n)*time_us is '-1'"),
        ([HEADER, "bf16,512,1024,2048,nan,lib,here"], r":2(.|\n)*time_us is 'nan'"),
        ([HEADER, ROW, 'bf16,512,"1024,2048,1,lib,here'], r":3(.|\n)*unreadable"),
        (["this is,not a table"], r":1(.|\n)*header"),
        (["dtype,m,n,time_us"], r"also needs k"),
        ([], "empty"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(tmp_path: Path, lines: list[str], said: str) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(SpecError, match=said):
        read_table(path)


def test_a_cut_off_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress("\n".join([HEADER, *[ROW] * 5000]).encode())[:-20])
    with pytest.raises(SpecError, match="cut off"):
        read_table(path)


def test_binary_garbage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "noise.csv"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(SpecError, match="unreadable"):
        read_table(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such file"):
        read_table(tmp_path / "none.csv")
