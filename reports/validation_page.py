"""The report of a validation: one HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reports.causes import causes
from reports.figures.canvas import inline_svg, save_all
from reports.figures.validation import figures
from reports.files import replacing
from reports.page import Section, figure, page, paragraph, points, table, tiles
from reports.quantities import digits, gibibytes
from reports.validation_scores import FIGURES, NAMES, TITLES, percent, score_lines, worst
from simulator.validation.ranking import WITHIN, choices
from simulator.validation.report import memory_errors
from simulator.validation.scores import score

if TYPE_CHECKING:
    from simulator.validation.predict import Prediction
    from simulator.validation.published import PublishedRun
    from simulator.validation.report import CrossValidation, Validation

WORST = 10
LEFT_OUT = "leave-one-group-out"
_CAPTIONS = {
    "scatter": "Every row of high confidence by its source; pale: recipe not fully known, so it does "
    "not count.",
    "errors": "Predicted over measured step time, minus one.",
    "left-out": "What the one fitted factor owes to having seen the rows.",
    "worst": "The predicted time of the ten worst rows by what the GPUs did or waited for. Where a bar ends "
    "short of the dashed line, so much of the measured step is not explained.",
}
_TITLES = {
    "scatter": "Predicted against measured step times",
    "errors": "Errors by device",
    "left-out": "Errors as shipped and with groups left out",
    "worst": "The ten worst rows",
}
_MAIN_CAUSES = 4


def write_validation_report(
    path: Path, validation: Validation, crossed: CrossValidation | None = None
) -> None:
    """Write the page. Raises OSError naming the file."""
    lines = [
        "Predicted step times beside published measurements of training runs.",
        "Errors are predicted / measured − 1, in percent. Rows of a group are one model on one machine.",
    ]
    foot = "only rows whose layout, batch and recipe are known count"
    text = page("How right is it?", lines, list(_sections(validation, crossed)), foot)
    with replacing(path) as stream:
        stream.write(text)


def write_validation_plots(
    folder: Path, validation: Validation, crossed: CrossValidation | None = None
) -> None:
    """Write NAME.png and NAME.svg for each figure into a folder, which is made if it is not there."""
    save_all(folder, figures(validation, _left_out(crossed), WORST))


def _left_out(crossed: CrossValidation | None) -> Validation | None:
    return crossed.protocols[LEFT_OUT] if crossed else None


def _sections(validation: Validation, crossed: CrossValidation | None) -> Iterator[Section]:
    drawn = {
        name: figure(inline_svg(picture, name, _TITLES[name]), _CAPTIONS[name])
        for name, picture in figures(validation, _left_out(crossed), WORST).items()
    }
    if not drawn:
        yield Section("headline", "Headline", paragraph("No row of high confidence is predicted."))
    else:
        yield Section("headline", "Headline", tiles(_headline(validation, crossed)))
        yield Section("scatter", "Every row", drawn["scatter"])
        yield Section("errors", "Errors by device", drawn["errors"])
        yield Section("sources", "By source", paragraph(TITLES["shipped"] + ".") + _scores(validation))
        if crossed is not None:
            yield Section("left-out", "Left out of the fit", drawn.get("left-out", "") + _protocols(crossed))
        yield Section("worst", "The ten worst", drawn["worst"] + _explained(validation))
    yield Section("memory", "Memory", _memory(validation))
    yield Section("choices", "Choice of layout", _choices(validation))
    yield Section("not-predicted", "Not predicted", _reasons(validation))


def _headline(validation: Validation, crossed: CrossValidation | None) -> Iterator[tuple[str, str, str]]:
    s = score(validation.counted)
    constant = np.abs(list(validation.baseline().values()))
    yield "Rows", f"{s.rows:,}", f"of high confidence, in {s.groups} groups"
    yield "Median error", f"{percent(s.median)} %", f"90th percentile {percent(s.p90)} %"
    yield "Bias", f"{100 * s.bias:+.1f} %", "median of the signed errors"
    yield "Inside p10 – p90", f"{100 * s.coverage:.0f} %", f"median width {percent(s.width)} % of the step"
    left_out = _left_out(crossed)
    if left_out is not None and left_out.counted:
        s = score(left_out.counted)
        yield "Group left out", f"{percent(s.median)} %", f"90th percentile {percent(s.p90)} %"
    if len(constant):
        tail = f"90th percentile {percent(np.quantile(constant, 0.9))} %"
        yield "Constant utilisation", f"{percent(np.median(constant))} %", tail


def _scores(validation: Validation) -> str:
    rows = [(*line.names, *line.figures) for block in score_lines(validation) for line in block]
    return table((*NAMES, *FIGURES), rows, text_columns=len(NAMES))


def _protocols(crossed: CrossValidation) -> str:
    return "".join(
        f"<h3>{TITLES[name]}</h3>{_scores(validation)}"
        for name, validation in crossed.protocols.items()
        if validation.counted
    )


def _explained(validation: Validation) -> str:
    """The rows in numbers, then each in words."""
    rows, told = [], []
    for index, p in enumerate(worst(validation, WORST), start=1):
        numbers = (digits(p.measured_s), digits(p.predicted_s), f"{100 * p.error:+.1f}")
        rows.append((str(index), p.row.run_id, *numbers, "yes" if p.inside else "no"))
        marks = [p.assumed] if p.assumed else []
        if p.row.run_id in validation.transferred:
            marks.append("factor of other devices")
        told.append(f"{'; '.join([recipe(p.row), *marks])}. Predicted: {_mostly(p)}.")
    heads = ("row", "run", "measured, s", "predicted, s", "error, %", "inside p10 – p90")
    return table(heads, rows, text_columns=2) + points(told, "numbered")


def _mostly(p: Prediction) -> str:
    """The causes that take most of the predicted step."""
    found = sorted(causes(p.breakdown_s), key=lambda cause: -cause.seconds)[:_MAIN_CAUSES]
    return ", ".join(f"{cause.words} {100 * cause.seconds / p.predicted_s:.0f} %" for cause in found)


def recipe(row: PublishedRun) -> str:
    """The layout and the settings that a row states, in words; what is 1, off or unknown is left out."""
    layout, sizes = row.layout, ("tp", "pp", "vp", "cp", "ep", "etp", "dp")
    split = [f"{name.upper()} {size}" for name in sizes if (size := getattr(layout, name) or 1) > 1]
    batch = (
        f"{layout.global_batch_size or '?'} × {layout.seq_length:,}, micro batch {layout.micro_batch_size}"
    )
    settings = [
        _setting(item.name, value)
        for item in fields(row.recipe)
        if (value := getattr(row.recipe, item.name)) not in (None, "", False, (), "none", "pretrain")
    ]
    machine = f"{row.machine.gpus} × {row.machine.hardware}"
    return " · ".join([row.architecture.model, machine, *split, batch, *settings])


def _setting(name: str, value: object) -> str:
    words = name.replace("_", " ")
    if value is True:
        return words
    if name == "precision":
        return str(value)
    text = " + ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if name == "other" else f"{words} {text}"


def _memory(validation: Validation) -> str:
    rows, heads = [], ("peak as measured", "rows", "median |error|, %", "worst, %", "bias, %")
    for basis, words in (
        ("allocated", "allocated"),
        ("reserved", "reserved, what the allocator keeps free too"),
    ):
        errors = np.array(memory_errors(validation.counted, basis))
        if len(errors):
            middle, most = np.median(np.abs(errors)), np.max(np.abs(errors))
            bias = f"{100 * np.median(errors):+.1f}"
            rows.append((words, str(len(errors)), percent(middle), percent(most), bias))
    if not rows:
        return paragraph("No measured peak.")
    furthest = sorted(_measured_peaks(validation.counted), key=lambda item: -abs(item[2]))[:5]
    listed = [
        (p.row.run_id, gibibytes(measured), gibibytes(p.peak_memory_bytes), f"{100 * error:+.1f}")
        for p, measured, error in furthest
    ]
    names = ("furthest off", "measured, GiB", "predicted, GiB", "error, %")
    return table(heads, rows) + table(names, listed)


def _measured_peaks(rows: Sequence[Prediction]) -> Iterator[tuple[Prediction, float, float]]:
    for p in rows:
        measured = p.row.measured.peak_memory_bytes
        if measured:
            yield p, measured, p.peak_memory_bytes / measured - 1.0


def _choices(validation: Validation) -> str:
    found = choices(validation.predictions)
    if not found:
        return paragraph("No source measured several layouts of one model on one machine.")
    good = sum(choice.good for choice in found)
    text = (
        f"Of {len(found)} sets of layouts of one model on one machine, the predicted best is the measured "
        f"best or within {100 * WITHIN:.0f} % of it in {good}."
    )
    rows = [
        (choice.best_measured, choice.best_predicted, str(choice.layouts), percent(choice.loss))
        for choice in sorted(found, key=lambda choice: -choice.loss)
    ]
    heads = ("measured best", "predicted best", "layouts", "slower by, %")
    return paragraph(text) + table(heads, rows, text_columns=2)


def _reasons(validation: Validation) -> str:
    reasons = validation.reasons()
    if not reasons:
        return paragraph("Every row of high confidence is predicted.")
    return points(f"{count} rows: {reason}" for reason, count in reasons.most_common())
