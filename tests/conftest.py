"""What several folders of tests ask of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import settings

from simulator.simulate import simulate
from simulator.spec.run import RunSpec, Simulation

settings.register_profile("desk", deadline=None)  # no test depends on how busy the machine is
settings.register_profile("ci", deadline=None, derandomize=True)  # the same examples on every machine
settings.load_profile("ci" if os.environ.get("CI") else "desk")

INTERFERENCE = 1e-2  # blocks beside data-parallel collectives slow down by their mean, operators by their own


@pytest.fixture(scope="session")
def stages_apart() -> Callable[[RunSpec], RunSpec]:
    """Gives each tensor-parallel group a node, so that no message meets one of its collectives on a port."""

    def moved(run: RunSpec) -> RunSpec:
        tp, up, out = run.parallelism.tp, run.cluster.scale_up, run.cluster.scale_out
        up, out = replace(up, domain_size=tp), replace(out, nics_per_node=tp, tiers=())
        return replace(run, cluster=replace(run.cluster, gpus_per_node=tp, scale_up=up, scale_out=out))

    return moved


@pytest.fixture(scope="session")
def loses_nothing_by_folding() -> Callable[[RunSpec], None]:
    """Classes give the step of every rank exactly; blocks that of every operator, but for what interferes."""

    def check(run: RunSpec) -> None:
        folded = simulate(run)
        ranks = simulate(replace(run, simulation=Simulation(ranks="all")))
        assert folded.step_time_s == pytest.approx(ranks.step_time_s, rel=1e-9)
        for category, seconds in ranks.breakdown_s.items():
            assert folded.breakdown_s.get(category, 0.0) == pytest.approx(
                seconds, abs=1e-9 * ranks.step_time_s
            )
        whole = simulate(replace(run, simulation=Simulation(detail="operator", ranks="all")))
        assert folded.step_time_s == pytest.approx(whole.step_time_s, rel=INTERFERENCE)

    return check


@pytest.fixture(scope="session")
def exactly_as_every_operator() -> Callable[[RunSpec], None]:
    """Where nothing interferes, blocks give the step of every operator of every rank exactly."""

    def check(run: RunSpec) -> None:
        folded = simulate(run)
        whole = simulate(replace(run, simulation=Simulation(detail="operator", ranks="all")))
        assert folded.step_time_s == pytest.approx(whole.step_time_s, rel=1e-9)

    return check
