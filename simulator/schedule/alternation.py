"""The core of the 1F1B family: some forwards, then one forward and one backward in turn."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.schedule.actions import Action, Order


def alternate(
    forwards: Sequence[Action],
    backwards: Sequence[Action],
    *,
    warm_up: int,
    weights: Sequence[Action] = (),
    lag: int = 0,
) -> Order:
    """``warm_up`` forwards; then F B [W] until the forwards run out, then B [W]; last the Ws left.

    Args:
        forwards: in issue order.
        backwards: in issue order.
        warm_up: forwards before the first forward–backward turn; capped at all of them.
        weights: weight gradients in issue order, where the backward is split.
        lag: how many turns a weight gradient waits behind its input gradient.
    """
    order = list(forwards[:warm_up])
    steady = forwards[warm_up:]
    for k, backward in enumerate(backwards):
        if k < len(steady):
            order.append(steady[k])
        order.append(backward)
        if weights and k >= lag:
            order.append(weights[k - lag])
    order.extend(weights[max(0, len(backwards) - lag) :])
    return order
