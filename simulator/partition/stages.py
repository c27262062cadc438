"""Which layers does each virtual stage hold?

A split is one of the names below, layer counts, or a Megatron layout string. Virtual stage s is chunk s
// pp of device s mod pp where the placement is looped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import accumulate

from simulator.spec.stage_layout import LAYOUT_CHARACTERS, parse_layout


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
        split:
            ``equal``: the same number of layers everywhere;
            ``even``: as equal as can be, the layers left over one each on the first stages (PyTorch's rule);
            ``embedding-and-loss-as-layers`` (or ``embedding-as-layer``, ``loss-as-layer``): they take
            the place of a layer on the first and last stage (Megatron's
            ``account_for_{embedding,loss}_in_pipeline_split``);
            ``trimmed``: the same, as Llama 3 calls it (section 3.3.2: one layer fewer at either end);
            ``first=a,last=b``: a layers on the first device, b on the last, the rest equal (Megatron's
            ``decoder_first_pipeline_num_layers``, ``decoder_last_pipeline_num_layers``);
            numbers: layers of each virtual stage, or of each device (then equal over its vp chunks);
            a layout string such as ``Et*2|(t*2|)*34,t*3|(t*2|)*3,tL`` (Megatron's
            ``pipeline_model_parallel_layout``).
        mtp_layers: multi-token-prediction layers; on the last virtual stage unless a layout places them.

    Raises:
        ValueError: the split does not fit, with the rule and the nearest valid choice.
    """
    if not isinstance(split, str):
        return _chunks(_explicit(num_layers, pp, vp, list(split)), mtp_layers)
    name = split.strip()
    if name in NAMED_SPLITS:
        return _chunks(NAMED_SPLITS[name](num_layers, pp * vp), mtp_layers)
    if name.startswith(("first=", "last=")):
        return _chunks(_first_last(num_layers, pp, vp, name), mtp_layers)
    if name and set(name) <= LAYOUT_CHARACTERS:
        return _from_layout(num_layers, pp, vp, name, mtp_layers)
    near = get_close_matches(name, NAMED_SPLITS, n=1)
    raise ValueError(
        f"unknown stage split {split!r}; {f'did you mean {near[0]}? ' if near else ''}"
        f"Allowed: {', '.join(NAMED_SPLITS)}, first=a,last=b, a list of layer counts, "
        "or a layout string such as Et|(t*2|)*6tL"
    )


def _equal(num_layers: int, stages: int) -> list[int]:
    _require_multiple(num_layers, stages, "an equal split needs the layers")
    return [num_layers // stages] * stages


def _even(num_layers: int, stages: int) -> list[int]:
    return [num_layers // stages + (s < num_layers % stages) for s in range(stages)]


def _ends_as_layers(first: int, last: int) -> Callable[[int, int], list[int]]:
    """Equal units, of which the embedding takes ``first`` and the loss ``last`` in place of layers."""

    def counts(num_layers: int, stages: int) -> list[int]:
        units = num_layers + first + last
        what = " and ".join(["embedding"] * first + ["loss"] * last)
        _require_multiple(units, stages, f"with {what} counted as layers, layers + {first + last}")
        sizes = [units // stages] * stages
        sizes[0] -= first
        sizes[-1] -= last
        return sizes

    return counts


NAMED_SPLITS: dict[str, Callable[[int, int], list[int]]] = {
    "equal": _equal,
    "even": _even,
    "embedding-and-loss-as-layers": _ends_as_layers(1, 1),
    "embedding-as-layer": _ends_as_layers(1, 0),
    "loss-as-layer": _ends_as_layers(0, 1),
    "trimmed": _ends_as_layers(1, 1),
}
"""Splits by name: (layers, virtual stages) → layers of each virtual stage."""


def _explicit(num_layers: int, pp: int, vp: int, counts: list[int]) -> list[int]:
    """Layers per virtual stage from numbers per virtual stage or per device."""
    if len(counts) not in (pp, pp * vp):
        wanted = f"pp·vp = {pp * vp}" + (f" or pp = {pp}" if vp > 1 else "")
        raise ValueError(f"layer counts {counts}: give {wanted} numbers, not {len(counts)}")
    if any(n < 0 for n in counts) or sum(counts) != num_layers:
        raise ValueError(
            f"layer counts {counts} must be ≥ 0 and add up to {num_layers} layers, not {sum(counts)}"
        )
    return counts if len(counts) == pp * vp else _over_chunks(counts, vp)


def _over_chunks(per_device: list[int], vp: int) -> list[int]:
    """Each device's layers equally over its chunks."""
    for device, n in enumerate(per_device):
        _require_multiple(n, vp, f"layers of device {device}", "vp")
    return [n // vp for n in per_device] * vp


def _first_last(num_layers: int, pp: int, vp: int, text: str) -> list[int]:
    """``first=a,last=b``: layers of the first and last device; the other devices share the rest."""
    ends: dict[str, int] = {}
    for part in text.split(","):
        key, _, number = part.strip().partition("=")
        if key not in ("first", "last") or key in ends or not number.isdigit():
            raise ValueError(
                f"stage split {text!r}: write first=a,last=b (either may be left out), a and b numbers"
            )
        ends[key] = int(number)
    rest, others = num_layers - sum(ends.values()), pp - len(ends)
    if rest < 0 or (others <= 0 and rest):
        raise ValueError(
            f"stage split {text!r} leaves {rest} of {num_layers} layers for {max(others, 0)} devices"
        )
    if others > 0:
        _require_multiple(rest, others, f"with {text}, the layers left", "the devices left")
    per_device = [rest // others if others > 0 else 0] * pp
    per_device[0] = ends.get("first", per_device[0])
    per_device[-1] = ends.get("last", per_device[-1])
    return _over_chunks(per_device, vp)


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
    if min(counts) < 0:
        raise ValueError(f"stage layer counts {counts} must not be negative; use fewer stages (pp·vp)")
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


def _require_multiple(number: int, of: int, what: str, divisor: str = "pp·vp") -> None:
    if number % of:
        near = min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: (abs(d - of), d))
        raise ValueError(
            f"{what} ({number}) must be a multiple of {divisor} = {of}; "
            f"the nearest {divisor} that fits is {near}"
        )
