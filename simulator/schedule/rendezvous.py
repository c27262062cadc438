"""Where messages between devices are posted, so that rendezvous point-to-point never deadlocks.

A message moves only when its sender and its receiver have both posted it. Two ways to post:

- batched (Megatron's non-interleaved 1F1B): between two actions a device posts what the first sends and
  the second receives as one batch, and awaits all of it. Simple, but not every order survives it.
- planned (PyTorch's pipeline runtime): replay the orders once, and post every message at the same point
  of one global order on both sides. Even if each post blocks until its peer's, the earliest message or
  action of that order that is not done can always go on, so no legal order deadlocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from simulator.schedule.evaluate import Times, replay
from simulator.schedule.legality import Program


class Message(NamedTuple):
    """One side of a transfer: the output ``slot`` of a :class:`Program` to or from device ``peer``."""

    send: bool
    peer: int
    slot: int


Batch: TypeAlias = list[Message | int]
"""Messages posted together, or the index of the action to run."""


def batched(program: Program) -> list[list[Batch]]:
    """Per device, its batches and actions in order; what a device sends itself is no message."""
    readers = _readers(program)
    plans = []
    for device, steps in enumerate(program.steps):
        plan: list[Batch] = []
        sends: Batch = []
        for index, (_, awaited, released) in enumerate(steps):
            receives = [
                Message(False, program.home[slot], slot) for slot in awaited if readers.get(slot) == device
            ]
            plan += [[*sends, *receives], [index]]
            sends = [Message(True, readers[slot], slot) for slot in released if slot in readers]
        plans.append([*plan, sends])
    return [[batch for batch in plan if batch] for plan in plans]


def planned(program: Program) -> list[list[Batch]]:
    """Per device, its messages (one per batch) and actions, all in one global order."""
    readers = _readers(program)
    timeline = replay(program, Times(F=1.0, B=1.0, W=1.0))
    # a message leaves when its action ends, before any action that starts then
    runs = [
        (start, 1, device, index)
        for device, starts in enumerate(timeline.start)
        for index, start in enumerate(starts)
    ]
    leaves = [
        (end, 0, device, index) for device, ends in enumerate(timeline.end) for index, end in enumerate(ends)
    ]
    plans: list[list[Batch]] = [[] for _ in program.steps]
    for _, is_run, device, index in sorted(runs + leaves):
        if is_run:
            plans[device].append([index])
            continue
        for slot in program.steps[device][index][2]:
            if slot in readers:
                plans[device].append([Message(True, readers[slot], slot)])
                plans[readers[slot]].append([Message(False, device, slot)])
    return plans


def deadlocked(plans: list[list[Batch]]) -> list[int]:
    """Devices that never finish when every batch is awaited before the next one is posted."""
    posted: set[tuple[bool, int]] = set()
    position = [0] * len(plans)
    runnable = list(range(len(plans)))
    while runnable:
        device = runnable.pop()
        while position[device] < len(plans[device]):
            messages = list(_messages(plans[device][position[device]]))
            for message in messages:
                if (message.send, message.slot) not in posted:
                    posted.add((message.send, message.slot))
                    runnable.append(message.peer)
            if any((not message.send, message.slot) not in posted for message in messages):
                break
            position[device] += 1
    return [device for device, plan in enumerate(plans) if position[device] < len(plan)]


def _messages(batch: Batch) -> Iterator[Message]:
    return (item for item in batch if isinstance(item, Message))


def _readers(program: Program) -> dict[int, int]:
    """Outputs that another device awaits, and which one."""
    return {
        slot: device
        for device, steps in enumerate(program.steps)
        for _, awaited, _ in steps
        for slot in awaited
        if program.home[slot] != device
    }
