"""The report of one run: a page that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from reports.better_hardware import HEADS, NOTE, TITLE, gains
from reports.figures.canvas import inline_svg
from reports.figures.run import figures
from reports.files import replacing
from reports.headline import comparisons, facts, headline, remarks, remedy, title, verdict
from reports.inputs import PARTS, inputs, readable
from reports.page import Section, figure, page, paragraph, points, table, tiles
from reports.quantities import digits, gibibytes, percent, scaled, seconds
from reports.style import WORK_NAMES
from simulator.details import OperatorUse
from simulator.result import Result

if TYPE_CHECKING:
    from simulator.spec.run import RunSpec

MOST_OPERATORS = 15


def write_report(path: Path, result: Result, run: RunSpec) -> None:
    """Write the report of a run. Raises OSError naming the file; ValueError for a result without details."""
    text = report(result, run)
    with replacing(path) as stream:
        stream.write(text)


def report(result: Result, run: RunSpec) -> str:
    """The report as HTML.

    Raises ValueError for a result without details; ``simulate(run, timeline=True)`` keeps them.
    """
    provenance = " · ".join(
        f"{key.replace('_', ' ')} {readable(key, value)}" for key, value in result.provenance.items()
    )
    lines = [*facts(run), *([run.description] if run.description else [])]
    return page(title(run), lines, list(_sections(result, run)), provenance)


def _sections(result: Result, run: RunSpec) -> Iterator[Section]:
    drawn = {
        name: figure(inline_svg(picture, name, _TITLES[name]), _CAPTIONS.get(name, ""))
        for name, picture in figures(result, run).items()
    }
    yield Section("headline", "Headline", _headline(result, run))
    yield Section("waterfall", "From peak to MFU", drawn["waterfall"])
    yield Section("breakdown", "Where the step goes", drawn["breakdown"])
    yield Section("pipeline", "Pipeline", drawn["pipeline"])
    yield Section("memory", "Memory", _fits(result) + drawn["memory"] + drawn["memory-over-time"])
    yield Section("communication", "Communication", drawn["communication"])
    yield Section("topology", "Topology", drawn["topology"])
    yield Section("operators", "Operators", drawn["roofline"] + _operators(result))
    if result.what_if:
        lines = [(gain.words, *gain.cells) for gain in gains(result, run)]
        told = table(HEADS, lines, remarks=True) + paragraph(NOTE)
        yield Section("what-if", TITLE, drawn["what-if"] + told)
    if run.published is not None:
        heads = ("", "predicted", "published", "deviation", "between p10 and p90")
        rows = comparisons(result, run)
        body = (table(heads, rows, remarks=True) if rows else "") + points(remarks(result, run))
        yield Section("published", "Published", body)
    yield Section("inputs", "Inputs", _inputs(run))
    yield Section("provenance", "Provenance", _provenance(result, run))


_TITLES = {
    "waterfall": "Waterfall from the device's peak to the MFU",
    "breakdown": "The step's time by cause",
    "pipeline": "Pipeline schedule of all stages",
    "memory": "Peak memory of every stage",
    "memory-over-time": "Memory over the step",
    "communication": "Exposed and hidden communication by axis",
    "topology": "Levels of the machine and the use of its NICs",
    "roofline": "Operators under the device's roof",
    "what-if": "Step time saved by better hardware",
}
_CAPTIONS = {
    "waterfall": "Kernels: what they take beyond their FLOPs at the rate that power and clocks leave. FLOPs "
    "not counted: executed beyond those that the convention counts. Uneven stages: what stages wait beyond "
    "the busiest one.",
    "breakdown": "Wall time of the compute stream, averaged over all GPUs. Each idle instant goes to the one "
    "cause that ends it: communication under way, or another stage that still computes (bubble).",
    "pipeline": "Compute of every stage, paler for later virtual stages; under it the messages it sends and "
    "its data-parallel traffic.",
    "memory": "What one GPU of each stage holds at its peak.",
    "memory-over-time": "Weights, gradients and optimizer state stay; activations come with forwards and go "
    "with backwards.",
    "communication": "Mean over GPUs. Communication is exposed where the compute stream waits for it.",
    "topology": "Each parallel axis stands beside the highest level that its messages cross, with the time a "
    "GPU spends on it.",
    "roofline": "Circles grow with the share of the step. Roofs are datasheet rates.",
}


def _headline(result: Result, run: RunSpec) -> str:
    warnings = points(result.warnings, "warning") if result.warnings else ""
    return warnings + tiles(headline(result, run))


def _fits(result: Result) -> str:
    found = result.memory
    peak, capacity = gibibytes(found["peak_bytes"]), gibibytes(found["capacity_bytes"])
    fullest = max(found["stages"], key=lambda stage: stage["peak_bytes"])
    moment = (
        f"It peaks in {_in_words(fullest['peak_action'])}, with {fullest['kept_forwards']} forwards kept."
    )
    text = paragraph(f"{peak} of {capacity} GiB on the fullest stage: {verdict(result)}. {moment}")
    remedies = found.get("remedies")
    return text + (paragraph("To make it fit:") + points(map(remedy, remedies)) if remedies else "")


def _in_words(action: str) -> str:
    """``113B0`` as a person would say it."""
    found = re.fullmatch(r"r?(\d+)([FBIW])(\d+)", action)
    return (
        f"the {WORK_NAMES[found[2]]} of microbatch {found[3]} on virtual stage {found[1]}"
        if found
        else action
    )


def _operators(result: Result) -> str:
    """The operators that take the most time, hidden communication included."""
    uses = result.details.operators if result.details else ()
    top = sorted(uses, key=lambda use: -use.runs * use.seconds)[:MOST_OPERATORS]
    heads = ("operator", "counted as", "runs", "each", "per step", "of the step", "TFLOP/s", "GB/s")
    rows = [_operator(use, result.step_time_s) for use in top]
    rest = len(uses) - len(top)
    note = "Runs and time per GPU, averaged; operators beside others count too, so shares may exceed 100 %."
    more = f" {rest} smaller ones are left out." if rest else ""
    return table(heads, rows, text_columns=2) + paragraph(note + more)


def _operator(use: OperatorUse, step_s: float) -> tuple[str, ...]:
    total = use.runs * use.seconds
    flops = digits(use.flops / use.seconds / 1e12) if use.flops and use.seconds else "–"
    moved = digits(use.bytes / use.seconds / 1e9) if use.bytes and use.seconds else "–"
    category = use.category.removeprefix("exposed_").replace("_", " ")
    kind = f"{category} ({use.dtype})" if use.dtype else category
    share = percent(total / step_s)
    return use.name, kind, scaled(use.runs), seconds(use.seconds), seconds(total), share, flops, moved


def _inputs(run: RunSpec) -> str:
    found = inputs(run)
    blocks = "".join(f"<div><h3>{part}</h3>{table(('', ''), found[part])}</div>" for part in PARTS)
    return f'<div class="columns">{blocks}</div>'


def _provenance(result: Result, run: RunSpec) -> str:
    rows = [(key.replace("_", " "), readable(key, value)) for key, value in result.provenance.items()]
    body = table(("", ""), rows, text_columns=2)
    if result.choices:
        body += "<h3>Chosen</h3>" + points(result.choices)
    if run.assumptions:
        body += "<h3>Assumed</h3>" + points(run.assumptions)
    sources = {**run.cluster.device.sources, **run.cluster.sources}
    if sources:
        body += "<h3>Sources of the machine's facts</h3>"
        body += table(("fact", "source"), list(sources.items()), text_columns=2)
    return body
