"""Reports in a real browser: everything is drawn, in either colour scheme, without a complaint."""

import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from calibration.check import Check, Points
from reports.check_page import write_check_report
from reports.sweep_page import write_sweep_report
from reports.validation_page import write_validation_report
from simulator.sweep.execute import Inline
from simulator.sweep.read import read_sweep
from simulator.sweep.search import Progress, search
from simulator.sweep.store import Store
from simulator.validation.predict import Simulations
from simulator.validation.rows import shipped_rows
from simulator.validation.validate import validate

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--window-size=1280,1600"),
)
LOOK = """<script>
addEventListener("load", () => {
  const boxes = element => { const b = element.getBoundingClientRect(); return [b.width, b.height]; };
  const figures = [...document.querySelectorAll("svg.figure")].map(svg => ({
    name: svg.getAttribute("aria-label"),
    size: boxes(svg),
    shapes: [...svg.querySelectorAll("path, use")].filter(p => Math.max(...boxes(p)) > 0).length,
    words: [...svg.querySelectorAll("text")].filter(t => boxes(t)[0] > 0).length,
  }));
  const found = {
    sections: [...document.querySelectorAll("section")].map(s => [s.id, ...boxes(s)]),
    figures,
    overflow: document.documentElement.scrollWidth - innerWidth,
  };
  document.documentElement.innerHTML = "<body><pre>FOUND" + JSON.stringify(found) + "END</pre></body>";
});
</script>"""
SWEEP = """
run:
  model: llama3-8b
  cluster: h100
  gpus: [8, 16, 32]
  parallelism: {tp: [1, 2, 4, 8]}
  training: {seq_length: 4096, micro_batch_size: [1, 2, 4], global_batch_size: 32}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(BROWSERS)} is on the path"),
]


def browse(tmp_path, page, *options):
    """What the browser prints, and what it logs."""
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    command = [BROWSER, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", *options, file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


def inspected(tmp_path, page):
    """What the browser sees of a page, on which nothing may go wrong."""
    printed, logged = browse(tmp_path, page.replace("</body>", LOOK + "</body>"), "--dump-dom")
    assert not [line for line in logged.splitlines() if "CONSOLE" in line]
    found = json.loads(re.search("FOUND(.*)END", printed)[1].replace("&amp;", "&"))
    assert len(found["sections"]) == page.count("<section")
    assert found["overflow"] <= 0
    for figure in found["figures"]:
        assert min(figure["size"]) > 100, figure
        assert figure["shapes"] > 5, figure
        assert figure["words"] > 3, figure
    return found


def test_all_sections_and_figures_are_drawn_without_an_error(tmp_path, interleaved_page):
    found = inspected(tmp_path, interleaved_page)
    assert all(width > 600 and height > 60 for _, width, height in found["sections"])
    assert len(found["figures"]) == 8


def test_so_are_those_of_a_validation_and_of_a_check_of_kernels(tmp_path):
    rows = [row for row in shipped_rows() if row.run_id in ("kort22-tab5-meg-22b-full", "sc21-table1-1.7b")]
    page = tmp_path / "validation.html"
    write_validation_report(page, validate(rows, Simulations(workers=1)))
    assert len(inspected(tmp_path, page.read_text(encoding="utf-8"))["figures"]) == 3
    times = np.geomspace(1e-6, 1e-2, 50)
    points = Points(kernel_class="gemm", dtype="bf16", predicted=1.1 * times, measured=times)
    write_check_report(page, Check(hardware="h100", profile="h100", points=(points,), skipped=()))
    assert len(inspected(tmp_path, page.read_text(encoding="utf-8"))["figures"]) == 1


def test_so_are_those_of_a_sweep(tmp_path):
    file, page = tmp_path / "small.yaml", tmp_path / "sweep.html"
    file.write_text(SWEEP, encoding="utf-8")
    with Store(None, "", resume=False) as store:
        write_sweep_report(page, search(read_sweep(str(file), []), store, Inline(), Progress()))
    found = inspected(tmp_path, page.read_text(encoding="utf-8"))
    assert {key for key, _, _ in found["sections"]} == {"best", "ranking", "figures", "left-out", "settings"}
    assert len(found["figures"]) == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_scheme(tmp_path, interleaved_page, scheme):
    options = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    picture = tmp_path / "page.png"
    browse(tmp_path, interleaved_page, f"--screenshot={picture}", *options)
    with Image.open(io.BytesIO(picture.read_bytes())) as image:
        colours = image.convert("RGB").getcolors(maxcolors=2**20)
    colours.sort(reverse=True)
    paper = colours[0][1]
    assert (sum(paper) > 3 * 200) == (scheme == "light")
    assert sum(count > 400 for count, _ in colours) > 8
