"""Numbers read as people write them, and printed shares add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.quantities import digits, percentages, scaled, seconds, seconds_between


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.01234, "0.0123"), (1.005, "1.00"), (9.996, "10.0"), (13.214, "13.2"), (99.96, "100"),
        (402.3, "402"), (1234.5, "1,234"), (-7.5, "-7.50"),
    ],
)  # fmt: skip
def test_three_digits_and_never_less_than_the_whole_part(value, text):
    assert digits(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(13.214, "13.2 s"), (0.9999, "1.00 s"), (0.0853, "85.3 ms"), (4e-6, "4.00 µs"), (0, "0 s")],
)
def test_times_have_the_unit_that_fits(value, text):
    assert seconds(value) == text


def test_both_ends_of_an_interval_share_a_unit():
    assert seconds_between(0.98, 1.07) == "0.980 – 1.07 s"


@pytest.mark.parametrize(("value", "text"), [(1.27e6, "1.27 M"), (999.9e9, "1.00 T"), (77.49, "77.5")])
def test_counts_have_their_prefix(value, text):
    assert scaled(value) == text


@given(
    st.lists(st.floats(0, 1e3), min_size=1, max_size=20).filter(lambda parts: sum(parts) > 1e-3),
    st.integers(0, 1000),
)
def test_printed_shares_add_up_to_the_whole_and_each_is_within_a_tenth(parts, tenths):
    whole = tenths / 10
    shown = [float(text) for text in percentages(parts, whole=whole)]
    assert round(sum(shown), 6) == whole
    assert all(
        abs(share - whole * part / sum(parts)) < 0.1 + 1e-9 for share, part in zip(shown, parts, strict=True)
    )
