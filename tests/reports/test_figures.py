"""Figures: drawn for every kind of run, with units on their axes, the same each time."""

import subprocess
import sys
from itertools import pairwise

import matplotlib as mpl
import pytest
from matplotlib.colors import to_hex

from reports.figures.breakdown import breakdown
from reports.figures.canvas import inline_svg, save
from reports.figures.labels import Labels
from reports.figures.pipeline import pipeline
from reports.figures.run import figures
from reports.figures.waterfall import waterfall
from reports.plots import write_plots
from reports.style import CYCLE, PALETTE
from simulator import load_run, simulate

NAMES = {
    *("waterfall", "breakdown", "pipeline", "memory", "memory-over-time"),
    *("communication", "topology", "roofline"),
}
UNITS = (", s", "GiB", "%", "FLOP/byte", "TFLOP/s", "stage", "(mean over all GPUs)")


def test_every_figure_draws_every_kind_of_run(drawings):
    assert set(drawings) == NAMES
    for name, figure in drawings.items():
        svg = inline_svg(figure, name, name)
        assert svg.count("<path") > 3, name


def test_every_labelled_axis_has_a_unit(drawings):
    for name, figure in drawings.items():
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                text = axis.get_label_text()
                numbers = [label.get_text() for label in axis.get_ticklabels() if label.get_text()]
                numeric = numbers and all(number.replace(".", "").isdigit() for number in numbers)
                if numeric:
                    assert any(unit in text for unit in UNITS), (name, text)


def test_bars_of_the_breakdown_fill_the_step(interleaved):
    _, result = interleaved
    bars = breakdown(result).axes[0].patches[1:-1]
    assert bars[0].get_x() == 0
    for before, after in pairwise(bars):
        assert before.get_x() + before.get_width() == pytest.approx(after.get_x())
    assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(result.step_time_s)


def test_a_waterfall_falls_from_the_peak_to_the_mfu(interleaved):
    _, result = interleaved
    peak, *falls, mfu = waterfall(result).axes[0].patches
    assert peak.get_width() == 100
    top = 100.0
    for bar in falls:
        assert bar.get_x() + bar.get_width() == pytest.approx(top)
        top = bar.get_x()
    assert mfu.get_width() == pytest.approx(100 * result.mfu)
    assert top == pytest.approx(mfu.get_width(), abs=0.2)  # what is too small to show


def test_a_gantt_shows_every_stage_and_the_whole_step(interleaved):
    run, result = interleaved
    whole, close = pipeline(result).axes
    assert whole.get_xlim() == (0, result.step_time_s)
    assert [label.get_text() for label in whole.get_yticklabels()] == [
        str(stage) for stage in range(run.parallelism.pp)
    ]
    (labels,) = close.findobj(Labels)
    assert set(labels.words) & {"0", "1", "2"}


def test_results_without_details_are_refused_with_the_remedy():
    run = load_run("llama3-8b-8-h100")
    with pytest.raises(ValueError, match="timeline=True"):
        figures(simulate(run), run)


def test_the_callers_settings_neither_matter_nor_change(interleaved):
    _, result = interleaved
    plain = inline_svg(breakdown(result), "b", "b")
    with mpl.rc_context({"font.size": 30, "axes.grid": False, "svg.fonttype": "path"}):
        before = dict(mpl.rcParams)
        assert inline_svg(breakdown(result), "b", "b") == plain
        assert dict(mpl.rcParams) == before


def test_colours_inside_a_page_follow_its_scheme(simple):
    run, result = simple
    for name, figure in figures(result, run).items():
        svg = inline_svg(figure, name, name)
        assert "var(--" in svg
        for colour in PALETTE.values():
            assert to_hex(colour.light) not in svg, (name, colour)


def test_meaningful_colours_differ_in_lightness_or_hue():
    assert len({PALETTE[name] for name in CYCLE}) == len(CYCLE)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_equal_results_give_equal_files(simple, tmp_path, suffix):
    _, result = simple
    for name in ("a", "b"):
        save(breakdown(result), tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_plots_are_png_and_svg_of_every_figure(simple, tmp_path):
    run, result = simple
    write_plots(tmp_path / "new", result, run)
    found = {path.name for path in (tmp_path / "new").iterdir()}
    assert found == {f"{name}.{suffix}" for name in NAMES for suffix in ("png", "svg")}


def test_another_ending_is_refused(interleaved, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.png, \.svg or \.pdf"):
        save(breakdown(interleaved[1]), tmp_path / "figure.gif")


def test_a_plain_run_imports_no_plotting():
    code = (
        "import sys; from simulator.cli.app import main\n"
        "try: main(['run', 'llama3-8b-8-h100'])\n"
        "except SystemExit as done: assert not done.code\n"
        "heavy = {'matplotlib', 'pandas', 'scipy'} & set(sys.modules); assert not heavy, heavy"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
