"""Does the prediction choose well? Layouts of one model, batch and machine that one source measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.validation.predict import Prediction
from simulator.validation.scores import split

WITHIN = 0.03  # of the measured best: as good as choosing it, since repeats differ by about as much


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One set of comparable rows. ``loss``: how much slower the predicted best is than the measured best."""

    best_measured: str
    best_predicted: str
    layouts: int
    loss: float

    @property
    def good(self) -> bool:
        """Whether the predicted best is the measured best, or nearly."""
        return self.loss <= WITHIN


def choices(predictions: Sequence[Prediction]) -> list[Choice]:
    """One choice for every set of at least two layouts."""
    found = []
    for rows in split(predictions, _comparable).values():
        if len({_layout(p) for p in rows}) < 2:
            continue
        best = min(rows, key=lambda p: p.measured_s)
        chosen = min(rows, key=lambda p: p.predicted_s)
        found.append(
            Choice(
                best_measured=best.row.run_id,
                best_predicted=chosen.row.run_id,
                layouts=len(rows),
                loss=chosen.measured_s / best.measured_s - 1.0,
            )
        )
    return found


def _comparable(p: Prediction) -> tuple[object, ...]:
    """Everything but the layout and the recipe: the same work on the same machine with the same software."""
    row = p.row
    return (
        row.identity.collection,
        row.identity.software,
        row.architecture,
        row.machine,
        row.layout.seq_length,
        row.layout.global_batch_size,
        row.recipe.precision,
    )


def _layout(p: Prediction) -> tuple[object, ...]:
    layout = p.row.layout
    return (
        *(layout.tp, layout.pp, layout.vp, layout.cp, layout.ep, layout.etp, layout.zero),
        *(layout.micro_batch_size, p.row.recipe.recompute, p.row.recipe.recompute_modules),
    )
