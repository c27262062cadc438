"""The accuracy table of the READMEs."""

from __future__ import annotations

from reports.validation_markdown import accuracy_table


def score(median: float, p90: float) -> dict[str, float]:
    return {"rows": 6, "groups": 1, "median": median, "p90": p90, "coverage": 0.8}


def test_shipped_and_left_out_errors_stand_side_by_side() -> None:
    cell = {"collection": "sc21", "device": "a100-sxm4-80gb", "kind": "dense"}
    totals = {kind: {"per_row": score(0.1, 0.2)} for kind in ("dense", "moe", "all")}
    document = {
        "cells": [{**cell, **score(0.031, 0.04)}],
        "overall": totals,
        "cross_validation": {
            "leave-one-group-out": {"cells": [{**cell, **score(0.05, 0.06)}], "overall": totals}
        },
    }
    lines = accuracy_table(document).splitlines()
    row = "| Narayanan 2021 (SC21) | a100-sxm4-80gb | dense | 6 | 1 | 3.1 / 4.0 | 80 % | 5.0 / 6.0 |"
    assert lines[2] == row
    assert lines[-1].startswith("| **all** |  | **all** | 6 | 1 | 10.0 / 20.0 |")
