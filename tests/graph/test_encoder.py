"""Encoders, encoder–decoders and vision transformers: sizes, FLOPs by formula, what stages pass on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.graph.flops import find_convention
from simulator.graph.operators import Attention
from simulator.graph.parameters import count_parameters
from simulator.partition.plan import RunPlan, pad_vocabulary, plan_run
from simulator.spec.errors import SpecError
from simulator.spec.load import load_model, load_run

T5 = "t5-11b-64-a100-split-rank"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # torchvision's counts; T5's without position biases, 32 per head on either side
        ("vit-b-16", 86_567_656),
        ("vit-h-14", 632_045_800),
        ("t5-large", 737_668_096 - 2 * 32 * 16),
        ("t5-11b", 11_307_321_344 - 2 * 32 * 128),
    ],
)
def test_parameters_are_those_of_the_published_checkpoint(name: str, parameters: int) -> None:
    assert count_parameters(load_model(name)).total == parameters


@pytest.mark.parametrize(("name", "giga"), [("vit-b-16", 17.58), ("vit-h-14", 167.3)])
def test_multiplications_of_an_image_are_the_published_ones(name: str, giga: float) -> None:
    """torchvision prints 17.56 and 167.29 billion for a forward pass."""
    model = load_model(name)
    tokens = (model.image_size // model.patch_size) ** 2 + 1
    flops = find_convention("megatron").flops_per_step(model, seq_length=tokens, global_batch_size=1)
    assert flops / 6e9 == pytest.approx(giga, rel=2e-3)


def test_an_encoders_flops_follow_the_formula() -> None:
    """72·L·s·h²·(1 + s/(6h)) + 6·s·h·(h + V): the whole square, and the masked-language-model head."""
    model, s = load_model("bert-large"), 512
    L, h, V = model.num_hidden_layers, model.hidden_size, model.vocab_size
    counted = find_convention("megatron").flops_per_step(model, seq_length=s, global_batch_size=1)
    assert counted == pytest.approx(72 * L * s * h**2 * (1 + s / (6 * h)) + 6 * s * h * (h + V))


def cores(plan: RunPlan) -> set[tuple[str, bool, int, int]]:
    ops = (step.op for c in plan.chunks for layer in c.layers for step in layer.forward.steps)
    return {(op.name, op.causal, op.seq_q, op.seq_kv) for op in ops if isinstance(op, Attention)}


def test_encoder_tokens_see_all_and_decoder_tokens_the_encoder_too() -> None:
    assert cores(plan_run(load_run(T5))) == {
        ("core_attn", False, 512, 512),
        ("core_attn", True, 128, 128),
        ("cross_attn", False, 128, 512),
    }


def test_decoder_stages_pass_the_encoders_output_on() -> None:
    """Sequence parallel over 8 ranks: the encoder's tokens, then both sides'."""
    plan, token = plan_run(load_run(T5)), 8 * 1024 * 2.0 / 8
    assert [plan.crossing_bytes(device) for device in range(3)] == [512 * token, 512 * token, 640 * token]


def test_the_first_decoder_stage_and_the_head_have_copies_of_the_embedding() -> None:
    cut, whole = plan_run(load_run(T5)), plan_run(load_run(T5, ["parallelism={tp: 8}"]))
    vocabulary = 32768 * 1024 / 8  # padded to 128·tp
    held = [sum(chunk.parameters for chunk in plan.chunks) for plan in (cut, whole)]
    assert held[0] - held[1] == 2 * vocabulary
    assert cut.tied_embedding_bytes == vocabulary * 4.0


@settings(max_examples=8, deadline=None)
@given(
    tp=st.sampled_from([1, 2, 4, 8]),
    pp=st.sampled_from([2, 4]),
    name=st.sampled_from(["bert-large", "t5-large"]),
)
def test_stages_lose_no_flops_and_ranks_add_those_of_padded_words_only(tp: int, pp: int, name: str) -> None:
    def flops(tp: int, pp: int) -> float:
        decoder = 128 if name.startswith("t5") else 0
        keys = [f"model={name}", f"training.decoder_seq_length={decoder}", f"gpus={tp * pp}"]
        layout = [f"parallelism={{tp: {tp}, pp: {pp}}}"]
        return plan_run(load_run("bert-large-8-a100", [*keys, *layout])).flops_per_replica

    assert flops(tp, pp) == pytest.approx(flops(tp, 1), rel=1e-12)
    padding = flops(tp, 1) - flops(1, 1)
    words = -(-load_model(name).vocab_size // (128 * tp)) * 128 * tp - pad_vocabulary(
        load_model(name).vocab_size, 1
    )
    tokens = 4096 * (128 if name.startswith("t5") else 512)
    assert padding == pytest.approx(6.0 * words * 1024 * tokens, abs=1e9)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (["training.decoder_seq_length=0"], "training.decoder_seq_length"),
        (["parallelism={tp: 8, cp: 2}"], "parallelism.cp"),
        (["parallelism={tp: 8, pp: 2, vp: 2}"], "parallelism.vp"),
        (["model.num_encoder_layers=48"], "model.num_encoder_layers"),
        (["model.num_experts=8", "model.num_experts_per_tok=2"], "model.num_experts"),
        (["runtime.attention=unfused"], "runtime.attention"),
    ],
)
def test_what_is_not_modelled_of_two_sides_is_refused(settings: list[str], key: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_run(T5, settings)
    assert key in {problem.key_path for problem in caught.value.problems}


def test_an_image_has_a_token_per_patch() -> None:
    with pytest.raises(SpecError, match="257 tokens"):
        load_run("vit-h-14-8-a100", ["training.seq_length=256"])
