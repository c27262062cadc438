"""Max-min fair sharing against textbook cases."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.network.sharing import fair_rates


def test_two_equal_flows_halve_a_link() -> None:
    assert fair_rates({"a": ["l"], "b": ["l"]}, {"l": 10.0}) == {"a": 5.0, "b": 5.0}


def test_three_flows_on_two_links() -> None:
    # one long flow over both links, one short on each: the narrower link fixes the long one
    rates = fair_rates({"long": ["x", "y"], "x": ["x"], "y": ["y"]}, {"x": 10.0, "y": 20.0})
    assert rates == {"long": 5.0, "x": 5.0, "y": 15.0}


def test_bertsekas_gallager_five_sessions() -> None:
    # figure 6.11: sessions 2, 3, 5 share a link of 1; 1 and 3 the next; 1 and 4 the last
    flows = {1: ["c", "d"], 2: ["a"], 3: ["a", "c"], 4: ["d"], 5: ["a"]}
    rates = fair_rates(flows, dict.fromkeys("acd", 1.0))
    assert rates == pytest.approx({2: 1 / 3, 3: 1 / 3, 5: 1 / 3, 1: 1 / 2, 4: 1 / 2})


def test_a_flow_at_its_ceiling_leaves_the_rest_to_the_others() -> None:
    assert fair_rates({"a": ["l"], "b": ["l"]}, {"l": 10.0}, ceilings={"a": 2.0}) == {"a": 2.0, "b": 8.0}


def test_a_class_of_ranks_counts_as_many_flows() -> None:
    rates = fair_rates({"class": ["l"], "one": ["l"]}, {"l": 10.0}, weights={"class": 4.0})
    assert rates == {"class": 2.0, "one": 2.0}


def test_a_flow_without_links_is_not_limited() -> None:
    assert fair_rates({"local": []}, {}) == {"local": inf}


LINKS = "pqrs"
FLOWS = st.lists(
    st.lists(st.sampled_from(LINKS), min_size=1, max_size=4, unique=True), min_size=1, max_size=8
)
CAPACITIES = st.fixed_dictionaries({link: st.floats(1.0, 100.0) for link in LINKS})


@given(paths=FLOWS, capacities=CAPACITIES)
def test_no_link_is_overfull_and_every_flow_meets_a_full_one(
    paths: list[list[str]], capacities: dict[str, float]
) -> None:
    flows = dict(enumerate(paths))
    rates = fair_rates(flows, capacities)
    load = {link: sum(rates[f] for f, path in flows.items() if link in path) for link in LINKS}
    for link in LINKS:
        assert load[link] <= capacities[link] * (1 + 1e-9)
    for flow, path in flows.items():  # max-min: its bottleneck is full and it has the largest rate there
        assert any(
            load[link] >= capacities[link] * (1 - 1e-9)
            and all(rates[f] <= rates[flow] * (1 + 1e-9) for f, other in flows.items() if link in other)
            for link in path
        )


@given(paths=FLOWS, capacities=CAPACITIES)
def test_the_order_of_the_flows_does_not_matter(paths: list[list[str]], capacities: dict[str, float]) -> None:
    flows = dict(enumerate(paths))
    backwards = dict(reversed(flows.items()))
    assert fair_rates(flows, capacities) == pytest.approx(fair_rates(backwards, capacities))
