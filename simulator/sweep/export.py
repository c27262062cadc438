"""Results for spreadsheets and notebooks, and the run file of a layout."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from simulator.sweep.evaluation import Evaluation

if TYPE_CHECKING:
    from simulator.sweep.search import Outcome

FIGURES = ("step_time_s", "tokens_per_s", "mfu", "bubble_fraction", "peak_bytes", "capacity_bytes")


def rows(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """One row per evaluation, ranked ones first, with a column for each axis, figure and cause of time."""
    axes = [axis.key for axis in outcome.sweep.space.axes]
    ranks = {evaluation.number: rank for rank, evaluation in enumerate(outcome.ranked, 1)}
    causes = list(dict.fromkeys(cause for evaluation in outcome.ranked for cause in evaluation.breakdown_s))
    for evaluation in (*outcome.ranked, *outcome.left_out):
        run = outcome.layouts[evaluation.number].run
        spent = asdict(outcome.sweep.objective.spending(run, evaluation.step_time_s))
        yield {
            "id": evaluation.number,
            "rank": ranks.get(evaluation.number),
            "status": evaluation.status,
            "message": evaluation.message,
            "gpus": run.gpus,
            "dp": run.dp,
            **{key: _cell(label) for key, label in zip(axes, evaluation.labels, strict=True)},
            **{figure: getattr(evaluation, figure) or None for figure in FIGURES},
            **{name: value or None for name, value in spent.items()},
            **{f"breakdown_s.{cause}": evaluation.breakdown_s.get(cause) for cause in causes},
        }


def csv_text(outcome: Outcome) -> str:
    """All rows as CSV with a header; empty where there is no figure."""
    stream, table = StringIO(), list(rows(outcome))
    if table:
        writer = csv.DictWriter(stream, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    return stream.getvalue()


def write_parquet(outcome: Outcome, path: Path) -> bool:
    """All rows as Parquet, where pyarrow is installed; whether it is."""
    if find_spec("pyarrow") is None:
        return False
    import pandas as pd  # noqa: PLC0415  slow to import, and the only use

    pd.DataFrame(list(rows(outcome))).to_parquet(path, index=False)
    return True


def run_file(outcome: Outcome, evaluation: Evaluation) -> str:
    """The run file of a layout: ``stepcast run`` predicts the same for it."""
    document = deepcopy(dict(outcome.sweep.document))
    for axis, label in zip(outcome.sweep.space.axes, evaluation.labels, strict=True):
        section = document
        for key in axis.path[:-1]:
            section = section.setdefault(key, {})
        section[axis.path[-1]] = axis.written(label)
    document = {"name": f"{outcome.sweep.name}-{evaluation.number}", **document}
    document["name"] = f"{outcome.sweep.name}-{evaluation.number}"
    head = f"# Layout {evaluation.number} of the sweep {outcome.sweep.name}.\n"
    return head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _cell(label: Any) -> Any:
    """Text for what is no single value."""
    if isinstance(label, dict | list | tuple):
        return yaml.safe_dump(label, default_flow_style=True, width=10**6).strip()
    return label
