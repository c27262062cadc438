"""The shipped fabric profiles, from the tables they are fitted on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from calibration.fit_network.fit import HeldOut, domain_rows, fit_scale_out, fit_scale_up
from calibration.fit_network.machines import Machine, machine_of
from calibration.fit_network.profiles import errors_mapping, write_profile
from calibration.fit_network.rows import CollectiveRow
from simulator.network import fabric
from simulator.network.fabric import NetworkCurve, ScaleOutProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Devices whose links and switches are alike, and fitted together."""

    name: str
    devices: tuple[str, ...]
    link_bandwidth: float
    multicast: bool
    collective_sms: int  # CTAs of NCCL's collective kernels by default: 24 channels on Ampere, 16 for NVLS


GENERATIONS = (
    Generation(
        name="nvlink3-ampere", devices=("a100",), link_bandwidth=300e9, multicast=False, collective_sms=24
    ),
    Generation(
        name="nvlink4-hopper",
        devices=("h100", "h200"),
        link_bandwidth=450e9,
        multicast=True,
        collective_sms=16,
    ),
    Generation(
        name="nvlink5-blackwell",
        devices=("b200", "b300", "gb200", "gb300"),
        link_bandwidth=900e9,
        multicast=True,
        collective_sms=16,
    ),
)
REFERENCE = "infiniband"  # lends what another network's tables do not cover
# between sites of one machine type: NCCL versions and devices inside a domain, clusters outside
SITE_INSIDE = 0.06
SITE_ACROSS = 0.15
# share of the NIC rate left by flows that hash onto the same uplink, where routing is not adaptive
SHARP_EFFICIENCY = 0.85  # NCCL 2.30 src/graph/tuning.cc, CollNet from Hopper on
SHARP_HOP_S = 15e-6  # half of NCCL's CollNetChain NET latency: up and down the switch tree
PAT_SHARE = 0.75  # NCCL 2.30 src/graph/tuning.cc


def write_fabric_profiles(
    rows: Sequence[CollectiveRow], folder: Path, *, sources: Iterable[str], today: date | None = None
) -> dict[str, dict[str, HeldOut]]:
    """Fits every profile and writes it below ``folder``; returns the held-out errors by profile.

    The curves between domains rest on those inside, so the scale-up profiles come first.
    """
    about = {"fitted": (today or date.today()).isoformat(), "sources": list(sources)}
    inside = write_scale_up_profiles(rows, folder, about)
    return inside | write_scale_out_profiles(rows, folder, about)


def write_scale_up_profiles(
    rows: Sequence[CollectiveRow], folder: Path, about: dict[str, Any]
) -> dict[str, dict[str, HeldOut]]:
    """One profile per generation that has rows."""
    report = {g.name: _write_scale_up(g, rows, folder, about) for g in GENERATIONS}
    fabric.load_scale_up.cache_clear()
    return report


def write_scale_out_profiles(
    rows: Sequence[CollectiveRow], folder: Path, about: dict[str, Any]
) -> dict[str, dict[str, HeldOut]]:
    """One profile per kind of network that has rows."""
    report: dict[str, dict[str, HeldOut]] = {}
    fitted: dict[str, ScaleOutProfile] = {}
    for name, own in sorted(by_network(rows).items()):
        fitted[name], report[name] = fit_scale_out(own, name=name)
    for name, profile in fitted.items():
        _write_scale_out(_completed(profile, fitted[REFERENCE]), report[name], folder, about)
    fabric.load_scale_out.cache_clear()
    return report


def by_network(rows: Iterable[CollectiveRow]) -> dict[str, list[CollectiveRow]]:
    """Rows of several domains by their machine's scale-out profile; without SHARP and mis-tuned sites."""
    found: dict[str, list[CollectiveRow]] = {}
    for row in rows:
        machine = machine_of(row)
        if not isinstance(machine, Machine) or not machine.cluster.fabric or not machine.tuned:
            continue
        if not machine.cluster.scale_out.in_network_reduction:
            found.setdefault(machine.cluster.fabric, []).append(row)
    return found


def _write_scale_up(
    generation: Generation, rows: Sequence[CollectiveRow], folder: Path, about: dict[str, Any]
) -> dict[str, HeldOut]:
    own = domain_rows(rows, generation.devices)
    profile, errors = fit_scale_up(
        own,
        name=generation.name,
        link_bandwidth=generation.link_bandwidth,
        multicast=generation.multicast,
        collective_sms=generation.collective_sms,
    )
    write_profile(
        folder / "scale_up" / f"{generation.name}.yaml",
        head={
            "name": generation.name,
            "link_bandwidth": generation.link_bandwidth,
            "collective_sms": generation.collective_sms,
            "random": round(profile.random, 3),
            "site": SITE_INSIDE,
        },
        curves=profile.curves,
        provenance={
            **about,
            "devices": list(generation.devices),
            "rows": len(own),
            "held_out": errors_mapping(errors),
        },
    )
    return errors


def _write_scale_out(
    profile: ScaleOutProfile, errors: dict[str, HeldOut], folder: Path, about: dict[str, Any]
) -> None:
    notes = {
        "collnet": "not fitted (no public pair with and without SHARP): NCCL's constants",
        "pat": "not fitted: NCCL's constants on the ring's rate",
        "send_recv": "not fitted: one hop of the all-reduce tree, the ring's rate",
    }
    missing = [c for c in ("all_reduce", "all_gather", "all_to_all") if c not in errors]
    if missing:
        notes[" ".join(missing)] = (
            f"no rows: those of {REFERENCE} with hop latencies in the ratio of the trees'"
        )
    write_profile(
        folder / "scale_out" / f"{profile.name}.yaml",
        head={
            "name": profile.name,
            "random": round(profile.random, 3),
            "site": SITE_ACROSS,
        },
        curves=profile.curves,
        provenance={**about, "held_out": errors_mapping(errors), "assumptions": notes},
    )


def _completed(profile: ScaleOutProfile, reference: ScaleOutProfile) -> ScaleOutProfile:
    """The profile with the collectives it has no rows of, and the algorithms nobody published."""
    ratio = _tree_hop(profile) / _tree_hop(reference)
    curves = list(profile.curves)
    measured = {c.collective for c in curves}
    for curve in reference.curves:
        if curve.collective not in measured:
            curves.append(replace(curve, hop_s=curve.hop_s * ratio))
    simple = next(c for c in curves if c.collective == "all_gather" and c.protocol == "Simple")
    tree_hop = _tree_hop(profile)
    curves.append(
        NetworkCurve(
            collective="all_reduce",
            algorithm="collnet",
            protocol="Simple",
            hop_s=SHARP_HOP_S,
            efficiency=SHARP_EFFICIENCY,
        )
    )
    for collective in ("all_gather", "reduce_scatter"):
        curves.append(
            NetworkCurve(
                collective=collective,
                algorithm="pat",
                protocol="Simple",
                base_s=8e-6,
                hop_s=tree_hop,
                efficiency=PAT_SHARE * simple.efficiency,
            )
        )
    curves.append(
        NetworkCurve(
            collective="send_recv",
            algorithm="p2p",
            protocol="Simple",
            base_s=8e-6,
            hop_s=tree_hop,
            efficiency=simple.efficiency,
        )
    )
    order = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")
    return replace(profile, curves=tuple(sorted(curves, key=lambda c: order.index(c.collective))))


def _tree_hop(profile: ScaleOutProfile) -> float:
    return next(c.hop_s for c in profile.curves if c.algorithm == "tree" and c.protocol == "LL")
