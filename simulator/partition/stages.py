"""Which layers does each virtual stage hold?

A split is one of the names below, layer counts, or a Megatron layout string. Virtual stage s is chunk s
// pp of device s mod pp where the placement is looped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import accumulate

from simulator.spec.stage_layout import LAYOUT_CHARACTERS, parse_layout
from simulator.spec.stage_split import ENDS, NAMED_SPLITS, layer_counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What one virtual stage holds, in model order."""

    embedding: bool = False
    layers: tuple[int, ...] = ()  # indices into the model's layers
    mtp: int = 0  # multi-token-prediction layers
    loss: bool = False  # final norm, LM head and loss


def split_stages(
    num_layers: int, pp: int, vp: int = 1, split: str | Sequence[int] = "equal", *, mtp_layers: int = 0
) -> tuple[Chunk, ...]:
    """The chunk of each virtual stage, pp·vp of them in model order.

    Args:
        num_layers: transformer layers of the model, without MTP layers.
        pp: devices of the pipeline.
        vp: chunks per device.
        split: of :func:`simulator.spec.stage_split.layer_counts`, or a layout string such as
            ``Et*2|(t*2|)*34,t*3|(t*2|)*3,tL`` (Megatron's ``pipeline_model_parallel_layout``).
        mtp_layers: multi-token-prediction layers; on the last virtual stage unless a layout places them.

    Raises:
        ValueError: the split does not fit, with the rule and the nearest valid choice.
    """
    if not isinstance(split, str) or split in NAMED_SPLITS or split.startswith(ENDS):
        return _chunks(layer_counts(num_layers, pp, vp, split), mtp_layers)
    if split and set(split) <= LAYOUT_CHARACTERS:
        return _from_layout(num_layers, pp, vp, split, mtp_layers)
    near = get_close_matches(split, NAMED_SPLITS, n=1)
    raise ValueError(
        f"unknown stage split {split!r}; {f'did you mean {near[0]}? ' if near else ''}"
        f"Allowed: {', '.join(NAMED_SPLITS)}, first=a,last=b, a list of layer counts, "
        "or a layout string such as Et|(t*2|)*6tL"
    )


def _from_layout(num_layers: int, pp: int, vp: int, layout: str, mtp_layers: int) -> tuple[Chunk, ...]:
    stages = parse_layout(layout)
    for what, found, wanted in (
        ("stages (separated by |)", len(stages), pp * vp),
        ("layers (t)", sum(s.count("t") for s in stages), num_layers),
        ("MTP layers (m)", sum(s.count("m") for s in stages), mtp_layers),
    ):
        if found != wanted:
            raise ValueError(f"layout {layout!r} has {found} {what}, but pp·vp and the model need {wanted}")
    ends = list(accumulate(s.count("t") for s in stages))
    return tuple(
        Chunk(
            embedding="E" in stage,
            layers=tuple(range(end - stage.count("t"), end)),
            mtp=stage.count("m"),
            loss="L" in stage,
        )
        for stage, end in zip(stages, ends, strict=True)
    )


def _chunks(counts: list[int], mtp_layers: int) -> tuple[Chunk, ...]:
    last = len(counts) - 1
    return tuple(
        Chunk(
            embedding=s == 0,
            layers=tuple(range(end - counts[s], end)),
            mtp=mtp_layers if s == last else 0,
            loss=s == last,
        )
        for s, end in enumerate(accumulate(counts))
    )


def layout_text(chunks: Sequence[Chunk]) -> str:
    """Chunks as a layout string, the inverse of :func:`split_stages`."""
    return "|".join(
        "E" * chunk.embedding
        + (f"t*{len(chunk.layers)}" if len(chunk.layers) > 1 else "t" * len(chunk.layers))
        + "m" * chunk.mtp
        + "L" * chunk.loss
        for chunk in chunks
    )
