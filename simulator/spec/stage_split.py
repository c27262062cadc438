"""How many layers each virtual stage holds: splits by name, by their ends, and by numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

BALANCED = "balanced"  # a split made for the run's own layer times


def layer_counts(num_layers: int, pp: int, vp: int, split: str | Sequence[int]) -> list[int]:
    """Layers of each of pp·vp virtual stages, in model order.

    Args:
        num_layers: transformer layers of the model.
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
            numbers: layers of each virtual stage, or of each device (then equal over its vp chunks).

    Raises:
        ValueError: the split does not fit, with the rule and the nearest valid choice.
    """
    if not isinstance(split, str):
        counts = _explicit(num_layers, pp, vp, list(split))
    elif split.startswith(ENDS):
        counts = _first_last(num_layers, pp, vp, split)
    else:
        counts = NAMED_SPLITS[split](num_layers, pp * vp)
    if min(counts) < 0:
        raise ValueError(f"stage layer counts {counts} must not be negative; use fewer stages (pp·vp)")
    return counts


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


ENDS = ("first=", "last=")


def parse_ends(text: str) -> dict[str, int]:
    """``first=a,last=b``: layers of the first and last device, either of which may be left out.

    Raises:
        ValueError: it is written otherwise.
    """
    ends: dict[str, int] = {}
    for part in text.split(","):
        key, _, number = part.strip().partition("=")
        if key not in ("first", "last") or key in ends or not number.isdecimal():
            raise ValueError(
                f"stage split {text!r}: write first=a,last=b (either may be left out), a and b numbers"
            )
        ends[key] = int(number)
    return ends


def _first_last(num_layers: int, pp: int, vp: int, text: str) -> list[int]:
    """``first=a,last=b``: layers of the first and last device; the other devices share the rest."""
    ends = parse_ends(text)
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


def _require_multiple(number: int, of: int, what: str, divisor: str = "pp·vp") -> None:
    if number % of:
        near = min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: (abs(d - of), d))
        raise ValueError(
            f"{what} ({number}) must be a multiple of {divisor} = {of}; "
            f"the nearest {divisor} that fits is {near}"
        )
