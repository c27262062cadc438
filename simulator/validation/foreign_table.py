"""Tables with the columns that collections of published runs use: recipes in prose, sizes in GB and per cent.

Each prose column has a small vocabulary here. What the vocabulary does not know stays readable under
``other``, so that nothing is lost and nothing is guessed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping

Cells = Mapping[str, str]

# column of the project's form -> column of such a table, where the cell is taken over as it is
RENAMED = {
    **{
        name: name
        for name in ("run_id", "group", "confidence", "source", "source_location", "year", "software")
    },
    **{name: name for name in ("hardware", "gpus", "gpus_per_node", "interconnect", "model", "hidden_size")},
    **{name: name for name in ("head_dim", "vocab_size", "gated_mlp", "num_experts", "task", "precision")},
    **{name: name for name in ("tp", "pp", "vp", "cp", "ep", "etp", "dp", "optimizer", "ep_dispatcher")},
    **{name: name for name in ("step_time_s", "tokens_per_s_per_gpu", "tflops_per_gpu")},
    "num_hidden_layers": "num_layers",
    "intermediate_size": "ffn_hidden_size",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "num_experts_per_tok": "top_k",
    "moe_intermediate_size": "moe_ffn_hidden_size",
    "n_shared_experts": "shared_experts",
    "first_k_dense_replace": "dense_layers",
    "attention_type": "attention_type",
    "seq_length": "seq_len",
    "global_batch_size": "gbs",
    "micro_batch_size": "mbs",
    "sequence_parallel": "sp",
    "tp_overlap": "tp_comm_overlap",
    "ep_overlap": "ep_comm_overlap",
    "mfu": "mfu_reported",
}
# column of the project's form -> the prose or scaled column behind it, for messages
DERIVED = {"step_time_rounding": "step_time_rounding_pct", "peak_memory_bytes": "peak_memory_gb"}

COLUMNS = (
    *RENAMED.values(),
    *DERIVED.values(),
    *("params_b", "zero_stage_or_fsdp", "recompute", "activation_offload", "dp_overlap", "cuda_graphs"),
    *(
        "pipeline_schedule",
        "other",
        "step_time_basis",
        "tokens_basis",
        "flops_convention",
        "memory_basis",
        "notes",
    ),
)

CONVENTIONS = (
    ("megatron-bridge", "megatron"),
    ("dgxc grok", "megatron"),
    ("dgxc:", "dgxc"),
    ("6*n*t", "mosaic"),
    ("96*b*s*l*h^2", "narayanan-2021"),
    ("nemo 24.07", "megatron-full"),
    ("megatron-lm model flops", "megatron-full"),
)

STAGE_PARTS = {"embedding": "E", "decoder": "t", "mtp": "m", "loss": "L"}  # Megatron's letters


def translate(cells: Cells) -> dict[str, str]:
    """One row's cells in the project's columns. Malformed numbers pass unchanged, to be refused later."""
    own = {name: cells.get(column, "") for name, column in RENAMED.items()}
    own["collection"] = own["group"].rpartition("@")[2] or own["source"]
    for column, read in READERS.items():
        own |= read(cells.get(column, ""))
    own |= dict(_remarks(cells.get("other", "")))
    own["step_time_rounding"] = _scaled(cells.get("step_time_rounding_pct", ""), 0.01)
    own["peak_memory_bytes"] = _scaled(cells.get("peak_memory_gb", ""), 1e9)
    own["step_time_basis"] = _basis(cells.get("step_time_basis", ""))
    if "hybrid" in own["attention_type"]:
        own["attention_type"] = "hybrid"
    notes = cells.get("notes", "")
    if recipe := re.search(r"recipe (\S+) @ (Megatron-Bridge \S+?)[;,]?(?:\s|$)", notes):
        own["recipe_source"] = f"{recipe[2]} {recipe[1]}"
    if "embedding + loss are balanced over PP" in notes:
        own.setdefault("stage_layout", "embedding-and-loss-as-layers")
    return {name: value for name, value in own.items() if value}


def file_column(name: str) -> str:
    """The column of such a table behind one of the project's."""
    return RENAMED.get(name) or DERIVED.get(name) or name


def _scaled(text: str, factor: float) -> str:
    try:
        return f"{float(text) * factor:.12g}" if text else ""
    except ValueError:
        return text


def _basis(text: str) -> str:
    if "tokens/s" in text:
        return "tokens/s"
    if "TFLOP/s" in text:
        return "TFLOP/s"
    return "reported" if text else ""


def _sharding(text: str) -> dict[str, str]:
    low = text.lower()
    if not low:
        return {}
    if "no parameter reshard" in low or "shard_grad_op" in low:
        return {"zero": "2", "sharding": "fsdp1"}
    if "fsdp" in low:
        kind = "megatron-fsdp" if "megatron" in low else "fsdp2" if "fsdp2" in low else "fsdp1"
        return {"zero": "3", "sharding": kind}
    if found := re.match(r"zero-?([0-3])", low):
        return {"zero": found[1], "sharding": "distributed-optimizer"}
    if low.startswith(("ddp", "none")):
        return {"zero": "0", "sharding": "ddp"}
    return {"other": f"sharding: {text}"}


def _recompute(text: str) -> dict[str, str]:
    low = text.lower()
    if not low:
        return {}
    if low.startswith("none"):
        return {"recompute": "none"}
    if low.startswith("full"):
        return {"recompute": "full"}
    if "torchtitan selective" in low or "per-op" in low:
        return {"recompute": "selective", "recompute_modules": "per-op"}
    names = re.sub(r"^selective:?\s*|\(.*?\)", "", low).replace("rmsnorm", "layernorm")
    modules = [name.strip() for name in names.split("+") if name.strip()]
    return {"recompute": "selective", "recompute_modules": "+".join(modules or ["core_attn"])}


def _offload(text: str) -> dict[str, str]:
    if found := re.match(r"cpu_offload (\d+) layers", text):
        return {"offload_layers": found[1]}
    if text == "none":
        return {"offload_layers": "0"}
    return {"offload_modules": text.rpartition(":")[2].strip()} if text else {}


def _dp_overlap(text: str) -> dict[str, str]:
    reduce_, gather = (re.search(rf"{key}=(True|False)", text) for key in ("grad_reduce", "param_gather"))
    if reduce_ and gather:
        return {"overlap_grad_reduce": reduce_[1], "overlap_param_gather": gather[1]}
    if "prefetch" in text:
        return {"overlap_grad_reduce": "True", "overlap_param_gather": "True"}
    if text.startswith(("not overlapped", "off")):
        return {"overlap_grad_reduce": "False", "overlap_param_gather": "False"}
    if text.startswith("overlapped"):
        return {"overlap_grad_reduce": "True", "overlap_param_gather": "False"}
    return {}


def _graphs(text: str) -> dict[str, str]:
    if not text:
        return {}
    if text == "none":
        return {"cuda_graphs": "none"}
    if "full_iteration" in text:
        return {"cuda_graphs": "full"}
    modules = text.partition(":")[2] if text.startswith("transformer_engine") else ""
    return {"cuda_graphs": "layer", "cuda_graph_modules": modules}


def _schedule(text: str) -> dict[str, str]:
    known = ("interleaved-1f1b", "1f1b", "dualpipe", "gpipe")
    if "interleaved 1f1b" in text:
        return {"schedule": "interleaved-1f1b"}
    return {"schedule": text} if text in known else {}


def _convention(text: str) -> dict[str, str]:
    low = text.lower()
    return next(({"flops_convention": name} for mark, name in CONVENTIONS if low.startswith(mark)), {})


def _memory_basis(text: str) -> dict[str, str]:
    return {"memory_basis": "allocated" if "allocated" in text else "reserved"} if text else {}


READERS: dict[str, Callable[[str], dict[str, str]]] = {
    "zero_stage_or_fsdp": _sharding,
    "recompute": _recompute,
    "activation_offload": _offload,
    "dp_overlap": _dp_overlap,
    "cuda_graphs": _graphs,
    "pipeline_schedule": _schedule,
    "flops_convention": _convention,
    "memory_basis": _memory_basis,
}

REMARKS: tuple[tuple[str, str, str], ...] = (  # pattern -> column, cell
    (r"grad_reduce_fp32=False|.*mixed_precision=PURE.*", "grad_dtype", "bf16"),
    (r"grads accumulated/reduced in fp32|.*fp32 reduce\)", "grad_dtype", "fp32"),
    (r"moe_force_load_balancing=True", "balanced_routing", "True"),
    (r"embedding and loss counted as layers.*", "stage_layout", "embedding-and-loss-as-layers"),
    (r"mtp_num_layers=(\d+)", "num_nextn_predict_layers", r"\1"),
    (r"capacity factor (\d+).*", "capacity_factor", r"\1"),
    (r"unfused attention.*", "attention", "unfused"),
    (r"flash/triton attention", "attention", "flash"),
    (r"delay_wgrad", "delay_wgrad", "True"),
    (r"fp8_attention", "fp8_attention", "True"),
    (r".*fp8 (all-gather|param gather).*", "fp8_params", "True"),
    (r"precision_aware_optimizer", "precision_aware_optimizer", "True"),
    (r"torch\.compile", "compiled", "True"),
    (r"eager", "compiled", "False"),
    (r"overlap_p2p", "overlap_p2p", "True"),
    (r"synchronous PP p2p", "overlap_p2p", "False"),
    (r"rank mapping TP-PP-DP.*", "rank_order", "tp-cp-ep-pp-dp"),
    (r"rank mapping TP-CP-DP-PP.*", "rank_order", "tp-cp-ep-dp-pp"),
    (r"scatter/gather pipeline communication", "scatter_gather", "True"),
    (r"tied embeddings|grad accum \d+|autocast .*|no tp/pp/dp comm overlap|calculon encoding.*", "", ""),
)


def _remarks(text: str) -> Iterator[tuple[str, str]]:
    """Columns from a list of remarks separated by semicolons (commas between two short ones)."""
    unknown = []
    for remark in (part.strip() for part in re.split(r";", text)):
        if not remark:
            continue
        if remark.startswith("pp_layout="):
            yield "stage_layout", stage_notation(remark.removeprefix("pp_layout="))
            continue
        found = next(
            (
                (column, match.expand(cell))
                for pattern, column, cell in REMARKS
                if (match := re.fullmatch(pattern, remark, re.I))
            ),
            None,
        )
        if found is None:
            unknown.append(remark.replace("+", " and "))
        elif found[0]:
            yield found
    if unknown:
        yield "other", "+".join(unknown)


def stage_notation(text: str) -> str:
    """A pipeline layout in Megatron's letters, from them or from a list of lists of part names."""
    if not text.startswith("["):
        return text
    chunks = ast.literal_eval(text)
    return "|".join("".join(STAGE_PARTS[part] for part in chunk) for chunk in chunks)
