"""The settings of a run for the programs that train: Megatron-LM flags, a DeepSpeed file, TorchTitan keys.

Names are those of Megatron-LM's ``arguments.py`` (core 0.12), DeepSpeed's configuration page and torchtitan's
``job_config.py``. What a program has no setting for is listed, not dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.interop.megatron.settings import flags_of
from simulator.spec.run import RunSpec

_TORCH_SCHEDULES = {
    "1f1b": "1F1B",
    "gpipe": "GPipe",
    "interleaved-1f1b": "Interleaved1F1B",
    "interleaved-zb": "InterleavedZeroBubble",
    "looped-bfs": "LoopedBFS",
    "zb-v": "ZBVZeroBubble",
    "dualpipev": "DualPipeV",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSettings:
    """A file for a program, and what of the run it cannot say."""

    program: str
    file_name: str
    text: str
    not_said: tuple[str, ...]


def launch_settings(run: RunSpec) -> tuple[LaunchSettings, ...]:
    """The run in the words of every program known here."""
    return (megatron_lm(run), deepspeed(run), torchtitan(run))


def megatron_lm(run: RunSpec) -> LaunchSettings:
    """Flags of ``pretrain_gpt.py`` behind ``torchrun``, as a shell snippet; ``stepcast import`` reads it."""
    flags, missing = flags_of(run)
    node = min(run.gpus, run.cluster.gpus_per_node)
    head = f"torchrun --nnodes {max(1, run.gpus // node)} --nproc-per-node {node} pretrain_gpt.py"
    body = " \\\n".join([head, *(f"    {flag}" for flag in flags), '    "$@"'])
    about = f"#!/bin/sh\n# {_title(run)}. Add the data, tokenizer and checkpoint flags.\n"
    text = f"{about}{_comments(missing)}{body}\n"
    return LaunchSettings(
        program="Megatron-LM", file_name="megatron-lm.sh", text=text, not_said=tuple(missing)
    )


def deepspeed(run: RunSpec) -> LaunchSettings:
    """The JSON file of ``deepspeed.initialize``."""
    p, t = run.parallelism, run.training
    config: dict[str, Any] = {
        "train_batch_size": t.global_batch_size,
        "train_micro_batch_size_per_gpu": t.micro_batch_size,
        "gradient_accumulation_steps": run.microbatches,
        "zero_optimization": {
            "stage": p.zero,
            "overlap_comm": run.runtime.overlap_grad_reduce,
            "reduce_bucket_size": int(run.runtime.ddp_bucket_elements),
        },
        "data_types": {"grad_accum_dtype": t.grad_dtype},
    }
    if t.precision in ("bf16", "fp16"):
        config[t.precision] = {"enabled": True}
    if p.tp > 1:
        config["tensor_parallel"] = {"autotp_size": p.tp}
    if t.recompute.granularity != "none":
        config["activation_checkpointing"] = {"partition_activations": run.sequence_parallel}
    missing = _offloads(run)
    if p.pp > 1:
        missing.append(f"pipeline stages: PipelineModule(num_stages={p.pp}) in the training code")
    if p.cp > 1:
        missing.append(f"context parallelism: sequence_parallel_size={p.cp} in the training code (Ulysses)")
    if p.ep > 1:
        missing.append(f"expert parallelism: deepspeed.moe.layer.MoE(ep_size={p.ep}) in the training code")
    if p.vp > 1 or run.schedule not in ("1f1b", "interleaved-1f1b"):
        missing.append(f"the schedule {run.schedule}: DeepSpeed pipelines run 1F1B")
    if p.pp > 1 and p.zero > 1:
        missing.append(f"ZeRO stage {p.zero} with pipeline stages: DeepSpeed allows stage 1")
    if t.precision not in ("bf16", "fp16", "fp32"):
        missing.append(f"precision {t.precision}")
    if t.recompute.granularity != "none":
        missing.append(f"recompute {_recompute_words(run)}: checkpoints are set in the model's code")
    return LaunchSettings(
        program="DeepSpeed",
        file_name="deepspeed.json",
        text=json.dumps(config, indent=2) + "\n",
        not_said=tuple(missing),
    )


def torchtitan(run: RunSpec) -> LaunchSettings:
    """Sections and keys of torchtitan's job configuration, as TOML; newer releases take them in Python."""
    p, t = run.parallelism, run.training
    sharded = run.shard_size if p.zero == 3 else 1
    missing = _offloads(run)
    if p.zero in (1, 2):
        missing.append(f"ZeRO stage {p.zero}: torchtitan shards everything (stage 3) or nothing")
    if p.cp > 1 and p.cp_method != "torch-ring":
        missing.append(f"cp_method {p.cp_method}: torchtitan has PyTorch's ring (torch-ring)")
    if p.pp > 1 and run.schedule not in _TORCH_SCHEDULES:
        missing.append(f"the pipeline schedule {run.schedule}")
    if t.precision not in ("bf16", "fp32", "fp8", "mxfp8"):
        missing.append(f"precision {t.precision}")
    sections: dict[str, dict[str, Any]] = {
        "training": {
            "local_batch_size": t.global_batch_size // run.dp,
            "global_batch_size": t.global_batch_size,
            "seq_len": t.seq_length,
        },
        "parallelism": {
            "data_parallel_replicate_degree": run.dp * p.cp // sharded if p.zero == 3 else run.dp,
            "data_parallel_shard_degree": max(1, sharded // p.cp),
            "tensor_parallel_degree": p.tp,
            "context_parallel_degree": p.cp,
            "pipeline_parallel_degree": p.pp,
            "expert_parallel_degree": p.ep,
            "expert_tensor_parallel_degree": p.etp or p.tp,
            "enable_async_tensor_parallel": run.runtime.tp_overlap,
        },
        "activation_checkpoint": {"mode": t.recompute.granularity},
        "compile": {"enable": run.runtime.software == "compiled"},
    }
    if p.pp > 1:
        sections["parallelism"] |= {
            "pipeline_parallel_schedule": _TORCH_SCHEDULES.get(run.schedule, run.schedule),
            "pipeline_parallel_microbatch_size": t.micro_batch_size,
            "pipeline_parallel_layers_per_stage": run.model.num_hidden_layers // (p.pp * p.vp),
        }
    elif run.microbatches > 1:
        sections["training"]["local_batch_size"] = t.micro_batch_size
    text = "\n".join(_toml(sections))
    text = f"# {_title(run)}\n{_comments(missing)}{text}\n"
    return LaunchSettings(
        program="TorchTitan", file_name="torchtitan.toml", text=text, not_said=tuple(missing)
    )


def _offloads(run: RunSpec) -> list[str]:
    """What no program here says the same way."""
    found = []
    if run.training.activation_offload_layers:
        found.append(f"activations of {run.training.activation_offload_layers} layers kept on the host")
    for what in ("optimizer", "parameters"):
        home = getattr(run.parallelism.offload, what)
        if home != "device":
            found.append(f"{what} kept on {home}")
    if run.parallelism.tp_mode != "1d":
        found.append(f"{run.parallelism.tp_mode} tensor parallelism")
    if run.model.layers or run.model.bidirectional_layers:
        found.append(f"the model {run.model.name}, which is no decoder")
    return found


def _recompute_words(run: RunSpec) -> str:
    asked = run.training.recompute
    return asked.granularity + (f" ({', '.join(asked.modules)})" if asked.granularity == "selective" else "")


def _title(run: RunSpec) -> str:
    return f"{run.name or run.model.name} on {run.gpus} GPUs"


def _comments(missing: Sequence[str]) -> str:
    return "".join(f"# not said here: {what}\n" for what in missing)


def _toml(sections: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, keys in sections.items():
        yield f"[{name}]"
        for key, value in keys.items():
            yield f"{key} = {json.dumps(value)}"
        yield ""
