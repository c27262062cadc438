"""Recompute and offload: memory falls as time rises, and copies hide behind the layer that carries them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from simulator.partition.layer_share import LayerShare
from simulator.partition.offload import offload
from simulator.partition.plan import plan_run
from simulator.partition.recompute import in_units
from simulator.result import Result
from simulator.simulate import simulate
from simulator.spec.load import load_run
from simulator.spec.recompute import Recompute
from simulator.spec.run import RunSpec

RUN = replace(
    load_run("llama3-8b-8-h100"),
    training=replace(load_run("llama3-8b-8-h100").training, global_batch_size=8),
)
# from nothing to everything: each keeps a subset of what the one before it keeps
DEPTHS = (
    Recompute(),
    Recompute(granularity="selective", modules=("layernorm",)),
    Recompute(granularity="selective", modules=("layernorm", "mlp")),
    Recompute(granularity="selective", modules=("layernorm", "mlp", "core_attn")),
    Recompute(granularity="full"),
)


def with_recompute(recompute: Recompute, precision: str = "bf16") -> RunSpec:
    return replace(RUN, training=replace(RUN.training, recompute=recompute, precision=precision))


def kept(run: RunSpec) -> float:
    return sum(chunk.saved_bytes for chunk in plan_run(run).chunks)


def peak(result: Result) -> float:
    bytes_ = result.memory["peak_bytes"]
    assert isinstance(bytes_, float)
    return bytes_


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_deeper_recompute_keeps_less_and_takes_longer(precision: str) -> None:
    runs = [with_recompute(depth, precision) for depth in DEPTHS]
    results = [simulate(run) for run in runs]
    for (shallow, before), (deep, after) in zip(
        zip(runs, results, strict=True), list(zip(runs, results, strict=True))[1:], strict=False
    ):
        assert kept(deep) < kept(shallow)
        assert peak(after) <= peak(before)
        assert after.step_time_s >= before.step_time_s


def test_an_early_stop_leaves_out_what_only_makes_the_layers_output() -> None:
    """The last linear layer needs its input alone, which the activation before it makes again."""
    asked = Recompute(granularity="full")
    whole, early = (plan_run(with_recompute(replace(asked, early_stop=stop))) for stop in (False, True))
    for longer, shorter in zip(whole.chunks[0].layers[1:-1], early.chunks[0].layers[1:-1], strict=True):
        again = Counter(step.op.name for step in longer.backward.steps)
        again.subtract(step.op.name for step in shorter.backward.steps)
        assert {"fc2": 1, "mlp_residual": 1}.items() <= again.items()
        assert all(
            count == 0 for name, count in again.items() if not name.startswith(("fc2", "mlp_residual"))
        )
        assert shorter.saved_bytes == longer.saved_bytes


def test_pytorchs_own_checkpoints_stop_early_and_megatrons_do_not() -> None:
    asked = with_recompute(Recompute(granularity="full"))
    eager = replace(asked, runtime=replace(asked.runtime, software="eager"))
    flops = [
        plan_run(replace(run, training=replace(run.training, recompute=recompute))).flops_per_replica
        for run in (asked, eager)
        for recompute in (Recompute(granularity="full"), Recompute(granularity="full", early_stop=False))
    ]
    assert flops[0] == flops[1] == flops[3] > flops[2]


def test_full_recompute_repeats_the_forward_pass_of_every_layer() -> None:
    plain, full = plan_run(with_recompute(DEPTHS[0])), plan_run(with_recompute(DEPTHS[-1]))
    for before, after in zip(plain.chunks[0].layers[1:-1], full.chunks[0].layers[1:-1], strict=True):
        assert after.backward.flops == before.backward.flops + before.forward.flops


def test_a_block_recomputes_the_first_layers_only() -> None:
    memory = [
        kept(with_recompute(Recompute(granularity="full", method="block", num_layers=n))) for n in (1, 8, 32)
    ]
    assert memory[0] > memory[1] > memory[2] == kept(with_recompute(DEPTHS[-1]))


def test_a_unit_keeps_one_input_and_needs_all_its_layers_while_it_is_recomputed() -> None:
    layers = plan_run(with_recompute(DEPTHS[-1])).chunks[0].layers[1:9]
    one = layers[0]
    unit = in_units(layers, 4)
    everything = one.saved_bytes + one.working_bytes
    assert [layer.saved_bytes for layer in unit] == [one.saved_bytes, 0.0, 0.0, 0.0] * 2
    assert {layer.working_bytes for layer in unit} == {4 * everything - one.saved_bytes}
    assert in_units(layers, 1) == list(layers)


def test_discarded_norm_outputs_are_quantised_again() -> None:
    """The fp8 copies of the inputs of QKV and FC1 go as well; making them again reads 2 and writes 1."""
    layers = [
        plan_run(with_recompute(Recompute(granularity="selective", modules=modules), "fp8"))
        .chunks[0]
        .layers[1]
        for modules in (("core_attn",), ("core_attn", "layernorm"))
    ]

    def casts(layer: LayerShare) -> set[str]:
        return {step.op.name for step in layer.backward.steps if "saved_input" in step.op.name}

    assert {name for name in casts(layers[1]) if name.endswith("quantize")} == {
        "qkv.saved_input.quantize",
        "fc1.saved_input.quantize",
    }
    assert not any(name.endswith("quantize") for name in casts(layers[0]))
    assert layers[1].saved_bytes < layers[0].saved_bytes


def test_offloaded_layers_keep_nothing_and_the_next_layer_carries_the_copies() -> None:
    layers = plan_run(RUN).chunks[0].layers[1:5]
    moved = offload(layers, 2)
    assert [layer.saved_bytes for layer in moved[:2]] == [0.0, 0.0]
    assert [layer.saved_bytes for layer in moved[2:]] == [layer.saved_bytes for layer in layers[2:]]
    out = [step.op for layer in moved for step in layer.forward.steps if step.stream == "d2h"]
    back = [step.op for layer in moved for step in layer.backward.steps if step.stream == "h2d"]
    assert sum(op.bytes for op in out) == sum(op.bytes for op in back) == 2 * layers[0].saved_bytes
    assert [any(s.stream == "d2h" for s in layer.forward.steps) for layer in moved] == [
        False,
        True,
        True,
        False,
    ]


def test_offload_is_free_on_a_fast_link_and_exposed_on_a_slow_one() -> None:
    def step(bandwidth: float, layers: int) -> Result:
        host = replace(RUN.cluster.host, link=replace(RUN.cluster.host.link, bandwidth=bandwidth))
        run = replace(RUN, cluster=replace(RUN.cluster, host=host))
        return simulate(replace(run, training=replace(run.training, activation_offload_layers=layers)))

    none, fast, slow = step(9e11, 0), step(9e11, 16), step(9e9, 16)
    assert fast.step_time_s == pytest.approx(none.step_time_s, rel=1e-9)
    assert peak(fast) < peak(none)
    assert slow.step_time_s > 1.2 * none.step_time_s
    assert slow.breakdown_s["copy"] > 0.0


def test_torchtitans_policy_repeats_every_other_product_and_keeps_the_core() -> None:
    """Llama: of wq wk wv wo w1 w3 w2 the second, fourth and sixth run again."""
    model, tp = RUN.model, RUN.parallelism.tp
    again = replace(
        RUN, training=replace(RUN.training, recompute=Recompute(granularity="selective", modules=("per-op",)))
    )
    before, after = (plan_run(run).chunks[0].layers[1] for run in (RUN, again))
    tokens, h = RUN.training.seq_length, model.hidden_size
    keys = model.num_key_value_heads * model.head_dim
    repeated = 2 * tokens * h * (keys + h + model.intermediate_size) / tp
    assert after.backward.flops - before.backward.flops == pytest.approx(repeated)
    assert after.saved_bytes < before.saved_bytes
    names = [step.op.name for step in after.backward.steps]
    assert "core_attn" not in names and "fc2" not in names
