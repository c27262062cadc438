"""The outcome of a validation, and its stable JSON form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from simulator.validation.baseline import constant_hfu_errors
from simulator.validation.predict import Prediction, Refused
from simulator.validation.ranking import choices
from simulator.validation.scores import Score, counts, score, split
from simulator.validation.sustained import ClassFactor

Cell = tuple[str, str, str]  # collection, device, dense or MoE


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Predictions of all rows that can be predicted, and the others.

    ``protocol`` says what the predictions had seen: ``shipped`` coefficients, or a factor fitted without the
    row's group or collection. ``transferred`` are the rows whose factor comes from other devices.
    """

    protocol: str
    predictions: Sequence[Prediction]
    refused: Sequence[Refused]
    transferred: frozenset[str] = frozenset()
    factors: Mapping[str, float] = field(default_factory=dict)  # run_id -> factor

    @property
    def counted(self) -> list[Prediction]:
        """The predictions that are evidence."""
        return [p for p in self.predictions if counts(p)]

    @property
    def uncounted(self) -> list[Prediction]:
        """Predictions of rows whose recipe is not fully known."""
        return [p for p in self.predictions if not counts(p)]

    def cells(self) -> dict[Cell, list[Prediction]]:
        """Counted predictions by collection, device and kind of model."""
        return split(self.counted, cell)

    def baseline(self) -> dict[str, float]:
        """run_id -> error of the constant-HFU predictor on the counted rows."""
        return constant_hfu_errors(self.counted, leave_out_group=self.protocol != "shipped")

    def reasons(self, *, confidence: str = "high") -> Counter[str]:
        """How many rows of a confidence each reason keeps from being predicted; a row may have several."""
        return Counter(
            reason
            for row in self.refused
            if row.row.identity.confidence == confidence
            for reason in dict.fromkeys(row.reasons)
        )

    def to_dict(self) -> dict[str, Any]:
        """The stable JSON form. Times in seconds, errors relative, memory in bytes."""
        return {
            "protocol": self.protocol,
            "overall": self._overall(),
            "groups": [
                {"group": group, **score(rows).to_dict()}
                for group, rows in split(self.counted, lambda p: p.row.identity.group).items()
            ],
            "cells": [
                {"collection": key[0], "device": key[1], "kind": key[2], **score(rows).to_dict()}
                for key, rows in self.cells().items()
            ],
            "rows": [self._row(p) for p in self.predictions],
            "not_predicted": [
                {
                    "run_id": refused.row.run_id,
                    "group": refused.row.identity.group,
                    "confidence": refused.row.identity.confidence,
                    "reasons": list(refused.reasons),
                }
                for refused in self.refused
            ],
        }

    def _overall(self) -> dict[str, Any]:
        counted = self.counted
        baseline = np.abs(list(self.baseline().values()))
        parts = {
            "all": counted,
            "dense": [p for p in counted if not p.row.is_moe],
            "moe": [p for p in counted if p.row.is_moe],
            "medium_and_low_confidence": self.uncounted,
        }
        ranked = choices(self.predictions)
        high = sum(refused.row.identity.confidence == "high" for refused in self.refused)
        return {
            "rows_predicted": len(counted),
            "rows_not_predicted": high,
            "layout_choices": {
                "sets": len(ranked),
                "good": sum(choice.good for choice in ranked),
                "worst_loss": max((choice.loss for choice in ranked), default=None),
            },
            **{name: _both(rows) for name, rows in parts.items()},
            "constant_hfu": {
                "rows": len(baseline),
                "median": float(np.median(baseline)) if len(baseline) else None,
                "p90": float(np.quantile(baseline, 0.9)) if len(baseline) else None,
            },
        }

    def _row(self, p: Prediction) -> dict[str, Any]:
        measured = p.row.measured
        return {
            "run_id": p.row.run_id,
            "group": p.row.identity.group,
            "collection": p.row.identity.collection,
            "device": p.device,
            "kind": cell(p)[2],
            "confidence": p.row.identity.confidence,
            "measured": p.measured_s,
            "predicted": p.predicted_s,
            "error": p.error,
            "interval": list(p.interval_s),
            "inside": p.inside,
            "predicted_peak_memory_bytes": p.peak_memory_bytes,
            "measured_peak_memory_bytes": measured.peak_memory_bytes,
            "memory_basis": measured.memory_basis,
            "sustained": self.factors.get(p.row.run_id, 1.0),
            "transferred": p.row.run_id in self.transferred,
            "breakdown_s": dict(p.breakdown_s),
            "assumed": p.assumed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossValidation:
    """The outcomes by protocol, and the factors of all rows together (for profiles to ship, no score)."""

    protocols: Mapping[str, Validation]
    class_factors: Sequence[ClassFactor]

    def to_dict(self) -> dict[str, Any]:
        """The stable JSON form."""
        return {
            **{name: validation.to_dict() for name, validation in self.protocols.items()},
            "class_factors_fitted_on_all_rows": [asdict(factor) for factor in self.class_factors],
        }


def cell(prediction: Prediction) -> Cell:
    """Where a prediction stands in the table."""
    kind = "MoE" if prediction.row.is_moe else "dense"
    return prediction.row.identity.collection, prediction.device, kind


def memory_errors(predictions: Sequence[Prediction], basis: str) -> list[float]:
    """predicted / measured − 1 of the peak memory, where it was measured as ``allocated`` or ``reserved``."""
    return [
        p.peak_memory_bytes / p.row.measured.peak_memory_bytes - 1.0
        for p in predictions
        if p.row.measured.peak_memory_bytes and p.row.measured.memory_basis == basis
    ]


def _both(rows: Sequence[Prediction]) -> dict[str, dict[str, float] | None]:
    def scored(by_group: bool) -> Score | None:
        return score(rows, by_group=by_group) if rows else None

    per_row, per_group = scored(False), scored(True)
    return {
        "per_row": per_row.to_dict() if per_row else None,
        "per_group": per_group.to_dict() if per_group else None,
    }
