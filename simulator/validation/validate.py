"""The protocols: shipped coefficients, and factors fitted without the rows they are scored on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simulator.validation.predict import Expressed, Prediction, Refused, express, predict
from simulator.validation.published import PublishedRun
from simulator.validation.report import Validation
from simulator.validation.scores import counts
from simulator.validation.sustained import PROBES, Probed, architectures_of, left_out

LEFT_OUT: dict[str, Callable[[Prediction], str]] = {
    "leave-one-group-out": lambda p: p.row.identity.group,
    "leave-one-source-out": lambda p: p.row.identity.collection,
    "leave-one-device-out": lambda p: p.device,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where to tell how far a validation is: ``total`` rows to simulate, then ``done`` ones."""

    total: Callable[[str, int], None] = lambda what, rows: None
    done: Callable[[int], None] = lambda rows: None


def validate(
    rows: Sequence[PublishedRun], *, workers: int = 2, progress: Progress | None = None
) -> Validation:
    """Predictions of all rows with the coefficients that ship."""
    accepted, refused = express(rows)
    predictions, failed = _predicted("predicting", accepted, None, workers, progress or Progress())
    return Validation(protocol="shipped", predictions=predictions, refused=[*refused, *failed])


def cross_validate(
    rows: Sequence[PublishedRun], *, workers: int = 2, progress: Progress | None = None
) -> dict[str, Validation]:
    """Predictions of the rows that count with one factor per device and precision class, by protocol.

    ``leave-one-group-out`` fits on all other groups, ``leave-one-source-out`` on other collections,
    ``leave-one-device-out`` takes siblings' factors: what can be said before the device is measured.
    Every number reported is a simulation at the factor, not an interpolation.
    """
    progress = progress or Progress()
    counted = [row for row in rows if row.identity.confidence == "high"]
    accepted, refused = express(counted)
    probed, failed = _probed(accepted, workers, progress)
    architectures = architectures_of(accepted)
    outcomes = {}
    for protocol, held_together in LEFT_OUT.items():
        factors = left_out(probed, held_together, architectures)
        values = {run_id: factor.value for run_id, factor in factors.items()}
        known = [item for item in accepted if item.row.run_id in values]
        predictions, lost = _predicted(protocol, known, values, workers, progress)
        outcomes[protocol] = Validation(
            protocol=protocol,
            predictions=[p for p in predictions if counts(p)],
            refused=[*refused, *failed, *lost],
            transferred=frozenset(run_id for run_id, factor in factors.items() if factor.transferred),
            factors=values,
        )
    return outcomes


def _probed(
    accepted: Sequence[Expressed], workers: int, progress: Progress
) -> tuple[list[Probed], list[Refused]]:
    """Every row simulated at every probe; a row that fails at one is left out."""
    by_probe, failed = [], list[Refused]()
    for probe in PROBES:
        factors = {item.row.run_id: probe for item in accepted}
        predictions, lost = _predicted(f"probing {probe:g}", accepted, factors, workers, progress)
        by_probe.append({p.row.run_id: p for p in predictions})
        failed += lost
    first, *others = by_probe
    probed = [
        Probed(
            prediction=prediction,
            seconds=(prediction.predicted_s, *(other[run_id].predicted_s for other in others)),
        )
        for run_id, prediction in first.items()
        if all(run_id in other for other in others)
    ]
    return probed, failed


def _predicted(
    what: str,
    accepted: Sequence[Expressed],
    factors: dict[str, float] | None,
    workers: int,
    progress: Progress,
) -> tuple[list[Prediction], list[Refused]]:
    progress.total(what, len(accepted))
    return predict(accepted, factors, workers=workers, done=progress.done)
