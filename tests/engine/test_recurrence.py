"""A state that comes back is found, and nothing else is taken for one."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from simulator.engine.recurrence import Recurrence, Repeating, recurrence
from simulator.engine.tasks import COMPUTE, Record, Task

STEPS, BEGIN = 20, 4  # actions of a device; the first that repeats


def device(seconds: list[float], message_s: float | None, *, late_s: float = 0.0) -> SimpleNamespace:
    """Works without a pause; after each action it sends a message, one at a time, none before ``late_s``."""
    ends = np.cumsum(seconds)
    rows, free = [], late_s
    for end in ends.tolist() if message_s is not None else ():
        rows.append((max(end, free), max(end, free) + message_s))
        free = rows[-1][1]
    return SimpleNamespace(
        starts=[0.0, *ends.tolist()[:-1]],
        ends=ends.tolist(),
        waited=[0.0] * STEPS,
        senders=[] if message_s is None else ["out"],
        sent=lambda _: np.array(rows),
        program=SimpleNamespace(profiles=[{"work": each} for each in seconds]),
    )


def found(
    *devices: SimpleNamespace, begin: int = BEGIN, length: int = 1, beside: Record | None = None
) -> Recurrence | None:
    steps = [SimpleNamespace(work=number) for number in range(STEPS)]
    wiring = SimpleNamespace(
        devices=[SimpleNamespace(begins=range(STEPS + 1), steps=steps)] * len(devices),
        sends=lambda device, first, stop: Counter(out=stop - first),
        works=lambda device, first, stop: Counter(range(first, stop)),
    )
    quiet = Record(0, COMPUTE, Task("quiet", COMPUTE, float(STEPS), steps=range(STEPS)), 0.0, None)
    events = SimpleNamespace(
        quiet=dict(enumerate(devices)),
        end=max(own.ends[-1] for own in devices),
        records={(0, COMPUTE): [quiet], (0, "data"): [beside] if beside else []},
    )
    programs = [own.program for own in devices]
    return recurrence(events, [Repeating(begin, STEPS, length)] * len(devices), wiring, programs)


@pytest.mark.parametrize("message_s", [None, 0.0, 0.5, 1.0])
def test_one_window_like_the_other(message_s: float | None) -> None:
    state = found(device([1.0] * STEPS, message_s))
    assert state is not None
    assert state.seconds == pytest.approx(1.0)
    assert state.breakdowns == [{"work": pytest.approx(1.0)}]


def test_windows_of_several_actions() -> None:
    own = device([0.25, 0.5] * (STEPS // 2), 0.3)
    state = found(own, length=2)
    assert state is not None
    assert state.seconds == pytest.approx(0.75)
    assert found(own, length=1) is None


@pytest.mark.parametrize("message_s", [None, 0.5])
def test_windows_that_still_get_longer(message_s: float | None) -> None:
    assert found(device([1.0 + 1e-6 * number for number in range(STEPS)], message_s)) is None


@pytest.mark.parametrize("message_s", [1.001, 1.25, 1.5, 2.0, 3.0])
def test_a_queue_that_grows(message_s: float) -> None:
    assert found(device([1.0] * STEPS, message_s)) is None


def test_a_queue_that_gets_shorter() -> None:
    assert found(device([1.0] * STEPS, 0.75, late_s=10.0)) is None


def test_devices_that_run_apart() -> None:
    even, slower = device([1.0] * STEPS, 0.5), device([1.1] * STEPS, 0.5)
    assert found(even, even) is not None
    assert found(even, slower) is None


def test_messages_from_before_all_that_repeats() -> None:
    """What follows them on their stream need not be what repeats."""
    waiting = device([1.0] * STEPS, 1.0, late_s=8.0)  # seven messages always wait
    assert found(waiting) is not None
    assert found(waiting, begin=STEPS - 4) is None


def test_traffic_beside_it() -> None:
    own = device([1.0] * STEPS, 0.5)

    def beside(start: float, seconds: float) -> Record:
        return Record(0, "data", Task("reduce", "dp", seconds), start, None)

    assert found(own, beside=beside(STEPS - 1.75, 0.5)) is None
    assert found(own, beside=beside(0.0, STEPS - 4.0)) is not None
    assert found(own, beside=beside(STEPS + 1.0, 1.0)) is not None
