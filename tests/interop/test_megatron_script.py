"""``stepcast import megatron``: scripts as people write them, and a run's own settings read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.cli.app import main
from simulator.interop.launch_settings import megatron_lm
from simulator.interop.megatron.script import import_script
from simulator.simulate import simulate
from simulator.spec import catalogue
from simulator.spec.errors import SpecError
from simulator.spec.load import load_model, load_run
from simulator.spec.run import RunSpec

SCRIPTS = Path(__file__).parent / "scripts"
SMALL = (
    "--num-layers 4 --hidden-size 64 --num-attention-heads 4 --seq-length 32 --vocab-size 100 "
    "--max-position-embeddings 32 --micro-batch-size 1 --global-batch-size 8 --bf16 "
)


def imported(folder: Path, flags: str) -> RunSpec:
    path = folder / "small.sh"
    path.write_text(SMALL + flags, encoding="utf-8")
    return import_script(path, gpus=8)[1]


def test_a_script_of_lists_and_variables() -> None:
    account, run = import_script(SCRIPTS / "gpt-175b.sh", cluster="dgx-a100")
    p, t, m = run.parallelism, run.training, run.model
    assert (run.gpus, p.tp, p.pp, p.vp, run.dp, run.sequence_parallel) == (128, 8, 16, 2, 1, True)
    assert (t.precision, t.grad_dtype, t.global_batch_size) == ("fp16", "fp16", 1536)
    assert (m.intermediate_size, m.vocab_size, m.hidden_dropout, m.is_gpt) == (49152, 50257, 0.1, True)
    ignored = {line.written for line in account.of("ignored")}
    assert {"--lr", "--data-path", "--vocab-file", "--save", "--train-iters"} <= ignored
    assert [line.written for line in account.of("approximated")] == ["--rampup-batch-size 16 16 5859375"]


def test_the_environment_wins_over_the_script() -> None:
    run = import_script(SCRIPTS / "gpt-175b.sh", variables={"NNODES": "32"})[1]
    assert run.gpus == 256


def test_a_slurm_script_with_a_command_in_quotes() -> None:
    run = import_script(SCRIPTS / "deepseek-v3.sh")[1]
    p, t, shipped = run.parallelism, run.training, load_model("deepseek-v3")
    assert (run.gpus, p.pp, p.vp, p.ep, p.etp, run.dp) == (1024, 16, 1, 64, 1, 64)
    assert p.stage_split == "Et*3|(t*4|)*14ttmL"
    assert (t.precision, t.fp8_recipe, t.master_weights) == ("fp8", "blockwise", "remainder")
    assert t.recompute.modules == ("mla_up_proj", "layernorm", "moe_act")
    assert run.runtime.moe_dispatcher == "deepep"
    for name in ("hidden_size", "num_experts", "first_k_dense_replace", "q_lora_rank", "n_group", "head_dim"):
        assert getattr(run.model, name) == getattr(shipped, name), name


def test_a_condition_on_a_variable_is_followed() -> None:
    run = import_script(SCRIPTS / "deepseek-v3.sh", variables={"TP": "2"})[1]
    assert run.sequence_parallel


def test_no_cluster_is_an_assumption_of_the_file() -> None:
    run = import_script(SCRIPTS / "deepseek-v3.sh")[1]
    assert any("stand-in" in text for text in run.assumptions)


SAID = [name for name in catalogue.names("runs") if not megatron_lm(load_run(name)).not_said]


@pytest.mark.parametrize("name", SAID)
def test_settings_of_a_run_read_back_are_its_settings(name: str, tmp_path: Path) -> None:
    run = load_run(name)
    said = megatron_lm(run).text.splitlines()[2:]
    path = tmp_path / "megatron-lm.sh"
    path.write_text(megatron_lm(run).text, encoding="utf-8")
    back = import_script(path, cluster=run.cluster.name)[1]
    assert (back.gpus, back.dp, back.schedule) == (run.gpus, run.dp, run.schedule)
    assert megatron_lm(back).text.splitlines()[2:] == said


@pytest.mark.parametrize("name", ["megatron-22b-8-a100-sequence-parallel", "qwen3-30b-a3b-16-h100"])
def test_a_run_read_back_takes_the_same_time(name: str, tmp_path: Path) -> None:
    assert name in SAID
    run = load_run(name)
    path = tmp_path / "megatron-lm.sh"
    path.write_text(megatron_lm(run).text, encoding="utf-8")
    back = import_script(path, cluster=run.cluster.name)[1]
    assert simulate(back).step_time_s == pytest.approx(simulate(run).step_time_s, rel=1e-12)


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        ("--swiglu", "model.intermediate_size", 128),
        ("--tensor-model-parallel-size 2 --use-tp-pp-dp-mapping", "runtime.rank_order", "tp-cp-ep-pp-dp"),
        ("--pipeline-model-parallel-size 2 --num-layers-per-virtual-pipeline-stage 1", "parallelism.vp", 2),
        ("--pipeline-model-parallel-layout 'Ett|ttL' --pipeline-model-parallel-size 2", "parallelism.vp", 1),
        (
            "--pipeline-model-parallel-size 2 --decoder-first-pipeline-num-layers 3",
            "parallelism.stage_split",
            "Et*3|t*1L",
        ),
        ("--num-experts 4 --moe-layer-freq [0,1]*2", "model.moe_layer_freq", 2),
        ("--num-experts 4 --moe-layer-freq 2", "model.moe_layer_freq", 2),
        ("--window-size 15,0 --window-attn-skip-freq 2", "model.sliding_window", 16),
        ("--context-parallel-size 4 --cp-comm-type a2a", "parallelism.cp_method", "ulysses"),
        ("--use-distributed-optimizer --num-distributed-optimizer-instances 2", "parallelism.shard_size", 4),
        (
            "--use-megatron-fsdp --data-parallel-sharding-strategy optim_grads_params",
            "parallelism.zero",
            3,
        ),
        ("--fp8-format=hybrid --fp8-recipe=tensorwise", "training.fp8_recipe", "current"),
        ("--recompute-activations", "training.recompute.granularity", "selective"),
        ("--group-query-attention --num-query-groups 2", "model.num_key_value_heads", 2),
        ("--num-query-groups 2", "model.num_key_value_heads", 4),
        ("--position-embedding-type rope --no-position-embedding", "model.position_embedding", "rope"),
        ("--transformer-impl local", "runtime.attention", "unfused"),
        ("--cuda-graph-impl local --cuda-graph-scope full_iteration", "runtime.cuda_graphs", "full"),
        (
            "--cuda-graph-impl transformer_engine --cuda-graph-scope attn moe_router",
            "runtime.cuda_graph_scope",
            ("attn", "moe_router"),
        ),
    ],
)
def test_a_flag_sets_its_key(flags: str, key: str, value: object, tmp_path: Path) -> None:
    found: object = imported(tmp_path, flags)
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("flags", "key", "word"),
    [
        ("--hidden-sise 12", "--hidden-sise", "--hidden-size"),
        ("--distribute-saved-activations", "--distribute-saved-activations", "not imported"),
        ("--encoder-num-layers 4", "--encoder-num-layers", "not imported"),
        ("--fp8-format hybrid --fp8-recipe custom", "--fp8-recipe", "delayed"),
        ("--tensor-model-parallel-size $TP", "--tensor-model-parallel-size", "--var TP=VALUE"),
        ("--num-layers 4 5", "--num-layers", "one value"),
        ("--window-size 8,8", "--window-size", "BEFORE,0"),
        ("--num-experts 4 --moe-layer-freq [1,0,0,1]", "--moe-layer-freq", "dense layers first"),
        ("--optimizer-cpu-offload --optimizer-offload-fraction 0.5", "--optimizer-offload-fraction", "1.0"),
        ("--tensor-model-parallel-size 3", "parallelism.tp", "divi"),
    ],
)
def test_what_is_unknown_or_not_modelled_is_refused_by_name(
    flags: str, key: str, word: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError) as caught:
        imported(tmp_path, flags)
    assert key in [problem.key_path for problem in caught.value.problems]
    assert word in str(caught.value)


def test_what_the_script_does_not_say_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "small.sh"
    path.write_text(SMALL.replace("--vocab-size 100", "--tokenizer-type HuggingFaceTokenizer"))
    with pytest.raises(SpecError, match="--gpus N"):
        import_script(path)
    with pytest.raises(SpecError, match=r"--set model.vocab_size=N"):
        import_script(path, gpus=8)
    assert import_script(path, gpus=8, overrides=["model.vocab_size=64"])[1].model.vocab_size == 64


@pytest.mark.parametrize("text", ["", "echo hello", 'echo "hello', "\xff"])
def test_what_is_no_script_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "script.sh"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SpecError):
        import_script(path)


def test_the_command_writes_a_run_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run.yaml"
    with pytest.raises(SystemExit) as ended:
        main(["import", "megatron", str(SCRIPTS / "gpt-175b.sh"), "--cluster", "a100", "-o", str(run)])
    assert ended.value.code == 0
    assert load_run(run).name == "gpt-175b"
    assert "--num-layers 96 → model.num_hidden_layers 96" in capsys.readouterr().err
