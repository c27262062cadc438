"""Which collectives to measure over which groups of a job's ranks; sizes follow nccl-tests."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from calibration.measure.plan import Case, Plan, Scale

PART = "collective"
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "alltoall", "sendrecv", "broadcast", "reduce")
DTYPE = "bf16"


def collective_plan(ranks: int, ranks_per_node: int, *, scale: Scale | None = None, fabric: str = "") -> Plan:
    """Every collective over groups inside a node, of whole nodes, and of one rank per node.

    The largest groups come first and sizes alternate, so that a plan cut short still says what spans the job.

    Args:
        ranks: of the job, the same number on every node.
        ranks_per_node: of them, on each node.
        scale: message sizes.
        fabric: the machine in words, for the tables.
    """
    sizes, shapes = (scale or Scale()).messages, list(_shapes(ranks, ranks_per_node))
    turns = product(sizes, reversed(shapes), COLLECTIVES)
    return Plan(
        cases=tuple(
            _case(collective, size, n, nodes, fabric)
            for size, (n, nodes), collective in turns
            if n == 2 or collective != "sendrecv"
        )
    )


def _shapes(ranks: int, ranks_per_node: int) -> Iterator[tuple[int, int]]:
    """Ranks and nodes of every kind of group."""
    yield from ((n, 1) for n in _doubling(ranks_per_node))
    for nodes in _doubling(ranks // ranks_per_node):
        if ranks_per_node > 1:
            yield nodes, nodes
        yield nodes * ranks_per_node, nodes


def _doubling(most: int) -> Iterator[int]:
    """2, 4, 8 and so on, then ``most`` itself."""
    n = 2
    while n < most:
        yield n
        n *= 2
    if most > 1:
        yield most


def _case(collective: str, size: int, ranks: int, nodes: int, fabric: str) -> Case:
    columns = (
        ("collective", collective),
        ("dtype", DTYPE),
        ("size_bytes", size),
        ("nranks", ranks),
        ("nodes", nodes),
        ("fabric", fabric),
    )
    return Case(part=PART, kind="collective", columns=columns, bytes=2.0 * size)
