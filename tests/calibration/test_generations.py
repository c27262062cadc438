"""What ships of generations without measurements is what their published rates give."""

from __future__ import annotations

import pytest

from calibration.generations import GENERATIONS, long_sequence_share, unmeasured_generations
from simulator.cost.attention import AttentionCoefficients
from simulator.cost.profile_file import load_kernel_profile
from simulator.spec.load import load_device


@pytest.mark.parametrize("device", ["a100-sxm4-80gb", "h100-sxm5-80gb", "h200-sxm-141gb"])
def test_profiles_hold_the_published_rates(device: str) -> None:
    profile = load_kernel_profile(device)
    measured = {profile.default_attention: profile.attention[profile.default_attention]}
    flash2 = load_kernel_profile("a100-sxm4-80gb").attention["flash2"]
    derived = unmeasured_generations(load_device(device).architecture, measured, flash2)
    assert {*derived, profile.default_attention} == set(profile.attention)
    for name, kernel in derived.items():
        for fit, shipped in (
            (kernel.forward, profile.attention[name].forward),
            (kernel.backward, profile.attention[name].backward),
        ):
            assert shipped.coefficients.efficiency == pytest.approx(fit.coefficients.efficiency, rel=1e-3)
            assert (shipped.basis, shipped.notes) == (fit.basis, fit.notes)


def test_a_share_is_reached_by_long_sequences_of_heads_of_128() -> None:
    hopper = load_kernel_profile("h100-sxm5-80gb").attention["flash2"]
    stated = GENERATIONS["hopper"]["flash2"]
    assert long_sequence_share(hopper.forward.coefficients) == pytest.approx(stated.forward.share, rel=1e-3)
    assert long_sequence_share(hopper.backward.coefficients) == pytest.approx(stated.backward.share, rel=1e-3)


def test_twice_the_exponentials_save_as_much_in_either_direction() -> None:
    """A pair takes m·(D + half_dim)/efficiency; both directions compute its exponential once."""
    blackwell, ultra = (load_kernel_profile(device).attention["cudnn"] for device in ("gb200", "gb300"))

    def per_pair(c: AttentionCoefficients, products: float) -> float:
        return products * (128 + c.half_dim) / c.efficiency

    saved = [
        per_pair(old.coefficients, products) - per_pair(new.coefficients, products)
        for old, new, products in (
            (blackwell.forward, ultra.forward, 2.0),
            (blackwell.backward, ultra.backward, 5.0),
        )
    ]
    assert saved[0] == pytest.approx(saved[1], rel=1e-3)
    assert ultra.forward.coefficients.half_dim == blackwell.forward.coefficients.half_dim / 2
