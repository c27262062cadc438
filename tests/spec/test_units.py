"""Quantities mean what people mean by them, whichever reader reads them."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.spec import units
from simulator.spec.units import UnitError, parse_quantity


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("400 Gb/s", "bytes/s", 50e9),
        ("400 GB/s", "bytes/s", 400e9),
        ("400Gbps", "bytes/s", 50e9),
        ("400 Gbit/s", "bytes/s", 50e9),
        ("3.35 TB/s", "bytes/s", 3.35e12),
        ("80 GB", "bytes", 80e9),
        ("80 GiB", "bytes", 80 * 2**30),
        ("81559 MiB", "bytes", 81559 * 2**20),
        ("512 KB", "bytes", 512e3),
        ("512 KiB", "bytes", 512 * 2**10),
        ("989 TFLOP/s", "FLOP/s", 989e12),
        ("989 TFLOPS", "FLOP/s", 989e12),
        ("1.979 PFLOP/s", "FLOP/s", 1.979e15),
        ("989e12", "FLOP/s", 989e12),
        ("3 us", "seconds", 3e-6),
        ("3 µs", "seconds", 3e-6),  # micro sign
        ("3 μs", "seconds", 3e-6),  # Greek mu
        ("1.5 ms", "seconds", 1.5e-3),
        ("2 minutes", "seconds", 120.0),
        ("1.5 hours", "seconds", 5400.0),
        ("1.83 GHz", "hertz", 1.83e9),
        ("1830 MHz", "hertz", 1.83e9),
        ("700 W", "watts", 700.0),
        ("1.2 kW", "watts", 1200.0),
        ("50 %", "ratio", 0.5),
        ("2 * 200 Gb/s", "bytes/s", 50e9),
        ("8 * 80 GB", "bytes", 640e9),
        ("6 GB/minute", "bytes/s", 1e8),
        (4e-6, "seconds", 4e-6),
        (700, "watts", 700.0),
    ],
)
def test_quantities_as_people_write_them(text: str | float, dimension: str, value: float) -> None:
    assert parse_quantity(text, dimension) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "dimension", "rule"),
    [
        ("80 s", "bytes", "in seconds; bytes are expected"),
        ("400 Gb", "bytes/s", "in bytes; bytes/s are expected"),
        ("2 minutes", "bytes", "in minute; bytes are expected"),
        ("1 GHz", "FLOP/s", "in hertz; FLOP/s are expected"),
        ("989 TFLOPs", "FLOP/s", "in teraFLOP; FLOP/s are expected"),
        ("80 gb", "bytes", "unknown unit 'gb'"),
        ("80 mb", "bytes", "'mb' would be a fraction of a bit"),
        ("80 mbit/s", "bytes/s", "'mbit' would be a fraction of a bit"),
        ("80 K", "bytes", "no unit after the prefix 'K'"),
        ("", "bytes", "not a quantity"),
        ("GB", "bytes/s", "in gigabyte; bytes/s are expected"),
        ("1/0 s", "seconds", "not a quantity"),
        ("2**100000 B", "bytes", "not a quantity"),
        ("1e999 B", "bytes", "not a finite number"),
        ("nan", "bytes", "is not a quantity"),
        ("__import__('os')", "bytes", "not a quantity"),
        ("9" * 5000, "bytes", "not a finite number"),
        (True, "bytes", "not a quantity"),
        (None, "bytes", "not a quantity"),
        (math.inf, "bytes", "not a finite number"),
    ],
)
def test_what_is_no_such_quantity_is_refused(text: object, dimension: str, rule: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse_quantity(text, dimension)
    assert rule in caught.value.rule
    assert caught.value.hint


BIG_PREFIXES = ["", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti"]
USUAL = st.one_of(
    st.tuples(st.sampled_from(BIG_PREFIXES), st.just("B"), st.just("bytes")),
    st.tuples(
        st.sampled_from(BIG_PREFIXES), st.sampled_from(["B/s", "b/s", "Bps", "bps"]), st.just("bytes/s")
    ),
    st.tuples(st.sampled_from(BIG_PREFIXES[:6]), st.sampled_from(["FLOP/s", "FLOPS"]), st.just("FLOP/s")),
    st.tuples(st.sampled_from(["", "m", "u", "µ", "n"]), st.just("s"), st.just("seconds")),
    st.tuples(st.sampled_from(["", "k", "M", "G"]), st.just("Hz"), st.just("hertz")),
    st.tuples(st.sampled_from(["", "m", "k", "M"]), st.just("W"), st.just("watts")),
)


@given(st.floats(0, 1e6).map(lambda x: float(f"{x:.9g}")), USUAL, st.sampled_from(["", " ", "  "]))
def test_the_fast_reader_and_pint_agree(number: float, unit: tuple[str, str, str], space: str) -> None:
    prefix, name, dimension = unit
    text = f"{number!r}{space}{prefix}{name}"
    assert parse_quantity(text, dimension) == pytest.approx(units._by_pint(text, dimension), rel=1e-12)


@given(st.floats(1e-3, 1e6), USUAL)
def test_a_quantity_written_in_its_unit_comes_back(number: float, unit: tuple[str, str, str]) -> None:
    prefix, name, dimension = unit
    one = parse_quantity(f"1 {prefix}{name}", dimension)
    assert parse_quantity(f"{number!r} {prefix}{name}", dimension) / one == pytest.approx(number, rel=1e-12)
    assert parse_quantity(number * one, dimension) == number * one


@given(st.text(max_size=40), st.sampled_from(sorted(units.DIMENSIONS)))
def test_any_text_is_a_finite_quantity_or_refused(text: str, dimension: str) -> None:
    try:
        assert math.isfinite(parse_quantity(text, dimension))
    except UnitError as error:
        assert error.rule


def test_pint_is_not_imported_for_the_usual_forms() -> None:
    code = (
        "import sys; from simulator.spec.units import parse_quantity; parse_quantity('400 Gb/s', 'bytes/s');"
        "assert 'pint' not in sys.modules; parse_quantity('2 hours', 'seconds'); assert 'pint' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
