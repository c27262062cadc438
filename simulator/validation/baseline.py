"""The predictor to beat: every run of a device and precision class reaches the same hardware utilisation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from simulator.validation.predict import Prediction
from simulator.validation.scores import split, weighted_quantile

DeviceClass = tuple[str, str]

PRECISION_CLASSES = {"fp32": "fp32", "tf32": "tf32", "fp16": "16-bit", "bf16": "16-bit", "nvfp4": "4-bit"}


def device_class(prediction: Prediction) -> DeviceClass:
    """Device and the width of the numbers its tensor cores multiply."""
    precision = prediction.row.recipe.precision
    return prediction.device, PRECISION_CLASSES.get(precision, "8-bit")


def constant_hfu_errors(
    predictions: Sequence[Prediction], *, leave_out_group: bool = False
) -> dict[str, float]:
    """run_id -> error of the step time that the median HFU of its device and class gives.

    Groups have one vote each in the median. In-sample, it flatters the baseline; ``leave_out_group`` takes
    the median over the other groups, and leaves out rows of a class with a single group.
    """
    errors: dict[str, float] = {}
    for members in split(predictions, device_class).values():
        for group, rows in split(members, lambda p: p.row.identity.group).items():
            others = [p for p in members if p.row.identity.group != group] if leave_out_group else members
            if not others:
                continue
            constant = _median_hfu(others)
            errors |= {p.row.run_id: _hfu(p) / constant - 1.0 for p in rows}
    return errors


def _hfu(prediction: Prediction) -> float:
    """Hardware FLOP utilisation as measured, recompute counted."""
    return prediction.hardware_flops / (prediction.peak_flops * prediction.measured_s)


def _median_hfu(predictions: Iterable[Prediction]) -> float:
    members = list(predictions)
    sizes = Counter(p.row.identity.group for p in members)
    weights = np.array([1.0 / sizes[p.row.identity.group] for p in members])
    return weighted_quantile(np.array([_hfu(p) for p in members]), weights, 0.5)
