"""The report of a run: complete, alone, and well formed."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from reports.html import report, write_report
from simulator import load_run, simulate

SECTIONS = [
    *("headline", "waterfall", "breakdown", "pipeline", "memory", "communication", "topology", "operators"),
    *("inputs", "provenance"),
]
VOID = {"meta", "link", "br"}
MEBIBYTE = 2**20


class Outline(HTMLParser):
    """Elements that open and close, ids, and what the page would load."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.sections, self.loads, self.targets = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value)
                if tag == "section":
                    self.sections.append(value)
            if key in ("src", "href", "srcset", "data"):
                (self.targets if value.startswith("#") else self.loads).append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_every_section_is_there_in_order(text):
    assert Outline(text).sections == SECTIONS


def test_elements_close_ids_are_unique_and_links_lead_somewhere(text):
    outline = Outline(text)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert {target[1:] for target in outline.targets} <= set(outline.ids)
    assert set(re.findall(r"url\(#(.*?)\)", text)) <= set(outline.ids)


def test_nothing_is_fetched(text):
    assert all(load.startswith("data:") for load in Outline(text).loads)
    assert not re.search(r"@import|url\((?!#)|<script|<iframe", text)


def test_the_headline_is_the_results(interleaved, interleaved_page):
    run, result = interleaved
    for fact in (f"{result.step_time_s:.3f} s", "p10 – p90", f"{100 * result.mfu:.1f} %", run.name):
        assert fact in interleaved_page


@pytest.mark.slow
def test_warnings_assumptions_and_published_numbers_stand_in_it():
    run = load_run("llama3.1-405b-16384-h100", ["training.global_batch_size=4096"])
    result = simulate(run, timeline=True)
    text = report(result, run)
    assert Outline(text).sections == [*SECTIONS[:8], "published", *SECTIONS[8:]]
    assert "The Llama 3 Herd of Models" in text
    assert "vp 8: the paper prints no number of virtual stages" in text
    assert all(warning in text for warning in result.warnings)
    assert len(text.encode()) < 5 * MEBIBYTE


def test_changes_that_would_make_it_fit_are_listed(simple):
    run, result = simple
    change = {"settings": {"parallelism.tp": 4}, "step_time_s": 12.5, "peak_bytes": 2**35, "verdict": "fits"}
    memory = {**result.memory, "fits": False, "verdict": "may not fit", "remedies": [change]}
    text = report(replace(result, memory=memory), run)
    assert "on the fullest stage: may not fit." in text
    assert "--set parallelism.tp=4: 12.5 s a step, 32.0 GiB" in text


def test_every_setting_of_the_run_is_listed(interleaved_page):
    for setting in ("num_experts", "global_batch_size", "moe_dispatcher", "scale_up.domain_size"):
        assert setting in interleaved_page


def test_names_are_text_not_markup():
    run = load_run("llama3-8b-8-h100", ["name=<b>&"])
    assert "<h1>&lt;b&gt;&amp;</h1>" in report(simulate(run, timeline=True), run)


def test_the_file_is_the_page_and_equal_runs_give_equal_pages(simple, tmp_path):
    run, result = simple
    write_report(tmp_path / "r.html", result, run)
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == report(result, run)
