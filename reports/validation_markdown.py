"""The accuracy table of the READMEs, from the JSON form of ``stepcast validate --cross-validate``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

TITLES = {
    "dgxc": "NVIDIA dgxc-benchmarking",
    "kort22": "Korthikanti 2022",
    "mbridge": "NVIDIA Megatron-Bridge",
    "mlperf": "MLPerf Training 5.0",
    "mosaic": "MosaicML llm-foundry",
    "sc21": "Narayanan 2021 (SC21)",
    "simumax": "SimuMax",
    "titan": "torchtitan",
}
HEAD = (
    "| source | device | model | rows | groups | shipped | inside 80 % interval | left out |",
    "|---|---|---|---:|---:|---:|---:|---:|",
)


def accuracy_table(document: Mapping[str, Any]) -> str:
    """Markdown: median and 90th percentile of |error| in percent, shipped and with groups left out."""
    return "\n".join([*HEAD, *_cells(document), *_totals(document)]) + "\n"


def _cells(document: Mapping[str, Any]) -> Iterator[str]:
    left_out = {_key(cell): cell for cell in document["cross_validation"]["leave-one-group-out"]["cells"]}
    for cell in document["cells"]:
        names = (TITLES.get(cell["collection"], cell["collection"]), cell["device"], cell["kind"])
        yield _row(names, cell, left_out.get(_key(cell)))


def _totals(document: Mapping[str, Any]) -> Iterator[str]:
    left_out = document["cross_validation"]["leave-one-group-out"]["overall"]
    for kind in ("dense", "moe", "all"):
        shown = {"moe": "MoE"}.get(kind, kind)
        scores = document["overall"][kind]["per_row"], left_out[kind]["per_row"]
        yield _row(("**all**", "", f"**{shown}**"), *scores)


def _key(cell: Mapping[str, Any]) -> tuple[str, str, str]:
    return cell["collection"], cell["device"], cell["kind"]


def _row(names: tuple[str, ...], score: Mapping[str, Any], left_out: Mapping[str, Any] | None) -> str:
    errors = "–" if left_out is None else _errors(left_out)
    counts = f"{score['rows']} | {score['groups']}"
    return (
        f"| {' | '.join(names)} | {counts} | {_errors(score)} | {100 * score['coverage']:.0f} % | {errors} |"
    )


def _errors(score: Mapping[str, Any]) -> str:
    return f"{100 * score['median']:.1f} / {100 * score['p90']:.1f}"
