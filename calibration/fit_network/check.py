"""How far the shipped fabric profiles are from measured collectives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from calibration.fit_network.domain import NO_SWITCH_REDUCTION
from calibration.fit_network.fit import HeldOut, held_out
from calibration.fit_network.machines import Machine, Unmapped, machine_of, placement_of
from calibration.fit_network.rows import CollectiveRow
from simulator.network.collectives import Network
from simulator.spec.cluster import ClusterSpec

SMALL, LARGE = 65536.0, 512 * 2.0**20  # inside a domain: 64 KB to 512 MB are "large"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A row beside its prediction.

    ``error`` = predicted/measured − 1; ``regime`` says which rows it counts with.
    """

    row: CollectiveRow
    predicted_s: float
    error: float
    algorithm: str
    protocol: str
    profile: str
    regime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A row without a prediction, and why."""

    row: CollectiveRow
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveCheck:
    """All rows of a table, predicted or skipped, and the error by profile and regime."""

    checked: tuple[Checked, ...]
    skipped: tuple[Skipped, ...]

    def summary(self) -> dict[tuple[str, str, str], HeldOut]:
        """Errors by (device, profile, regime)."""
        groups: dict[tuple[str, str, str], list[float]] = {}
        for c in self.checked:
            groups.setdefault((c.row.device, c.profile, c.regime), []).append(c.error)
        return {key: held_out(errors) for key, errors in sorted(groups.items())}

    def reasons(self) -> dict[str, int]:
        """How many rows were skipped, by reason."""
        counts: dict[str, int] = {}
        for s in self.skipped:
            counts[s.reason] = counts.get(s.reason, 0) + 1
        return counts


def check_collectives(
    rows: Iterable[CollectiveRow], *, cluster: ClusterSpec | None = None
) -> CollectiveCheck:
    """Predicts every row on the machine its ``device`` and ``fabric`` columns name, or on ``cluster`` if
    given.
    """
    checked: list[Checked] = []
    skipped: list[Skipped] = []
    networks = _Networks()
    for row in rows:
        machine: Machine | Unmapped = Machine(cluster=cluster) if cluster else machine_of(row)
        if isinstance(machine, Unmapped):
            skipped.append(Skipped(row=row, reason=machine.reason))
        elif row.ranks < 2:
            skipped.append(Skipped(row=row, reason="one rank moves nothing"))
        else:
            checked.append(_check(row, machine, networks))
    return CollectiveCheck(checked=tuple(checked), skipped=tuple(skipped))


class _Networks:
    """One network per machine, rank count and ability to reduce in the switch."""

    def __init__(self) -> None:
        # clusters hold dictionaries and cannot be keys; they are kept here, so their identities stay theirs
        self._made: dict[tuple[int, int, int, bool], tuple[ClusterSpec, Network]] = {}

    def of(self, cluster: ClusterSpec, ranks: int, nodes: int, *, reducible: bool) -> Network:
        key = (id(cluster), ranks, nodes, reducible)
        if key not in self._made:
            scale_up = replace(cluster.scale_up, multicast=cluster.scale_up.multicast and reducible)
            machine = replace(cluster, scale_up=scale_up)
            self._made[key] = (cluster, Network(machine, placement_of(machine, ranks, nodes)))
        return self._made[key][1]


def _check(row: CollectiveRow, machine: Machine, networks: _Networks) -> Checked:
    reducible = row.dtype not in NO_SWITCH_REDUCTION
    network = networks.of(machine.cluster, row.ranks, row.nodes, reducible=reducible)
    if row.collective == "send_recv":
        estimate = network.send_recv(row.size_bytes, "dp")
    else:
        estimate = network.collective(row.collective, row.size_bytes, "dp")  # type: ignore[arg-type]
    inside = network.placement.group("dp").inside_domain
    profile = network.profile.scale_up.name if inside else network.profile.scale_out.name
    return Checked(
        row=row,
        predicted_s=estimate.seconds,
        error=estimate.seconds / row.seconds - 1.0,
        algorithm=estimate.algorithm,
        protocol=estimate.protocol,
        profile=profile,
        regime=_regime(row, inside, machine.tuned),
    )


def _regime(row: CollectiveRow, inside: bool, tuned: bool) -> str:
    if not tuned:
        return "across domains, not well tuned"
    if not inside:
        return "across domains"
    if row.size_bytes < SMALL:
        return "inside a domain, below 64 KB"
    return "inside a domain, 64 KB to 512 MB" if row.size_bytes <= LARGE else "inside a domain, above 512 MB"
