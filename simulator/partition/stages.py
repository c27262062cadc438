"""Which layers does each virtual stage hold?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What one virtual stage holds, in model order."""

    embedding: bool = False
    layers: tuple[int, ...] = ()  # indices into the model's layers
    mtp: int = 0  # multi-token-prediction layers
    loss: bool = False  # final norm, LM head and loss


def split_stages(
    num_layers: int, pp: int, vp: int = 1, split: str = "equal", *, mtp_layers: int = 0
) -> tuple[Chunk, ...]:
    """The chunk of each virtual stage, pp·vp of them in model order.

    Args:
        num_layers: transformer layers of the model, without MTP layers.
        split: ``equal`` or ``embedding-and-loss-as-layers``.
        mtp_layers: held by the last virtual stage.

    Raises:
        ValueError: the split does not fit, with the rule and the nearest valid choice.
    """
    stages = pp * vp
    counts = (
        _equal(num_layers, stages) if split == "equal" else _embedding_and_loss_as_layers(num_layers, stages)
    )
    return _chunks(counts, mtp_layers)


def _equal(num_layers: int, stages: int) -> list[int]:
    if num_layers % stages:
        raise ValueError(
            f"an equal split needs the layers ({num_layers}) to be a multiple of pp·vp = {stages}; "
            f"the nearest pp·vp that fits is {_nearest_divisor(num_layers, stages)}"
        )
    return [num_layers // stages] * stages


def _embedding_and_loss_as_layers(num_layers: int, stages: int) -> list[int]:
    units = num_layers + 2
    if units % stages:
        raise ValueError(
            f"with embedding and loss counted as layers, layers + 2 ({units}) must be a multiple of pp·vp = {stages}; "
            f"the nearest pp·vp that fits is {_nearest_divisor(units, stages)}"
        )
    counts = [units // stages] * stages
    counts[0] -= 1
    counts[-1] -= 1
    return counts


def _chunks(counts: list[int], mtp_layers: int) -> tuple[Chunk, ...]:
    last = len(counts) - 1
    starts = [sum(counts[:s]) for s in range(len(counts))]
    return tuple(
        Chunk(
            embedding=s == 0,
            layers=tuple(range(starts[s], starts[s] + counts[s])),
            mtp=mtp_layers if s == last else 0,
            loss=s == last,
        )
        for s in range(len(counts))
    )


def _nearest_divisor(number: int, near: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: (abs(d - near), d))
