"""A faster link never slows a whole run."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.simulate import simulate
from simulator.spec.cluster import ClusterSpec
from simulator.spec.load import load_run

PART = st.sampled_from(["scale_up", "scale_out", "host"])
MOVED = 1e-3  # which kernels a collective slows down beside it may change


def faster(cluster: ClusterSpec, part: str, factor: float) -> ClusterSpec:
    links = getattr(cluster, part)
    link = replace(links.link, bandwidth=factor * links.link.bandwidth)
    return replace(cluster, **{part: replace(links, link=link)})


@settings(max_examples=15, deadline=None)
@given(
    shape=st.sampled_from([(2, 2, 4, 1), (8, 1, 4, 1), (4, 2, 4, 3), (1, 4, 8, 2)]),
    part=PART,
    factor=st.floats(1.05, 8.0),
)
def test_a_faster_link_never_slows_a_run(shape: tuple[int, int, int, int], part: str, factor: float) -> None:
    tp, pp, dp, zero = shape
    run = load_run("llama3-8b-8-h100")
    run = replace(
        run,
        gpus=tp * pp * dp,
        model=replace(run.model, num_hidden_layers=8),
        parallelism=replace(run.parallelism, tp=tp, pp=pp, dp=dp, zero=zero),
        training=replace(run.training, global_batch_size=2 * pp * dp, micro_batch_size=1),
    )
    usual = simulate(run).step_time_s
    assert simulate(replace(run, cluster=faster(run.cluster, part, factor))).step_time_s <= usual * (
        1 + MOVED
    )
