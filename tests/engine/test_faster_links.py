"""A faster link never slows a whole run."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.simulate import simulate
from simulator.spec.cluster import ClusterSpec, Tier
from simulator.spec.load import load_run

PART = st.sampled_from(["scale_up", "scale_out", "host", "uplinks"])
OVERSUBSCRIPTION = 8.0  # of the uplinks between nodes
MOVED = 1e-3  # which kernels a collective slows down beside it may change


def faster(cluster: ClusterSpec, part: str, factor: float) -> ClusterSpec:
    if part == "uplinks":
        return with_uplinks(cluster, OVERSUBSCRIPTION / factor)
    links = getattr(cluster, part)
    link = replace(links.link, bandwidth=factor * links.link.bandwidth)
    return replace(cluster, **{part: replace(links, link=link)})


def with_uplinks(cluster: ClusterSpec, oversubscription: float) -> ClusterSpec:
    tiers = (Tier(name="leaf", nodes=1), Tier(name="spine", oversubscription=oversubscription))
    return replace(cluster, scale_out=replace(cluster.scale_out, tiers=tiers))


@settings(max_examples=15, deadline=None)
@given(
    shape=st.sampled_from([(2, 2, 4, 1), (8, 1, 4, 1), (4, 2, 4, 3), (1, 4, 8, 2)]),
    part=PART,
    factor=st.floats(1.05, 8.0),
    overlap_p2p=st.booleans(),
)
def test_a_faster_link_never_slows_a_run(
    shape: tuple[int, int, int, int], part: str, factor: float, overlap_p2p: bool
) -> None:
    tp, pp, dp, zero = shape
    run = load_run("llama3-8b-8-h100")
    run = replace(
        run,
        gpus=tp * pp * dp,
        model=replace(run.model, num_hidden_layers=8),
        parallelism=replace(run.parallelism, tp=tp, pp=pp, dp=dp, zero=zero),
        training=replace(run.training, global_batch_size=2 * pp * dp, micro_batch_size=1),
        runtime=replace(run.runtime, overlap_p2p=overlap_p2p),
        cluster=with_uplinks(run.cluster, OVERSUBSCRIPTION) if part == "uplinks" else run.cluster,
    )
    usual = simulate(run).step_time_s
    assert simulate(replace(run, cluster=faster(run.cluster, part, factor))).step_time_s <= usual * (
        1 + MOVED
    )
