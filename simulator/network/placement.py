"""Which ranks form a group, and where in the machine they sit.

A layout is a mixed-radix number: the rank order names the digits, the first one varying fastest.
Megatron Core builds its groups the same way (``RankGenerator`` in ``megatron/core/parallel_state.py``):
the dense layers count in tp·cp·dp·pp, the experts in etp·ep·edp·pp over the same ranks. Nothing here
lists the world.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice, product
from math import gcd, prod
from operator import mul
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from simulator.spec.cluster import ClusterSpec

Ranks: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]
GroupAxis = Literal[
    "tp",
    "tp_row",
    "tp_col",
    "tp_depth",
    "cp",
    "cp_inner",
    "cp_outer",
    "ep",
    "etp",
    "dp",
    "dp_cp",
    "shard",
    "replicate",
    "edp",
    "pp",
    "world",
]
DENSE = ("tp", "cp", "dp", "pp")
EXPERT = ("etp", "ep", "edp", "pp")
# where each axis stands in a rank order written with the dense names
ORDER_NAMES = frozenset({"tp", "cp", "ep", "dp", "pp"})
JOINED = frozenset({"dp_cp", "edp"})  # of two pipeline devices that hold copies of the same stages
SAMPLED_GROUPS = 64  # uneven layouts place groups differently; this many are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """A message from one pipeline stage to its neighbour."""

    inside_domain: bool  # the worst pair
    inside_node: bool  # the worst pair
    crossing_fraction: float  # share of the pairs that leave their domain
    tier: int  # highest tier of the worst pair; −1: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One communication group (the worst placed of its axis) and the links it spans.

    ``nic_bandwidth`` is the share of one rank, bytes/s per direction: NICs are shared equally by the
    GPUs of a node, since the sibling groups on it communicate at the same time. ``tier`` indexes
    ``ScaleOut.tiers``; −1: none crossed. ``stage_shares``: per tier, the most that a stage's ranks are of
    those below a switch; without them all are.
    """

    axis: str
    ranks: int
    ranks_per_domain: int
    domains: int
    ranks_per_node: int
    nodes: int
    nic_bandwidth: float
    tier: int
    nodes_per_switch: tuple[int, ...]  # per tier: most of the group's nodes below one switch of it
    stage_shares: tuple[float, ...] = ()

    @property
    def inside_domain(self) -> bool:
        """Whether every pair of ranks shares a scale-up domain."""
        return self.domains == 1

    @property
    def worst_hop(self) -> Hop:
        """The pair of ranks that are furthest apart."""
        return Hop(
            inside_domain=self.inside_domain,
            inside_node=self.nodes == 1,
            crossing_fraction=0.0 if self.inside_domain else 1.0,
            tier=self.tier,
        )


class _Part(NamedTuple):
    """Groups that cut those of another axis."""

    of: str
    size: str  # the axis of the first part, which names its size


_PARTS = {
    "shard": _Part("dp_cp", "shard"),
    "replicate": _Part("dp_cp", "shard"),
    "cp_inner": _Part("cp", "cp_inner"),
    "cp_outer": _Part("cp", "cp_inner"),
}


GRID = ("tp_row", "tp_col", "tp_depth")  # a tensor-parallel group cut three ways, rows fastest


@dataclass(frozen=True, slots=True)
class _Dimension:
    size: int
    stride: int


class Placement:
    """Rank ↔ coordinates and the shape of every group of a layout on a cluster.

    ``rank_order`` lists tp, cp, ep, dp and pp, fastest first; ``ep`` marks where expert parallelism is
    counted among the expert layers' dimensions. ``etp`` 0 means equal to ``tp``. ``shard`` neighbours of a
    ``dp_cp`` group form a ``shard`` group, their counterparts a ``replicate`` group (HSDP); 0: all.
    ``cp_inner`` cuts a ``cp`` group in the same way into ``cp_inner`` and ``cp_outer``; ``tp_grid`` cuts
    a ``tp`` group into rows, columns and depth. With ``copies`` 2
    pipeline devices i and pp−1−i hold the same stages (DualPipe): their ``dp_cp`` and ``edp`` groups are one.
    """

    def __init__(
        self,
        cluster: ClusterSpec,
        *,
        tp: int = 1,
        cp: int = 1,
        ep: int = 1,
        dp: int = 1,
        pp: int = 1,
        etp: int = 0,
        shard: int = 0,
        cp_inner: int = 0,
        tp_grid: tuple[int, int, int] = (0, 1, 1),
        copies: int = 1,
        rank_order: str = "tp-cp-ep-dp-pp",
    ) -> None:
        self.cluster = cluster
        self.joined = JOINED if copies == 2 else frozenset()
        etp = etp or tp
        self.world_size = tp * cp * dp * pp
        if tp * cp * dp % (etp * ep):
            raise ValueError(
                f"ep·etp = {ep}·{etp} does not divide tp·cp·dp = {tp * cp * dp}: "
                "experts fold into the ranks of one pipeline stage"
            )
        self._grid = (tp_grid[0] or tp, *tp_grid[1:])
        self._parts = {"shard": shard or dp * cp, "cp_inner": cp_inner or cp}
        self.sizes = {"tp": tp, "cp": cp, "ep": ep, "etp": etp, "dp": dp, "pp": pp}
        self.sizes["edp"] = tp * cp * dp // (etp * ep)
        order = _parse_order(rank_order)
        self._dense = _strides([axis for axis in order if axis != "ep"], self.sizes)
        expert_names = {"tp": "etp", "dp": "edp"}
        expert = [expert_names.get(axis, axis) for axis in order if axis != "cp"]
        self._expert = _strides(expert, self.sizes)
        folded = ep > 1 or etp != tp  # otherwise experts are laid out as the dense layers are
        if not folded:
            self._expert["pp"] = self._dense["pp"]
        self._same_data = not folded
        if self._dense["pp"] != self._expert["pp"]:
            raise ValueError(
                f"rank_order {rank_order!r} puts dense and expert pipeline stages on different ranks; "
                "put pp last, or make ep·etp·edp equal tp·cp·dp inside it"
            )
        self._groups: dict[str, Group] = {}
        self._hops: dict[int, Hop] = {}

    def coordinates(self, rank: int) -> dict[str, int]:
        """Position of a rank on every axis, dense and expert."""
        if not 0 <= rank < self.world_size:
            raise ValueError(f"rank {rank} is outside a world of {self.world_size} ranks")
        dims = {**self._expert, **self._dense}
        return {axis: rank // d.stride % d.size for axis, d in dims.items()}

    def rank(self, **coordinates: int) -> int:
        """The rank at dense coordinates tp, cp, dp, pp; missing ones are 0."""
        unknown = set(coordinates) - set(DENSE)
        if unknown:
            raise ValueError(f"no dense axis {sorted(unknown)}; ranks are addressed by {', '.join(DENSE)}")
        for axis, value in coordinates.items():
            if not 0 <= value < self.sizes[axis]:
                raise ValueError(f"{axis} coordinate {value} is outside 0 … {self.sizes[axis] - 1}")
        return sum(value * self._dense[axis].stride for axis, value in coordinates.items())

    def members(self, axis: GroupAxis, rank: int = 0) -> tuple[int, ...]:
        """The ranks of the group of ``axis`` that holds ``rank``, ascending."""
        dims, _ = self._split(axis)
        base = rank - sum(rank // d.stride % d.size * d.stride for d in dims)
        return tuple(map(int, self._ranks(axis, _offsets(dims), base)))

    def _ranks(self, axis: str, offsets: Ranks, base: int) -> Ranks:
        """The group whose first rank on its pipeline device is ``base``, ascending."""
        if axis not in self.joined:
            return offsets + base
        pp = self._dense["pp"]
        there = pp.size - 1 - 2 * (base // pp.stride % pp.size)  # devices from here to the other copy
        return np.sort(np.concatenate((offsets + base, offsets + base + there * pp.stride)))

    def group(self, axis: GroupAxis) -> Group:
        """The shape of the groups of ``axis``; where they differ, the one that spans the most domains."""
        if axis not in self._groups:
            self._groups[axis] = self._shape(axis)
        return self._groups[axis]

    def stage_hop(self, stage: int = 0) -> Hop:
        """The hop from pipeline stage ``stage`` to ``stage + 1``.

        The last one wraps to stage 0 (interleaving).
        """
        if stage not in self._hops:
            self._hops[stage] = self._hop(stage)
        return self._hops[stage]

    def _hop(self, stage: int) -> Hop:
        pp = self.sizes["pp"]
        if not 0 <= stage < pp:
            raise ValueError(f"stage {stage} is outside 0 … {pp - 1}")
        if pp == 1:
            return Hop(inside_domain=True, inside_node=True, crossing_fraction=0.0, tier=-1)
        stride = self._dense["pp"].stride
        samples = SAMPLED_GROUPS * (1 if self._is_even(self._dense) else self._domain)
        source = np.fromiter(islice(self._bases("pp"), samples), dtype=np.int64)
        target = source + (stage + 1) % pp * stride
        source = source + stage * stride
        crossing = source // self._domain != target // self._domain
        nodes = set(zip((source // self._node).tolist(), (target // self._node).tolist(), strict=True))
        tier = max((self._tier(a, b) for a, b in nodes), default=-1)
        return Hop(
            inside_domain=not bool(crossing.any()),
            inside_node=all(here == there for here, there in nodes),
            crossing_fraction=float(crossing.mean()),
            tier=tier if crossing.any() else -1,
        )

    @cached_property
    def _domain(self) -> int:
        """Ranks placed in one domain: a job larger than one takes equal shares of as few as hold it.

        Schedulers hand out blocks of equal size (Slurm's block topology with ``--segment``): a job of 256 on
        racks of 72 takes 64 GPUs of each of four.
        """
        size = max(1, self.cluster.scale_up.domain_size)
        share, left = divmod(self.world_size, -(-self.world_size // size))
        return size if left or share % self._node else share

    @cached_property
    def _node(self) -> int:
        return max(1, self.cluster.gpus_per_node)

    def _split(self, axis: str) -> tuple[list[_Dimension], list[_Dimension]]:
        """The dimensions a group runs over and those that number the groups."""
        if axis == "world":
            return [_Dimension(self.world_size, 1)], []
        if axis in _PARTS:
            return self._split_part(axis)
        if axis in GRID:
            return self._split_grid(GRID.index(axis))
        both = axis == "dp_cp" or (axis == "edp" and self._same_data)
        axes = ("dp", "cp") if both else (axis,)
        grid = self._dense if axes[0] in self._dense else self._expert
        if axes[0] not in grid:
            raise ValueError(f"no axis {axis!r}; there are tp, cp, ep, etp, dp, dp_cp, edp, pp and world")
        inner = sorted((grid[a] for a in axes), key=lambda d: d.stride)
        outer = sorted((d for a, d in grid.items() if a not in axes), key=lambda d: d.stride)
        return inner, outer

    def _split_grid(self, place: int) -> tuple[list[_Dimension], list[_Dimension]]:
        """One direction of the grids that tensor-parallel groups are."""
        (whole,), others = self._split("tp")
        strides = accumulate(self._grid, mul, initial=whole.stride)
        cut = [_Dimension(size, stride) for size, stride in zip(self._grid, strides, strict=False)]
        inner = cut.pop(place)
        return [inner], sorted((*others, *cut), key=lambda d: d.stride)

    def _split_part(self, axis: str) -> tuple[list[_Dimension], list[_Dimension]]:
        """An axis cut where the first ranks of each of its groups end: those, or their counterparts."""
        part = _PARTS[axis]
        whole, others = self._split(part.of)
        left, first, rest = self._parts[part.size], [], []
        for d in whole:
            taken = gcd(left, d.size)
            left //= taken
            first.append(_Dimension(taken, d.stride))
            rest.append(_Dimension(d.size // taken, d.stride * taken))
        if left > 1:
            raise ValueError(f"groups of {self._parts[part.size]} do not divide {part.of} of {self.sizes}")
        inner, outer = (first, rest) if axis == part.size else (rest, first)
        return inner, sorted((*others, *outer), key=lambda d: d.stride)

    def _bases(self, axis: str) -> Iterator[int]:
        """First rank of each group of ``axis``, in rank order of their outer coordinates."""
        _, outer = self._split(axis)
        digits = [range(d.size) for d in reversed(outer)]
        strides = [d.stride for d in reversed(outer)]
        return (sum(c * s for c, s in zip(point, strides, strict=True)) for point in product(*digits))

    def _shape(self, axis: GroupAxis) -> Group:
        dims, _ = self._split(axis)
        offsets = _offsets(dims)
        grid = self._dense if axis in DENSE or axis in ("dp_cp", "world") else self._expert
        samples = 1 if axis not in (*_PARTS, *GRID) and self._is_even(grid) else SAMPLED_GROUPS
        candidates = (self._ranks(axis, offsets, base) for base in islice(self._bases(axis), samples))
        ranks = max(candidates, key=lambda r: (_units(r, self._domain), _units(r, self._node)))
        per_node = _most(ranks, self._node)
        nodes = (ranks // self._node)[_first_of_runs(ranks // self._node)]
        out = self.cluster.scale_out
        switches = tuple(_most(nodes, t.nodes) if t.nodes else len(nodes) for t in out.tiers)
        domains = _units(ranks, self._domain)
        return Group(
            axis=axis,
            ranks=len(ranks),
            ranks_per_domain=_most(ranks, self._domain),
            domains=domains,
            ranks_per_node=per_node,
            nodes=len(nodes),
            nic_bandwidth=out.nics_per_node / self._node * out.link.bandwidth,
            tier=self._tier(int(nodes[0]), int(nodes[-1])) if domains > 1 else -1,
            nodes_per_switch=switches,
        )

    def _is_even(self, grid: dict[str, _Dimension]) -> bool:
        """Whether every group of an axis lies on domains and nodes in the same way.

        True where digit boundaries and unit boundaries of the mixed-radix rank number nest.
        """
        return all(
            d.stride % unit == 0 or (unit % d.stride == 0 and 0 in (unit % reach, reach % unit))
            for unit in (self._domain, self._node)
            for d in grid.values()
            for reach in (d.stride * d.size,)
        )

    def _tier(self, node_a: int, node_b: int) -> int:
        """The lowest switch level that joins two nodes."""
        if node_a == node_b:
            return -1
        tiers = self.cluster.scale_out.tiers
        for index, tier in enumerate(tiers):
            if not tier.nodes or node_a // tier.nodes == node_b // tier.nodes:
                return index
        return len(tiers) - 1


def _parse_order(rank_order: str) -> list[str]:
    order = rank_order.lower().split("-")
    missing = ORDER_NAMES - set(order)
    if missing - {"ep"} or len(order) != len(set(order)) or set(order) - ORDER_NAMES:
        raise ValueError(
            f"rank_order {rank_order!r} must name each of tp, cp, ep, dp and pp once, fastest first, "
            "as in 'tp-cp-ep-dp-pp'"
        )
    if "ep" in missing:  # Megatron: an order without ep counts experts just inside dp
        order.insert(order.index("dp"), "ep")
    return order


def _strides(axes: Iterable[str], sizes: dict[str, int]) -> dict[str, _Dimension]:
    names = list(axes)
    return {
        axis: _Dimension(sizes[axis], prod(sizes[inner] for inner in names[:index]))
        for index, axis in enumerate(names)
    }


def _offsets(dims: list[_Dimension]) -> Ranks:
    """Offsets of a group's ranks from its first one, ascending."""
    offsets = np.zeros(1, dtype=np.int64)
    for d in dims:
        offsets = (offsets[None, :] + np.arange(d.size, dtype=np.int64)[:, None] * d.stride).ravel()
    return np.sort(offsets)


def _first_of_runs(ascending: Ranks) -> Ranks:
    """Where each run of equal values begins."""
    return np.concatenate(([0], np.flatnonzero(np.diff(ascending)) + 1))


def _units(ranks: Ranks, size: int) -> int:
    """How many units of ``size`` ascending ranks touch."""
    return int(_first_of_runs(ranks // size).size)


def _most(ranks: Ranks, size: int) -> int:
    """Most of the ascending ranks in one unit."""
    begins = _first_of_runs(ranks // size)
    return int(np.diff(np.append(begins, ranks.size)).max())
