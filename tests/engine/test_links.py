"""Transfers that meet on links: textbook cases, exactly."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engine.replay import replay
from simulator.engine.tasks import Flow, Meeting, Task

CAPACITY = 10.0


def transfer(seconds: float, *links: str, rate: float = CAPACITY, after: float = 0.0) -> list[Task]:
    """A stream that idles, then sends for ``seconds`` at ``rate`` when alone."""
    named = tuple(("link", link) for link in links)
    return [Task("idle", "idle", after), Task("send", "send", seconds, flow=Flow(named, rate))]


def ends(streams: dict[str, list[Task]]) -> dict[str, float]:
    result = replay({0: streams}, {"link": CAPACITY})
    return {name: result.stream(0, name)[-1].end for name in streams}


def test_a_transfer_without_a_rival_takes_exactly_its_time():
    assert ends({"a": transfer(0.1, "x", after=0.7)}) == {"a": 0.7 + 0.1}


def test_two_equal_transfers_on_one_link_take_twice_as_long():
    assert ends({"a": transfer(3.0, "x"), "b": transfer(3.0, "x")}) == {"a": 6.0, "b": 6.0}


def test_a_link_unlike_the_others_of_its_kind_is_shared_at_its_own_rate():
    streams = {"a": transfer(3.0, "x", rate=4.0), "b": transfer(3.0, "x", rate=4.0), "c": transfer(3.0, "y")}
    result = replay({0: streams}, {"link": CAPACITY, ("link", "x"): 4.0})
    assert [result.stream(0, name)[-1].end for name in streams] == [6.0, 6.0, 3.0]


def test_a_late_rival_slows_only_what_is_left():
    # a alone for 2 s, then both at half rate: a has 2 s left and ends at 6; b then has 1 s left
    assert ends({"a": transfer(4.0, "x"), "b": transfer(3.0, "x", after=2.0)}) == {"a": 6.0, "b": 7.0}


def test_three_flows_on_two_links():
    """One over both links, one on each: all get half until the short ones end."""
    times = ends({"long": transfer(4.0, "x", "y"), "x": transfer(1.0, "x"), "y": transfer(2.0, "y")})
    # x ends at 2; y and long still halve link y until y ends at 4; long has 2 s left then
    assert times == {"long": 6.0, "x": 2.0, "y": 4.0}


def test_transfers_that_leave_room_for_each_other_do_not_slow_down():
    assert ends({"a": transfer(2.0, "x", rate=4.0), "b": transfer(3.0, "x", rate=6.0)}) == {
        "a": 2.0,
        "b": 3.0,
    }


def test_different_links_do_not_meet():
    assert ends({"a": transfer(2.0, "x"), "b": transfer(2.0, "y")}) == {"a": 2.0, "b": 2.0}


@settings(max_examples=60, deadline=None)
@given(
    flows=st.lists(
        st.tuples(
            st.floats(0.1, 5.0),
            st.sets(st.sampled_from("wxyz"), min_size=1),
            st.floats(0.5, 10.0),
            st.floats(0.0, 3.0),
        ),
        min_size=1,
        max_size=6,
    ),
    data=st.data(),
)
def test_bytes_are_conserved_and_the_order_of_streams_does_not_matter(flows, data):
    streams = {
        f"s{i}": transfer(seconds, *sorted(links), rate=rate, after=after)
        for i, (seconds, links, rate, after) in enumerate(flows)
    }
    times = ends(streams)
    shuffled = dict(data.draw(st.permutations(list(streams.items()))))
    for name, end in ends(shuffled).items():
        assert end == pytest.approx(times[name], rel=1e-9)
    for link in "wxyz":
        users = [i for i, flow in enumerate(flows) if link in flow[1]]
        if users:
            carried = sum(flows[i][0] * flows[i][2] for i in users)
            begin, end = min(flows[i][3] for i in users), max(times[f"s{i}"] for i in users)
            assert carried <= CAPACITY * (end - begin) * (1 + 1e-9)
    for i, (seconds, _, _, after) in enumerate(flows):
        assert times[f"s{i}"] >= (after + seconds) * (1 - 1e-9)


def test_both_sides_of_an_exchange_end_with_its_slower_direction():
    def side(link: str) -> list[Task]:
        return [
            Task(
                "exchange",
                "pp",
                3.0,
                meeting=Meeting("pair", 2, ends_together=True),
                flow=Flow((("link", link),), CAPACITY),
            )
        ]

    result = replay(
        {0: {"compute": side("x"), "dp": transfer(3.0, "x")}, 1: {"compute": side("y")}}, {"link": CAPACITY}
    )
    assert [result.stream(rank, "compute")[0].end for rank in (0, 1)] == [6.0, 6.0]
