"""Flags of Megatron-LM whose meaning depends on other flags, and what follows when a flag is left out."""

from __future__ import annotations

import ast
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from simulator.interop.imported import Imported, shown
from simulator.spec.errors import Problem
from simulator.spec.run import GRAPH_PARTS
from simulator.spec.stage_layout import parse_layout

PRECISIONS: Final = ("fp32", "fp16", "bf16", "fp8", "mxfp8", "nvfp4")  # of several flags the last one wins
TOKENIZERS: Final = {"GPT2BPETokenizer": 50257, "Llama2Tokenizer": 32000}
SPECIAL_FLAGS: Final = (
    *("--num-layers-per-virtual-pipeline-stage", "--decoder-first-pipeline-num-layers"),
    *("--decoder-last-pipeline-num-layers", "--account-for-embedding-in-pipeline-split"),
    *("--account-for-loss-in-pipeline-split", "--moe-layer-freq", "--recompute-modules"),
    *("--hierarchical-context-parallel-sizes", "--window-size", "--window-attn-skip-freq"),
    *("--num-distributed-optimizer-instances", "--optimizer-cpu-offload", "--optimizer-offload-fraction"),
    *("--first-last-layers-bf16", "--group-query-attention", "--cuda-graph-scope", "--tokenizer-type"),
    *(
        "--no-position-embedding",
        "--sequence-parallel",
        "--transformer-impl",
        "--moe-grouped-gemm",
        "--make-vocab-size-divisible-by",
    ),
)
"""Read by :func:`finish` once every other flag is."""


@dataclass(slots=True, kw_only=True)
class Flags:
    """A command line under way to a run: keys found so far by dotted path, and flags still to be read."""

    file: str
    gpus: int
    keys: dict[str, Any]
    imported: Imported
    said: set[str] = field(default_factory=set)  # keys that a flag has set
    left: dict[str, tuple[list[str], int]] = field(default_factory=dict)  # flag -> values, line
    problems: list[Problem] = field(default_factory=list)

    def set(self, flag: str, values: list[str], keys: dict[str, Any]) -> None:
        """Takes over keys from a flag."""
        for key, value in keys.items():
            old = self.keys.get(key)
            if key == "training.precision" and PRECISIONS.index(value) < PRECISIONS.index(str(old)):
                continue
            self.keys[key] = value
        self.said |= keys.keys()
        said = ", ".join(f"{key} {shown(value)}" for key, value in keys.items())
        self.imported.note("mapped", " ".join((flag, *values)), said or "as is usual here")

    def refuse(self, flag: str, values: list[str], line: int, rule: str, suggestion: str = "") -> None:
        """Notes what cannot be said."""
        value = " ".join(values)
        self.problems.append(
            Problem(
                file=self.file,
                line=line,
                key_path=flag,
                value=value or True,
                rule=rule,
                suggestion=suggestion,
            )
        )

    def assume(self, key: str, value: Any) -> None:
        """What Megatron-LM takes where no flag says."""
        self.keys.setdefault(key, value)

    def number(self, key: str, default: int = 0) -> int:
        """A whole number found so far."""
        value = self.keys.get(key, default)
        return value if isinstance(value, int) else default

    def take(self, flag: str) -> list[str] | None:
        """The values of a flag that :func:`finish` reads, or None."""
        values, _ = self.left.get(flag, (None, 0))
        return values


Step: TypeAlias = Callable[[Flags], None]


def finish(flags: Flags) -> None:
    """Reads the flags that depend on others, and fills in what Megatron-LM derives."""
    for step in _STEPS:
        step(flags)
    for key in [key for key in flags.keys if key not in flags.said]:
        flags.imported.note("implied", *[f"{key} {shown(flags.keys[key])}"] * 2)


def _shapes(flags: Flags) -> None:
    hidden, heads = flags.number("model.hidden_size"), flags.number("model.num_attention_heads")
    if hidden and "model.intermediate_size" not in flags.keys:
        gated = int(4 * hidden * 2 / 3 / 64) * 64  # arguments.py: two thirds, in multiples of 64
        flags.assume("model.intermediate_size", gated if flags.keys["model.gated_mlp"] else 4 * hidden)
    if (
        flags.take("--no-position-embedding") is not None
        and flags.keys["model.position_embedding"] == "learned"
    ):
        flags.set("--no-position-embedding", [], {"model.position_embedding": "none"})
    grouped = flags.take("--group-query-attention") is not None
    if "model.num_key_value_heads" in flags.keys and not grouped:
        del flags.keys["model.num_key_value_heads"]
        flags.imported.note("ignored", "--num-query-groups", "only beside --group-query-attention")
    groups = flags.number("model.num_key_value_heads", 1 if grouped else heads)
    if flags.keys.get("model.attention_type") == "mla":
        for name, size in (("kv_lora_rank", 32), ("qk_nope_head_dim", 128), ("qk_rope_head_dim", 64)):
            flags.assume(f"model.{name}", size)
        flags.assume("model.v_head_dim", 128)
        flags.keys.setdefault("model.head_dim", flags.keys["model.v_head_dim"])
        flags.keys.pop("model.qk_norm", None)  # latent attention norms its low-rank paths anyway
    elif grouped:
        flags.set("--group-query-attention", [], {"model.num_key_value_heads": groups})
        flags.keys["model.attention_type"] = "gqa" if groups != heads else "mha"


def _vocabulary(flags: Flags) -> None:
    name = " ".join(flags.take("--tokenizer-type") or ())
    if name in TOKENIZERS and "model.vocab_size" not in flags.keys:
        flags.set("--tokenizer-type", [name], {"model.vocab_size": TOKENIZERS[name]})


def _windows(flags: Flags) -> None:
    window, period = flags.take("--window-size"), flags.take("--window-attn-skip-freq")
    if window is not None:
        sides = _numbers(" ".join(window))
        if len(sides) != 2 or sides[1] != 0:
            flags.refuse("--window-size", window, flags.left["--window-size"][1], "must be BEFORE,0")
        else:
            flags.set("--window-size", window, {"model.sliding_window": sides[0] + 1})
    if period is not None:
        every = _numbers(" ".join(period))
        if len(every) == 1:
            flags.set("--window-attn-skip-freq", period, {"model.sliding_window_period": every[0]})
        else:
            line = flags.left["--window-attn-skip-freq"][1]
            flags.refuse(
                "--window-attn-skip-freq", period, line, "must be one number: every n-th layer is full"
            )


def _experts(flags: Flags) -> None:
    if not flags.keys.get("model.num_experts"):
        flags.keys.pop("runtime.moe_permute_fusion", None)
        flags.keys.pop("runtime.moe_dispatcher", None)
        return
    flags.assume("model.num_experts_per_tok", 2)
    flags.assume("model.moe_intermediate_size", flags.keys.get("model.intermediate_size"))
    if flags.take("--moe-grouped-gemm") is None:
        written = "one expert after the other (no --moe-grouped-gemm)"
        flags.imported.note("approximated", written, "grouped products")
    pattern = flags.take("--moe-layer-freq")
    if pattern is None:
        return
    layers = _pattern("".join(pattern))
    dense = layers.index(1) if 1 in layers else 0
    if len(layers) == 1:
        flags.set("--moe-layer-freq", pattern, {"model.moe_layer_freq": layers[0]})
    elif layers and all(layers[dense:]):
        flags.set("--moe-layer-freq", pattern, {"model.first_k_dense_replace": dense})
    elif layers == [(number + 1) % 2 == 0 for number in range(len(layers))]:
        flags.set("--moe-layer-freq", pattern, {"model.moe_layer_freq": 2})
    else:
        line = flags.left["--moe-layer-freq"][1]
        rule = "must be a number, or dense layers first and experts in all others"
        flags.refuse("--moe-layer-freq", pattern, line, rule, '"([0]*3+[1]*58)"')


def _stages(flags: Flags) -> None:
    pp, layers = flags.number("parallelism.pp", 1), flags.number("model.num_hidden_layers")
    layout = flags.keys.get("parallelism.stage_split")
    if isinstance(layout, str):
        layout = flags.keys["parallelism.stage_split"] = layout.strip("\"'")
        with suppress(ValueError):  # what is no layout, the run file's own rule refuses
            flags.keys["parallelism.vp"] = max(1, len(parse_layout(layout)) // pp)
        return
    per_chunk = flags.take("--num-layers-per-virtual-pipeline-stage")
    chunk = _numbers(" ".join(per_chunk or ()))
    if per_chunk is not None and len(chunk) == 1 and chunk[0]:
        counted = layers + 2 * (flags.take("--account-for-embedding-in-pipeline-split") is not None)
        vp = max(1, counted // (pp * chunk[0]))
        flags.set("--num-layers-per-virtual-pipeline-stage", per_chunk, {"parallelism.vp": vp})
    ends = [flags.take(f"--account-for-{end}-in-pipeline-split") is not None for end in ("embedding", "loss")]
    if all(ends):
        split = {"parallelism.stage_split": "embedding-and-loss-as-layers"}
        flags.set("--account-for-embedding-in-pipeline-split", ["(and loss)"], split)
    elif any(ends):
        flags.refuse(
            "--account-for-embedding-in-pipeline-split", [], 0, "needs the one for the loss, and vice versa"
        )
    _uneven_ends(flags, pp, layers)


def _uneven_ends(flags: Flags, pp: int, layers: int) -> None:
    """``--decoder-first/last-pipeline-num-layers`` as a layout string; the stages between are equal."""
    names = ("--decoder-first-pipeline-num-layers", "--decoder-last-pipeline-num-layers")
    given = [flags.take(name) for name in names]
    if given == [None, None]:
        return
    first, last = ((_numbers(" ".join(values or ())) or [0])[0] for values in given)
    between = pp - sum(values is not None for values in given)
    each, rest = divmod(layers - first - last, between) if between > 0 else (0, 1)
    name = names[0] if given[0] is not None else names[1]
    if rest or flags.number("parallelism.vp", 1) > 1:
        rule = "must leave equal stages between, without virtual stages"
        flags.refuse(
            name, given[0] or given[1] or [], flags.left[name][1], rule, "--pipeline-model-parallel-layout"
        )
        return
    sizes = [first] * (given[0] is not None) + [each] * between + [last] * (given[1] is not None)
    layout = "E" + "|".join(f"t*{size}" for size in sizes)
    layout += "m" * flags.number("model.num_nextn_predict_layers") + "L"
    flags.set(name, given[0] or given[1] or [], {"parallelism.stage_split": layout})


def _recompute(flags: Flags) -> None:
    modules = flags.take("--recompute-modules")
    if modules is not None:
        flags.set("--recompute-modules", modules, {"training.recompute.modules": modules})
    if flags.keys.get("training.recompute.granularity") != "selective":
        flags.keys.pop("training.recompute.modules", None)


def _sharding(flags: Flags) -> None:
    instances = _numbers(" ".join(flags.take("--num-distributed-optimizer-instances") or ()))
    if instances and instances[0] > 1:
        size = _replicas(flags) * flags.number("parallelism.cp", 1) // instances[0]
        flags.set(
            "--num-distributed-optimizer-instances", [str(instances[0])], {"parallelism.shard_size": size}
        )
    if flags.number("parallelism.tp", 1) == 1:
        del flags.keys["parallelism.sequence_parallel"]
        if flags.take("--sequence-parallel") is not None:
            flags.imported.note("ignored", "--sequence-parallel", "Megatron-LM drops it where tp is 1")
    elif flags.take("--sequence-parallel") is not None:
        flags.set("--sequence-parallel", [], {"parallelism.sequence_parallel": True})
    if flags.keys["parallelism.zero"] != 3:
        flags.keys.pop("parallelism.fsdp.buffers", None)
    else:  # sharded parameters come and go beside compute anyway
        for key in ("runtime.overlap_grad_reduce", "runtime.overlap_param_gather"):
            del flags.keys[key]
    offload = flags.take("--optimizer-cpu-offload")
    if offload is not None:
        share = " ".join(flags.take("--optimizer-offload-fraction") or ("1.0",))
        if share in ("1", "1.0"):
            flags.set("--optimizer-cpu-offload", [], {"parallelism.offload.optimizer": "cpu"})
        else:
            line = flags.left["--optimizer-offload-fraction"][1]
            flags.refuse(
                "--optimizer-offload-fraction", [share], line, "a part of the states is not modelled", "1.0"
            )


def _precision(flags: Flags) -> None:
    precision = flags.keys["training.precision"]
    if precision != "fp8":
        flags.keys.pop("training.fp8_recipe", None)
    if precision not in ("fp8", "mxfp8"):
        flags.keys.pop("training.fp8_param_gather", None)
    if precision == "fp16":
        flags.assume("training.grad_dtype", "fp16")
    if flags.take("--first-last-layers-bf16") is not None:
        flags.keys.setdefault("training.num_layers_at_start_in_bf16", 1)
        flags.keys.setdefault("training.num_layers_at_end_in_bf16", 1)
        ends = {f"training.num_layers_at_{end}_in_bf16": 1 for end in ("start", "end")}
        flags.set("--first-last-layers-bf16", [], {key: flags.keys[key] for key in ends})


def _software(flags: Flags) -> None:
    scope = flags.take("--cuda-graph-scope")
    if scope is not None:
        keys: dict[str, object] = {"runtime.cuda_graphs": "full"}
        if "full_iteration" not in scope:
            parts = [part for part in scope if part in GRAPH_PARTS]
            keys = {"runtime.cuda_graphs": "layer", **({"runtime.cuda_graph_scope": parts} if parts else {})}
        flags.set("--cuda-graph-scope", scope, keys)
    if flags.take("--transformer-impl") == ["local"] and "runtime.attention" not in flags.keys:
        flags.set("--transformer-impl", ["local"], {"runtime.attention": "unfused"})
    sizes = _numbers(" ".join(flags.take("--hierarchical-context-parallel-sizes") or ()))
    if sizes and flags.keys.get("parallelism.cp_method") == "hierarchical":
        flags.set(
            "--hierarchical-context-parallel-sizes",
            [str(s) for s in sizes],
            {"parallelism.cp_inner": sizes[0]},
        )
    multiple = flags.take("--make-vocab-size-divisible-by")
    if multiple is not None and multiple != ["128"]:
        written = f"--make-vocab-size-divisible-by {' '.join(multiple)}"
        flags.imported.note("approximated", written, "a vocabulary in multiples of 128 per TP rank")


def _batch(flags: Flags) -> None:
    micro = flags.number("training.micro_batch_size")
    if micro:
        flags.assume("training.global_batch_size", micro * _replicas(flags))


def _replicas(flags: Flags) -> int:
    size = 1
    for axis in ("tp", "pp", "cp"):
        size *= flags.number(f"parallelism.{axis}", 1)
    return max(1, flags.gpus // size)


_STEPS: Final[tuple[Step, ...]] = (
    *(
        _shapes,
        _vocabulary,
        _windows,
        _experts,
        _stages,
        _recompute,
        _sharding,
        _precision,
        _software,
        _batch,
    ),
)


def _numbers(text: str) -> list[int]:
    """The whole numbers of a text such as ``127,0`` or ``(127, 0)``; none where other words stand in it."""
    words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return [int(word) for word in words] if all(word.lstrip("-").isdecimal() for word in words) else []


def _pattern(text: str) -> list[int]:
    """A list of numbers written with ``[…]``, ``+`` and ``*``, or one number; empty where it is none."""

    def value(node: ast.expr) -> list[int]:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return [int(node.value)]
        if isinstance(node, ast.List):
            return [number for item in node.elts for number in value(item)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return value(node.left) + value(node.right)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            left, right = value(node.left), value(node.right)
            return left * min(right[0], 10_000) if len(right) == 1 else []
        return []

    try:
        return value(ast.parse(text.strip("\"' "), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError, ValueError):
        return []
