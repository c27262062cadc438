"""A run in the flags of Megatron-LM: the tables of the import, read backwards.

Every key of the run is said by a flag, is what Megatron-LM takes without one, or is listed as not said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Final

from simulator.interop.imported import shown
from simulator.interop.megatron.flags import CHOICES, DEFAULTS, SWITCHES, VALUES
from simulator.spec.model import ModelSpec
from simulator.spec.run import Parallelism, RunSpec, Runtime, Training
from simulator.spec.stage_split import ENDS, parse_ends

SECTIONS: Final[dict[str, type]] = {
    "model": ModelSpec,
    "parallelism": Parallelism,
    "training": Training,
    "runtime": Runtime,
}
WORDS: Final = frozenset({"name", "source", "notes", "published_parameters"})
DERIVED: Final = frozenset(
    {
        *("parallelism.dp", "parallelism.schedule", "parallelism.cp_inner", "model.num_key_value_heads"),
        *("model.attention_type", "model.n_shared_experts", "model.moe_shared_expert_intermediate_size"),
    }
)
"""Keys that follow from others in Megatron-LM, or are said by hand below."""

Said = Iterator[tuple[str, tuple[str, ...]]]  # a flag with its values, and the keys it says


def flags_of(run: RunSpec) -> tuple[list[str], list[str]]:
    """The flags of a run, and in words what of it they cannot say."""
    keys, usual = _keys(run), {**_usual(), **DEFAULTS}
    flags, said = [], set(DERIVED)
    for flag, about in _by_hand(run):
        flags += [flag] if flag else []
        said |= set(about)
    different = {key: value for key, value in keys.items() if key not in said and value != usual.get(key)}
    for flag, about in _by_tables(different, keys):
        flags.append(flag)
        for key in about:
            different.pop(key, None)
    missing = [f"{key} {shown(_plain(value))}" for key, value in different.items()]
    if run.schedule not in ("1f1b", "interleaved-1f1b"):
        missing.append(f"the pipeline schedule {run.schedule}")
    return flags, missing


def _by_tables(different: Mapping[str, Any], keys: Mapping[str, Any]) -> Said:
    """Flags of the import's tables for unusual values; the first flag of a key is its name today."""
    open_keys = set(different)
    for flag, key in VALUES.items():
        if key in open_keys:
            open_keys.discard(key)
            yield f"{flag} {_text(different[key])}", (key,)
    for flag, choices in CHOICES.items():
        for word, sets in choices.items():
            if open_keys & sets.keys() and all(keys[key] == value for key, value in sets.items()):
                open_keys -= sets.keys()
                yield f"{flag} {word}", tuple(sets)
    for flag, sets in SWITCHES.items():
        if open_keys & sets.keys() and all(keys[key] == value for key, value in sets.items()):
            open_keys -= sets.keys()
            yield flag, tuple(sets)


def _by_hand(run: RunSpec) -> Said:
    """Flags that say several keys together, or depend on others."""
    yield from _shapes(run.model)
    yield from _experts(run)
    yield from _layout(run)
    yield from _numbers(run.training)
    if run.runtime.attention in ("flash", "unfused"):
        yield f"--attention-backend {run.runtime.attention}", ("runtime.attention",)
    if run.runtime.cuda_graphs == "full":
        yield "--cuda-graph-impl local --cuda-graph-scope full_iteration", ("runtime.cuda_graphs",)
    if run.runtime.cuda_graph_scope:
        parts = " ".join(run.runtime.cuda_graph_scope)
        about = ("runtime.cuda_graphs", "runtime.cuda_graph_scope")
        yield f"--cuda-graph-impl transformer_engine --cuda-graph-scope {parts}", about


def _shapes(m: ModelSpec) -> Said:
    if m.attention_type != "mla" and m.num_key_value_heads != m.num_attention_heads:
        yield f"--group-query-attention --num-query-groups {m.num_key_value_heads}", ()
    if m.attention_type == "mla":
        ranks = f"--kv-lora-rank {m.kv_lora_rank} --qk-head-dim {m.qk_nope_head_dim}"
        heads = f"--qk-pos-emb-head-dim {m.qk_rope_head_dim} --v-head-dim {m.v_head_dim}"
        names = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "head_dim")
        about = tuple(f"model.{name}" for name in names)
        yield f"--multi-latent-attention {ranks} {heads}", about
    if m.gated_mlp and m.hidden_act == "silu":
        yield "--swiglu", ("model.gated_mlp", "model.hidden_act")
    if m.sliding_window:
        about = ("model.sliding_window", "model.sliding_window_period")
        every = f" --window-attn-skip-freq {m.sliding_window_period}" if m.sliding_window_period > 1 else ""
        yield f"--window-size {m.sliding_window - 1},0{every}", about


def _experts(run: RunSpec) -> Said:
    m, p = run.model, run.parallelism
    if not m.is_moe:
        return
    yield f"--expert-tensor-parallel-size {p.etp or p.tp}", ("parallelism.etp",)
    if run.runtime.moe_grouped_gemm == "multi-stream":
        yield "--moe-grouped-gemm", ("runtime.moe_grouped_gemm",)
    if m.first_k_dense_replace and m.moe_layer_freq == 1:
        pattern = f"([0]*{m.first_k_dense_replace}+[1]*{m.num_hidden_layers - m.first_k_dense_replace})"
        yield f"--moe-layer-freq '{pattern}'", ("model.first_k_dense_replace",)
    elif m.moe_layer_freq > 1 and not m.first_k_dense_replace:
        yield f"--moe-layer-freq {m.moe_layer_freq}", ("model.moe_layer_freq",)
    width = m.moe_shared_expert_intermediate_size or m.n_shared_experts * m.moe_intermediate_size
    if width:
        yield f"--moe-shared-expert-intermediate-size {width}", ()
    if run.runtime.moe_dispatcher in ("deepep", "hybridep"):
        backend = run.runtime.moe_dispatcher
        flag = f"--moe-token-dispatcher-type flex --moe-flex-dispatcher-backend {backend}"
        yield flag, ("runtime.moe_dispatcher",)


def _layout(run: RunSpec) -> Said:
    p = run.parallelism
    if run.sequence_parallel:
        yield "--sequence-parallel", ()
    yield "", ("parallelism.sequence_parallel",)
    if p.vp > 1 and run.runtime.overlap_p2p:
        yield "", ("runtime.overlap_p2p",)
    yield from _stages(p)
    strategy = {2: "optim_grads", 3: "optim_grads_params"}.get(p.zero)
    buffers = p.fsdp.buffers
    if strategy and (buffers == "in-place" or p.zero == 2):
        flags = f"--use-megatron-fsdp --data-parallel-sharding-strategy {strategy}"
        yield flags, ("parallelism.zero", "parallelism.fsdp.buffers")
    elif p.zero == 3 and buffers == "copied":
        yield "--use-torch-fsdp2", ("parallelism.zero", "parallelism.fsdp.buffers")
    if p.zero == 3:
        yield "", ("runtime.overlap_grad_reduce", "runtime.overlap_param_gather")
    if p.shard_size and p.zero:
        instances = run.dp * p.cp // p.shard_size
        yield f"--num-distributed-optimizer-instances {instances}", ("parallelism.shard_size",)
    if p.offload.optimizer == "cpu":
        yield "--optimizer-cpu-offload", ("parallelism.offload.optimizer",)
    if p.cp_method == "hierarchical":
        sizes = f"{p.cp_inner} {p.cp // max(1, p.cp_inner)}"
        yield (
            f"--cp-comm-type a2a+p2p --hierarchical-context-parallel-sizes {sizes}",
            ("parallelism.cp_method",),
        )


def _stages(p: Parallelism) -> Said:
    split, about = p.stage_split, ("parallelism.stage_split",)
    if split in ("embedding-and-loss-as-layers", "trimmed"):
        yield "--account-for-embedding-in-pipeline-split --account-for-loss-in-pipeline-split", about
    elif split == "embedding-as-layer":
        yield "--account-for-embedding-in-pipeline-split", about
    elif split == "loss-as-layer":
        yield "--account-for-loss-in-pipeline-split", about
    elif isinstance(split, str) and split.startswith(ENDS):
        ends = parse_ends(split)
        yield " ".join(f"--decoder-{end}-pipeline-num-layers {n}" for end, n in ends.items()), about
    elif isinstance(split, str) and "|" in split:
        yield f"--pipeline-model-parallel-layout '{split}'", (*about, "parallelism.vp")


def _numbers(t: Training) -> Said:
    narrow = t.precision in ("fp8", "mxfp8", "nvfp4")
    if t.precision in ("bf16", "fp16") or narrow:
        yield "--fp16" if t.precision == "fp16" else "--bf16", () if narrow else ("training.precision",)
    if t.precision == "nvfp4":
        yield "--fp4-format e2m1 --fp4-recipe nvfp4", ("training.precision",)
    recipe = {"": "delayed", "current": "tensorwise"}.get(t.fp8_recipe, t.fp8_recipe)
    if t.precision == "mxfp8":
        yield "--fp8-format e4m3 --fp8-recipe mxfp8", ("training.precision", "training.fp8_recipe")
    elif t.precision == "fp8" and recipe in CHOICES["--fp8-recipe"]:
        yield f"--fp8-format hybrid --fp8-recipe {recipe}", ("training.precision", "training.fp8_recipe")
    if t.precision == "fp16":
        flag = "--accumulate-allreduce-grads-in-fp32" if t.grad_dtype == "fp32" else ""
        yield flag, ("training.grad_dtype",) if t.grad_dtype in ("fp16", "fp32") else ()
    if t.optimizer in ("adam", "adamw"):
        yield "", ("training.optimizer",)
    asked = t.recompute
    if asked.granularity == "selective":
        modules = f"--recompute-granularity selective --recompute-modules {' '.join(asked.modules)}"
        yield modules, ("training.recompute.granularity", "training.recompute.modules")
    elif asked.granularity == "full":
        layers = f"--recompute-method {asked.method} --recompute-num-layers {asked.num_layers}"
        names = ("granularity", "method", "num_layers", "modules")
        about = tuple(f"training.recompute.{name}" for name in names)
        yield f"--recompute-granularity full {layers}", about
    if t.moment_dtype != "fp32":
        flags = f"--exp-avg-dtype {t.moment_dtype} --exp-avg-sq-dtype {t.moment_dtype}"
        yield flags, ("training.moment_dtype",)


def _keys(run: RunSpec) -> dict[str, Any]:
    """All keys of a run by dotted path, with what it derives written out."""
    found: dict[str, Any] = {}
    for section in SECTIONS:
        found |= _flat(getattr(run, section), section)
    if not run.model.is_moe:
        found = {
            key: value
            for key, value in found.items()
            if not key.startswith(("runtime.moe_", "training.moe."))
        }
    return found


def _flat(value: Any, path: str) -> dict[str, Any]:
    if not is_dataclass(value):
        return {path: value}
    found: dict[str, Any] = {}
    for item in fields(value):
        if item.name not in WORDS or path != "model":
            found |= _flat(getattr(value, item.name), f"{path}.{item.name}")
    return found


def _usual() -> dict[str, Any]:
    """The defaults of a run file's keys."""
    found: dict[str, Any] = {}
    for section, spec in SECTIONS.items():
        for item in fields(spec):
            if item.default is not MISSING:
                found[f"{section}.{item.name}"] = item.default
            elif item.default_factory is not MISSING:
                found |= _flat(item.default_factory(), f"{section}.{item.name}")
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
