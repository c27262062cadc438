"""The protocols: shipped coefficients, and factors fitted without the rows they are scored on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulator.cost.sustained import Sustained
from simulator.validation.predict import Expressed, Prediction, Refused, Simulations, express
from simulator.validation.published import PublishedRun
from simulator.validation.report import CrossValidation, Validation
from simulator.validation.sustained import PROBES, Probed, class_factors, devices_of, left_out

LEFT_OUT: dict[str, Callable[[Prediction], str]] = {
    "leave-one-group-out": lambda p: p.row.identity.group,
    "leave-one-source-out": lambda p: p.row.identity.collection,
    "leave-one-device-out": lambda p: p.device,
}


def validate(rows: Sequence[PublishedRun], simulations: Simulations | None = None) -> Validation:
    """Predictions of all rows with the coefficients that ship."""
    accepted, refused = express(rows)
    predictions, failed = (simulations or Simulations()).predict(accepted, what="shipped coefficients")
    return Validation(protocol="shipped", predictions=predictions, refused=[*refused, *failed])


def cross_validate(rows: Sequence[PublishedRun], simulations: Simulations | None = None) -> CrossValidation:
    """Predictions of the rows that count with one factor per device and precision class, by protocol.

    ``leave-one-group-out`` fits on all other groups, ``leave-one-source-out`` on the tables of others,
    ``leave-one-device-out`` takes siblings' factors: what can be said before the device is measured.
    Every number reported is a simulation at the factor, not an interpolation.
    """
    simulations = simulations or Simulations()
    accepted, refused = express(row for row in rows if row.identity.confidence == "high")
    probed, failed = probe(accepted, simulations)
    devices = devices_of(accepted)
    outcomes = {}
    for protocol, held_together in LEFT_OUT.items():
        factors = left_out(probed, held_together, devices)
        values = {run_id: factor.sustained for run_id, factor in factors.items()}
        known = [item for item in accepted if item.row.run_id in values]
        predictions, lost = simulations.predict(known, values, protocol)
        outcomes[protocol] = Validation(
            protocol=protocol,
            predictions=predictions,
            refused=[*refused, *failed, *lost],
            transferred=frozenset(run_id for run_id, factor in factors.items() if factor.transferred),
            factors={run_id: factor.sustained.factor for run_id, factor in factors.items()},
        )
    return CrossValidation(protocols=outcomes, class_factors=class_factors(probed, devices))


def probe(accepted: Sequence[Expressed], simulations: Simulations) -> tuple[list[Probed], list[Refused]]:
    """Every row simulated at every probe; and the rows that fail at one, which are left out."""
    by_probe, failed = [], dict[str, Refused]()
    for factor in PROBES:
        factors = {item.row.run_id: Sustained(factor, 0.0) for item in accepted}
        predictions, lost = simulations.predict(accepted, factors, f"rates times {factor:g}")
        by_probe.append({p.row.run_id: p for p in predictions})
        failed |= {refused.row.run_id: refused for refused in lost}
    first, *others = by_probe
    probed = [
        Probed(
            prediction=prediction,
            seconds=(prediction.predicted_s, *(other[run_id].predicted_s for other in others)),
        )
        for run_id, prediction in first.items()
        if run_id not in failed
    ]
    return probed, list(failed.values())
