"""The report of a sweep: one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from reports.figures.canvas import inline_svg
from reports.files import replacing
from reports.page import Section, figure, listing, page, paragraph, table, tiles
from reports.quantities import gibibytes, percent, scaled, seconds
from reports.sweep_figures import sweep_figures
from reports.sweep_table import FIGURES, axis_names, cells, label, reason
from simulator.interop.launch_settings import launch_settings
from simulator.sweep.export import run_file

if TYPE_CHECKING:
    from simulator.sweep.search import Outcome

MOST_ROWS = 50
_TITLES = {
    "losses": "Where the step of the best layouts goes",
    "pareto": "Step time against memory",
    "map": "Best step time by two settings",
    "scaling": "Throughput over the number of GPUs",
}
_CAPTIONS = {
    "losses": "Each bar is one layout's step, fastest first; colours say what the GPUs did or waited for.",
    "pareto": "Every feasible layout; the line joins those that no other beats in both time and memory.",
    "map": "Each cell is the best layout with these two values, whatever the others are.",
    "scaling": "Percentages compare with growth in proportion from the smallest number of GPUs.",
}


def write_sweep_report(path: Path, outcome: Outcome) -> None:
    """Write the page. Raises OSError naming the file."""
    name = outcome.sweep.name
    census = outcome.census
    facts = [
        outcome.sweep.settings.description or f"Sweep {name}",
        f"{census.combinations:,} combinations, {census.legal:,} legal",
        f"{outcome.evaluated_total:,} evaluated, {len(outcome.ranked):,} feasible",
    ]
    foot = f"objective {outcome.sweep.settings.objective} · search {outcome.sweep.settings.search}"
    with replacing(path) as stream:
        stream.write(page(name, facts, list(_sections(outcome)), foot))


def _sections(outcome: Outcome) -> Iterator[Section]:
    best = outcome.best
    if best is not None:
        yield Section(
            "best",
            "Best layout",
            tiles(
                (
                    ("Step time", seconds(best.step_time_s, 4), f"layout {best.number}"),
                    ("Throughput", f"{scaled(best.tokens_per_s)} tokens/s", ""),
                    ("MFU", percent(best.mfu), f"bubble {percent(best.bubble_fraction)}"),
                    (
                        "Memory",
                        f"{gibibytes(best.peak_bytes)} GiB",
                        f"of {gibibytes(best.capacity_bytes)} GiB",
                    ),
                )
            ),
        )
        heads = ("#", "id", *axis_names(outcome), *FIGURES, "slower because of")
        rows = [
            (
                str(place),
                str(e.number),
                *map(label, e.labels),
                *cells(e),
                reason(e, best) if e is not best else "",
            )
            for place, e in enumerate(outcome.ranked[:MOST_ROWS], 1)
        ]
        yield Section(
            "ranking",
            "Ranking",
            table(heads, rows, text_columns=2 + len(outcome.sweep.space.axes), remarks=True),
        )
        drawn = sweep_figures(outcome)
        body = "".join(figure(inline_svg(f, n, _TITLES[n]), _CAPTIONS[n]) for n, f in drawn.items())
        yield Section("figures", "Pictures", body)
    yield Section("left-out", "Left out", _left_out(outcome))
    if best is not None:
        run = outcome.layouts[best.number].run
        files = [("Run file", run_file(outcome, best))]
        files += [(settings.program, settings.text) for settings in launch_settings(run)]
        body = "".join(listing(*each) for each in files)
        yield Section("settings", "Settings of the best layout", f'<div class="listings">{body}</div>')


def _left_out(outcome: Outcome) -> str:
    census = outcome.census
    rows = [(rule, f"{n:,}", census.examples.get(rule, "")) for rule, n in census.illegal.most_common()]
    rows += [(f"infeasible: {why}", f"{n:,}", "") for why, n in outcome.infeasible.most_common()]
    rows += [(f"failed: {why}", f"{n:,}", "") for why, n in outcome.failed.most_common()]
    return table(("rule", "layouts", "for example"), rows, remarks=True) if rows else paragraph("Nothing.")
