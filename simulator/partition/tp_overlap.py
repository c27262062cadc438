"""Products overlapped with their own tensor-parallel collectives: the chunked way to do both.

Transformer Engine's user buffers and PyTorch's async tensor parallelism (Wang 2023, "Overlap communication
with dependent computation via decomposition"). A gather before a product becomes a ring exchange: each rank
starts with the rows it has while its neighbours' rows arrive, one peer per chunk. A reduce-scatter after a
product becomes a pipeline: the product's rows are computed in chunks, each reduced while the next is
computed. What stays exposed is the first chunk's transfer or the last one's, and smaller products are less
efficient.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.graph.operators import Collective, Gemm, SendRecv
from simulator.partition.segment import COMPUTE, Step

PIPELINE_CHUNKS = 4  # Transformer Engine's default number of splits for a product and its reduce-scatter


def ring_exchange(
    gather: Collective, gemm: Gemm, ranks: int, start: int, ready: tuple[int, ...]
) -> tuple[Step, ...] | None:
    """Gather, then product, as ``ranks`` chunks; ``None`` where the rows do not divide.

    Copy engines move the chunks, so the products keep all processors. ``start`` is the position of the first
    step, ``ready`` what the input waits for.
    """
    if gemm.m % ranks:
        return None
    part = replace(gemm, m=gemm.m // ranks)
    message = SendRecv(name=f"{gather.name}.chunk", axis=gather.axis, size_bytes=gather.size_bytes / ranks)
    steps = [Step(part, COMPUTE, ready)]
    for _ in range(ranks - 1):
        steps.append(Step(message, gather.axis, ready, continues=True))
        steps.append(Step(part, COMPUTE, (start + len(steps) - 1,), continues=True))
    return tuple(steps)


def pipelined_reduction(
    gemm: Gemm, reduction: Collective, start: int, ready: tuple[int, ...]
) -> tuple[Step, ...] | None:
    """Product, then reduce-scatter, in chunks of rows; ``None`` where the rows do not divide."""
    chunks = PIPELINE_CHUNKS
    if gemm.m % chunks:
        return None
    part = replace(gemm, m=gemm.m // chunks)
    piece = replace(reduction, size_bytes=reduction.size_bytes / chunks)
    steps: list[Step] = []
    for index in range(chunks):
        reducing = (start + len(steps) - 1,) if index else ()
        before = () if index else ready
        steps.append(Step(part, COMPUTE, before, beside=reducing, continues=index > 0))
        steps.append(Step(piece, reduction.axis, (start + len(steps) - 1,), continues=True))
    return tuple(steps)
