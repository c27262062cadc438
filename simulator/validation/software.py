"""What a generation of training software does that a row of a table does not say.

Keyed by generation, never by who measured what. The first pattern that a row's software text matches decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from simulator.spec.run import ContextMethod


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Defaults of one generation of software; what a row states goes first.

    ``runtime`` are fields of :class:`simulator.spec.run.Runtime`.
    """

    name: str
    pattern: str  # of the software text, case ignored
    source: str
    runtime: Mapping[str, object] = field(default_factory=dict)
    grad_dtype: str = ""  # "": fp32
    zero: int = 1
    microbatches_as_stages: bool = False  # a local batch is cut into as many as there are pipeline ranks
    sharding: str = ""  # by what, where zero is 3: fsdp1, fsdp2, megatron-fsdp
    cp_method: ContextMethod = "ring"  # how ranks that share sequences meet
    fp8_params: bool = False  # parameters are kept and gathered in fp8 where linear layers run in it


_MEGATRON_2022: Mapping[str, object] = {
    "attention": "unfused",  # before fused attention kernels
    "overlap_p2p": False,  # every exchange is awaited
    "scatter_gather": True,  # default without sequence parallelism
    "average_in_collective": False,  # gradients are divided in a pass of their own
    "overlap_grad_reduce": False,  # its own DistributedDataParallel reduces after the backward
    "overlap_param_gather": False,
}
_MEGATRON_2021: Mapping[str, object] = {
    **_MEGATRON_2022,
    # asynchronous all-reduce and fused accumulation came in late 2021 and 2022
    "tp_dgrad_overlap": False,
    "gradient_accumulation_fusion": False,
}

_TORCHTITAN: Mapping[str, object] = {
    "software": "compiled",
    "attention": "flash2",
    "gradient_accumulation_fusion": False,
    "tp_dgrad_overlap": False,
    "tp_batch_first": True,
    "expandable_segments": True,  # its launch script sets PYTORCH_CUDA_ALLOC_CONF
}

GENERATIONS = (
    Generation(
        name="Megatron-LM of 2021",
        pattern=r"megatron-lm.*2021|megatron-deepspeed",
        source="NVIDIA/Megatron-LM v2.x and its fork in Megatron-DeepSpeed",
        runtime=_MEGATRON_2021,
        grad_dtype="params",
        zero=0,
    ),
    Generation(
        name="Megatron-LM of 2022",
        pattern=r"megatron-lm.*2022",
        source="NVIDIA/Megatron-LM v3.0",
        runtime=_MEGATRON_2022,
        grad_dtype="params",
        zero=0,
    ),
    Generation(
        name="llm-foundry",
        pattern=r"llm-foundry|composer",
        source="mosaicml/llm-foundry of 2023: PyTorch FSDP, autograd's own weight gradients; its defaults are"
        " attn_impl: triton (FlashAttention in Triton) and loss_fn: fused_crossentropy",
        runtime={
            "software": "eager",
            "attention": "triton",
            "cross_entropy_fusion": True,
            "gradient_accumulation_fusion": False,
            "tp_dgrad_overlap": False,
        },
        zero=3,
        sharding="fsdp1",
    ),
    Generation(
        name="torchtitan of 2024",
        pattern=r"torchtitan.*2024",
        source="pytorch/torchtitan: torch.compile of every layer; the loss is not compiled (`loss.py`)",
        runtime={**_TORCHTITAN, "loss_compilation": False},
        microbatches_as_stages=True,  # pipeline_parallel_microbatches of its job_config.py, left out
        zero=3,
        sharding="fsdp2",
        cp_method="torch-ring",
    ),
    Generation(
        name="torchtitan",
        pattern=r"torchtitan",
        source="pytorch/torchtitan: FSDP2, DTensor TP, autograd's own weight gradients; PyTorch's"
        " scaled_dot_product_attention takes FlashAttention-2 on Hopper",
        runtime=_TORCHTITAN,
        zero=3,
        sharding="fsdp2",
        cp_method="torch-ring",
    ),
    Generation(
        name="PyTorch",
        pattern=r"^pytorch",
        source="PyTorch alone: scaled_dot_product_attention, autograd's own weight gradients, fused AdamW on"
        " fp32 parameters under bf16 autocast (calibration.measure.torch_steps)",
        runtime={
            "software": "eager",
            "attention": "flash2",
            "gradient_accumulation_fusion": False,
            "tp_dgrad_overlap": False,
            "optimizer_fusion": True,
        },
        zero=3,
        sharding="fsdp2",
    ),
    Generation(
        name="NeMo 2",
        pattern=r"^nemo 25\.",
        source="NVIDIA NeMo 2 (nemo_toolkit 2.3.0; assumed of 2.1, 2.2): GPTConfig fuses the cross entropy,"
        " the fp8 recipes with per-tensor scales set fp8_param_gather; gradients as before",
        runtime={"cross_entropy_fusion": True},
        grad_dtype="params",
        fp8_params=True,
    ),
    Generation(
        name="NeMo",
        pattern=r"^nemo (24\.|1\.)",
        source="NVIDIA NeMo: gradients are kept and reduced in bf16 (grad_sync_dtype of its GPT recipes,"
        " grad_reduce_in_fp32=False of its performance scripts)",
        grad_dtype="params",
    ),
    Generation(
        name="Megatron-Bridge",
        pattern=r"^nemo container",
        source="NVIDIA-NeMo/Megatron-Bridge: its fp8 mixed-precision recipes set fp8_param_gather; all"
        " performance recipes keep gradients in bf16 and take Transformer Engine's cross entropy, those with"
        " experts fuse the router (perf_recipes of v0.6.0; assumed of the releases before)",
        runtime={
            "cross_entropy_fusion": True,
            "cross_entropy_fusion_impl": "te",
            "moe_router_fusion": True,
        },
        grad_dtype="params",
        fp8_params=True,
    ),
    Generation(
        name="Megatron-Core",
        pattern=r"",
        source="NVIDIA/Megatron-LM core and NeMo, the defaults of simulator.spec.run.Runtime",
    ),
)


def generation_of(software: str) -> Generation:
    """The generation that a software text names; Megatron-Core where none matches."""
    return next(known for known in GENERATIONS if re.search(known.pattern, software, re.IGNORECASE))
