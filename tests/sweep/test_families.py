"""Layouts handed out to workers: each once, and those under one schedule to one worker as far as possible."""

from __future__ import annotations

from collections import Counter

import pytest

from simulator.sweep.families import Families, one_by_one
from simulator.sweep.read import read_sweep
from simulator.sweep.search import enumerate_layouts


@pytest.fixture(scope="module")
def layouts():
    return enumerate_layouts(read_sweep("llama3-70b-512-h100"))[0]


def schedule(layout):
    p = layout.run.parallelism
    return p.pp, p.vp


@pytest.mark.parametrize("workers", [1, 2, 3, 64])
def test_every_layout_is_taken_once(layouts, workers):
    take, taken = Families(layouts, workers), []
    while parts := [part for worker in range(workers) if (part := take(worker))]:
        taken += [layout.number for part in parts for layout in part]
    assert sorted(taken) == [layout.number for layout in layouts]


def test_a_schedule_stays_with_one_worker_until_all_have_been_begun(layouts):
    take, workers = Families(layouts, 2), {}
    left = Counter(map(schedule, layouts))
    while len(workers) < len(left):
        for worker in (0, 1, 1):  # one is twice as fast
            for layout in take(worker):
                assert workers.setdefault(schedule(layout), worker) == worker


def test_the_last_parts_are_small(layouts):
    take, sizes = Families(layouts, 2), []
    while part := take(len(sizes) % 2):
        sizes.append(len(part))
    assert max(sizes) > 10
    assert set(sizes[-8:]) == {1}


def test_one_by_one_keeps_the_order(layouts):
    take = one_by_one(layouts)
    assert [take(worker)[0].number for worker in (0, 1, 0)] == [layout.number for layout in layouts[:3]]
    assert one_by_one([])(0) == []
