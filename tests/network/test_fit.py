"""The fit finds coefficients that made the data, and the shipped profiles keep their promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.fit_network.check import check_collectives
from calibration.fit_network.domain import fit_curves, predict, table_of
from calibration.fit_network.profiles import write_profile
from calibration.fit_network.rows import CollectiveRow, read_table
from simulator.network import ring
from simulator.network.fabric import DomainCurve, fabric_names, load_scale_out, load_scale_up

TRUE = (
    DomainCurve(
        collective="all_gather", algorithm="ring", protocol="LL", base_s=6e-6, hop_s=1e-6, bandwidth=15e9
    ),
    DomainCurve(
        collective="all_gather",
        algorithm="ring",
        protocol="Simple",
        base_s=30e-6,
        hop_s=1.5e-6,
        bandwidth=380e9,
        copy_bandwidth=1e12,
    ),
)
MEASURED = Path(__file__).parents[3] / "shared" / "reference" / "microbench"


def made_rows(ranks: tuple[int, ...]) -> list[CollectiveRow]:
    return [
        CollectiveRow(
            collective="all_gather",
            size_bytes=2.0**k,
            ranks=n,
            nodes=1,
            seconds=min(ring.inside("all_gather", 2.0**k, n, curve) for curve in TRUE),
            dtype="half",
        )
        for n in ranks
        for k in range(10, 30)
    ]


def test_the_fit_predicts_a_rank_count_it_has_not_seen() -> None:
    curves = fit_curves(made_rows((2, 8)), 450e9, multicast=True, starts=1)
    unseen = table_of(made_rows((4, 16)))
    errors = np.abs(predict(curves, unseen) / unseen.seconds - 1)
    assert np.median(errors) < 0.02
    assert np.max(errors) < 0.15


def test_a_written_profile_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    write_profile(path, head={"name": "p", "link_bandwidth": 450e9}, curves=TRUE, provenance={"rows": 2})
    text = path.read_text(encoding="utf-8")
    assert "inf" not in text
    assert "hop_s: 1.5e-06" in text


@pytest.mark.parametrize("name", fabric_names("scale_up"))
def test_no_fitted_bandwidth_exceeds_the_link(name: str) -> None:
    profile = load_scale_up(name)
    assert all(curve.bandwidth <= profile.link_bandwidth for curve in profile.curves)
    assert {"all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv"} <= {
        curve.collective for curve in profile.curves
    }


@pytest.mark.parametrize("name", fabric_names("scale_out"))
def test_no_network_is_faster_than_its_nics(name: str) -> None:
    profile = load_scale_out(name)
    assert all(0 < curve.efficiency <= 1 for curve in profile.curves)
    assert all(curve.hop_s > 0 for curve in profile.curves)
    assert profile.provenance["sources"]


def test_mistyped_profiles_are_named() -> None:
    with pytest.raises(ValueError, match="infiniband"):
        load_scale_out("infinibond")


@pytest.mark.skipif(not MEASURED.is_dir(), reason="the measured tables are not beside this checkout")
def test_shipped_profiles_predict_the_measured_tables() -> None:
    rows = [row for path in sorted(MEASURED.glob("collectives_*.csv")) for row in read_table(path)]
    found = check_collectives(rows)
    assert not found.skipped
    for (device, _, regime), error in found.summary().items():
        if regime == "inside a domain, 64 KB to 512 MB":
            assert error.median <= 0.055, device
            assert error.p90 <= 0.18, device
        elif regime == "inside a domain, below 64 KB":
            assert error.median <= 0.15, device
    across = [abs(c.error) for c in found.checked if c.regime == "across domains"]
    assert np.median(across) <= 0.15
    assert np.quantile(across, 0.9) <= 0.55
