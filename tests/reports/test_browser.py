"""Reports in a real browser: everything is drawn, in either colour scheme, without a complaint."""

import io
import json
import re
import shutil
import subprocess

import pytest
from PIL import Image

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
    shapes: [...svg.querySelectorAll("path")].filter(p => Math.max(...boxes(p)) > 0).length,
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


def test_all_sections_and_figures_are_drawn_without_an_error(tmp_path, interleaved_page):
    page = interleaved_page.replace("</body>", LOOK + "</body>")
    printed, logged = browse(tmp_path, page, "--dump-dom")
    assert not [line for line in logged.splitlines() if "CONSOLE" in line]
    found = json.loads(re.search("FOUND(.*)END", printed)[1].replace("&amp;", "&"))
    assert len(found["sections"]) == interleaved_page.count("<section")
    assert all(width > 600 and height > 60 for _, width, height in found["sections"])
    assert len(found["figures"]) == 8
    for figure in found["figures"]:
        assert min(figure["size"]) > 100, figure
        assert figure["shapes"] > 5, figure
        assert figure["words"] > 3, figure
    assert found["overflow"] <= 0


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
