"""Whole training steps on one GPU: slices of models, a few layers deep, as rows that ``validate`` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from simulator.validation.published import (
    Architecture,
    Identity,
    Layout,
    Machine,
    Measured,
    PublishedRun,
    Recipe,
)
from simulator.validation.rows import read_rows, write_rows

SOFTWARE = "PyTorch"
WIDTHS = {"hidden_size", "intermediate_size", "moe_intermediate_size", "vocab_size"}
LLAMA = Architecture(
    model="llama-slice",
    num_hidden_layers=8,
    hidden_size=4096,
    intermediate_size=14336,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    vocab_size=32768,
    gated_mlp=True,
    attention_type="gqa",
)
GPT = Architecture(
    model="gpt-slice",
    num_hidden_layers=8,
    hidden_size=4096,
    intermediate_size=16384,
    num_attention_heads=32,
    num_key_value_heads=32,
    head_dim=128,
    vocab_size=51200,
    gated_mlp=False,
)
MOE = Architecture(
    model="moe-slice",
    num_hidden_layers=4,
    hidden_size=2048,
    intermediate_size=6144,
    num_attention_heads=32,
    num_key_value_heads=4,
    head_dim=128,
    vocab_size=32768,
    gated_mlp=True,
    num_experts=16,
    num_experts_per_tok=4,
    moe_intermediate_size=1024,
    attention_type="gqa",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One step to time: a model, a batch of ``micro_batch_size`` sequences, and how it is run."""

    architecture: Architecture
    seq_length: int
    micro_batch_size: int
    recompute: bool
    compiled: bool

    def row(self, hardware: str, source: str, measured: Measured) -> PublishedRun:
        """The measurement in the form of the published ones."""
        model, b = self.architecture.model, self.micro_batch_size
        traits = "-full" * self.recompute + ("-compiled" if self.compiled else "-eager")
        return PublishedRun(
            identity=Identity(
                run_id=f"{source}-{hardware}-{model}-seq{self.seq_length}-mbs{b}{traits}",
                group=f"{model}@{hardware}@{source}",
                collection=source,
                confidence="high",
                source=source,
                software=SOFTWARE,
            ),
            machine=Machine(hardware=hardware, gpus=1, gpus_per_node=1),
            architecture=self.architecture,
            layout=Layout(
                seq_length=self.seq_length,
                global_batch_size=b,
                micro_batch_size=b,
                tp=1,
                sequence_parallel=False,
                pp=1,
                vp=1,
                cp=1,
                ep=1,
                dp=1,
                zero=3,
                sharding="fsdp2",
            ),
            recipe=Recipe(
                optimizer="adamw",
                recompute="full" if self.recompute else "none",
                compiled=self.compiled,
                balanced_routing=True if self.architecture.num_experts else None,
            ),
            measured=measured,
        )


def slices(*, tiny: bool = False) -> Iterator[Slice]:
    """What to measure: each model at two lengths, with and without recompute and compilation."""
    for compiled, recompute, model, (length, batch) in product(
        (False, True), (False, True), (LLAMA, GPT, MOE), ((4096, 2), (8192, 1))
    ):
        found = Slice(
            architecture=model,
            seq_length=length,
            micro_batch_size=batch,
            recompute=recompute,
            compiled=compiled,
        )
        if not tiny:
            yield found
        elif batch == 1 and not compiled:  # compiling takes minutes on a CPU
            yield replace(found, architecture=_tiny(model), seq_length=64)


def measure_steps(
    pieces: Sequence[Slice],
    time_step: Callable[[Slice], Measured],
    path: Path,
    hardware: str,
    source: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Time the slices that the table at ``path`` lacks, each row kept as it comes; returns how many were."""
    rows = read_rows(path) if path.exists() else []
    known, before = {row.run_id for row in rows}, len(rows)
    for index, piece in enumerate(pieces):
        progress(index, len(pieces))
        if piece.row(hardware, source, Measured()).run_id not in known:
            rows.append(piece.row(hardware, source, time_step(piece)))
            write_rows(rows, path)
    progress(len(pieces), len(pieces))
    return len(rows) - before


def _tiny(model: Architecture) -> Architecture:
    """The same model, narrow and shallow: a rehearsal."""
    narrow = {name: size // 64 for name in WIDTHS if (size := getattr(model, name))}
    return replace(
        model, **narrow, num_hidden_layers=2, head_dim=16, num_attention_heads=4, num_key_value_heads=2
    )
