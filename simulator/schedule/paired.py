"""Any schedule with its forwards and backwards paired: each hides the communication of the other.

Megatron-LM's ``--overlap-moe-expert-parallel-comm``: after the warm-up, a device runs the next forward and
the next backward as one action. Both inputs are awaited first, and both outputs leave after the pair, so
neighbours' warm-ups must differ by two microbatches to keep each other busy: interleaved 1F1B does, plain
1F1B does not.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.schedule.actions import Kind, Order
from simulator.schedule.definition import Schedule


def paired(schedule: Schedule) -> Schedule:
    """The schedule with overlapped pairs; one that has pairs of its own stays as it is."""
    if schedule.pairs:
        return schedule

    def order(p: int, m: int, v: int) -> list[Order]:
        return [pair_up(actions) for actions in schedule.order(p, m, v)]

    return replace(schedule, name=f"{schedule.name}, paired", order=order, pairs=True)


def pair_up(actions: Order) -> Order:
    """Forwards in their order and backwards in theirs.

    The forwards before the first backward stay alone, as do the backwards for which no forward is left.
    """
    forwards = [action for action in actions if action.kind is Kind.F]
    backwards = [action for action in actions if action.kind is not Kind.F]
    alone = next((i for i, action in enumerate(actions) if action.kind is not Kind.F), len(actions))
    together = [
        forward._replace(partner=backward)
        for forward, backward in zip(forwards[alone:], backwards, strict=False)
    ]
    return [*forwards[:alone], *together, *backwards[len(together) :]]
