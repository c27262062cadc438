"""What a rank's memory holds beside its tensors: workspaces, the CUDA context, communicators' buffers.

Workspaces are PyTorch tensors and count as allocated; the rest is outside PyTorch's allocator.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.graph.transformer import ACTIVATION_BYTES
from simulator.schedule.definition import Schedule
from simulator.spec.run import RunSpec

KIB, MIB = 2**10, 2**20

LARGE_WORKSPACE = ("hopper", "blackwell")
CUBLAS_WORKSPACE = 32 * MIB
"""Of a handle and stream, from Hopper on (``getChosenWorkspaceSize`` of ``CublasHandlePool.cpp``)."""
CUBLAS_WORKSPACE_BEFORE = (2 * 4096 + 8 * 16) * KIB
TRANSFORMER_ENGINE_WORKSPACE = 32 * MIB
"""From Hopper on: ``get_cublas_workspace_size_bytes`` of Transformer Engine's ``module/base.py``."""
TRANSFORMER_ENGINE_WORKSPACE_BEFORE = 4 * MIB

CONTEXT = 0.5 * 2**30
"""CUDA context with kernels loaded as they are used: nvidia-smi shows 0.4 to 0.6 GB before the first tensor
on A100 and H100, as publicly reported; not re-checked."""

CHANNELS = 24
"""Of a communicator in an NVSwitch node of H100 or A100 ("24 coll channels" in NCCL's log)."""
CONNECTION = 4 * MIB + 120 * 640 * 8 * 8 + 8 * 512 * 8 * 16
"""A channel's receive buffers, one per protocol: Simple ``NCCL_BUFFSIZE``; LL128 elements per thread ×
threads × steps × 8 bytes; LL lines per thread × threads × steps × 16 bytes (``src/include/device.h``)."""

DEEPEP_CHANNELS = 10
"""Of DeepEP's 20 processors, two serve a channel (``Buffer.num_sms`` of ``deep_ep/buffer.py``)."""
DEEPEP_PEERS = 8  # reached over NVLink (``NUM_MAX_NVL_PEERS``)
DEEPEP_NVLINK_ROWS, DEEPEP_RDMA_ROWS = 288, 128
"""Rows that a channel's queues hold for a peer on 16 to 64 ranks (``Buffer.get_dispatch_config``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheads:
    """Bytes on every rank, and how PyTorch's allocator reserves."""

    workspace: float
    context: float
    communication: float
    messages: int = 0  # boundary activations under way beside those counted with their layer
    expandable: bool = False


def overheads(run: RunSpec, schedule: Schedule) -> Overheads:
    """What the ranks of a run under a schedule hold beside their tensors."""
    large = run.cluster.device.architecture in LARGE_WORKSPACE
    workspace = CUBLAS_WORKSPACE if large else CUBLAS_WORKSPACE_BEFORE
    if run.runtime.software == "megatron":
        workspace += TRANSFORMER_ENGINE_WORKSPACE if large else TRANSFORMER_ENGINE_WORKSPACE_BEFORE
    return Overheads(
        workspace=float(workspace),
        context=CONTEXT,
        communication=float(_communicators(run) * CHANNELS * CONNECTION) + _deepep_queues(run),
        messages=_messages(run, schedule),
        expandable=run.runtime.expandable_segments,
    )


def _communicators(run: RunSpec) -> int:
    """Groups of more than one rank; NCCL makes buffers for those in use, of the algorithm in use (rings)."""
    p = run.parallelism
    replicas, expert = run.dp * p.cp, run.gpus // (p.pp * p.ep * (p.etp or p.tp)) if run.model.is_moe else 1
    groups = [p.tp, p.cp, p.pp, replicas, p.ep, expert]
    if run.model.is_moe and p.etp not in (0, p.tp):
        groups.append(p.etp)
    return sum(size > 1 for size in groups)


def _deepep_queues(run: RunSpec) -> float:
    """Receive queues over NVLink, and send and receive queues over RDMA where experts span nodes.

    The size hints of DeepEP's ``csrc/config.hpp`` without their metadata, which is a hundredth.
    """
    ranks = run.parallelism.ep
    if not run.model.is_moe or ranks == 1 or run.runtime.moe_dispatcher != "deepep":
        return 0.0
    row, nodes = run.model.hidden_size * ACTIVATION_BYTES, ranks // DEEPEP_PEERS
    inside = min(ranks, DEEPEP_PEERS) * DEEPEP_NVLINK_ROWS
    across = 2 * nodes * DEEPEP_RDMA_ROWS if nodes > 1 else 0
    return DEEPEP_CHANNELS * (inside + across) * row


def _messages(run: RunSpec, schedule: Schedule) -> int:
    """Overlapped: an activation and a gradient arrive ahead while one of each leaves; else none waits."""
    if run.parallelism.pp == 1:
        return 0
    asked = run.runtime.overlap_p2p
    overlapped = schedule.default_overlap_p2p if asked is None else asked
    return 4 if overlapped else 0
