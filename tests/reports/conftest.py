"""Runs whose pictures are looked at, each simulated once."""

from functools import cache

import pytest

from reports.figures.run import figures
from reports.html import report
from simulator import load_run, simulate

RUNS = {
    "one stage": ("llama3-8b-8-h100", ()),
    "one GPU": (
        "llama3-8b-8-h100",
        ("gpus=1", "parallelism.tp=1", "parallelism.dp=1", "training.global_batch_size=2"),
    ),
    "interleaved": ("mixtral-8x7b-64-h100", ()),
    "blocking": ("mixtral-8x7b-64-h100", ("parallelism.vp=1", "parallelism.schedule=1f1b")),
    "split backward": ("mixtral-8x7b-64-h100", ("parallelism.vp=1", "parallelism.schedule=zb-h1")),
    "in pairs": (
        "mixtral-8x7b-64-h100",
        ("parallelism.vp=2", "parallelism.schedule=dualpipev"),
    ),
    "every operator": (
        "mixtral-8x7b-64-h100",
        ("simulation.detail=operator", "training.global_batch_size=128"),
    ),
    "every rank": (
        "llama3-8b-8-h100",
        ("simulation.ranks=all", "parallelism.pp=2", "parallelism.dp=2", "training.global_batch_size=16"),
    ),
}


@cache
def simulated(name):
    """The run of that name and its result, with everything pictures need."""
    file, overrides = RUNS[name]
    run = load_run(file, list(overrides))
    return run, simulate(run, timeline=True)


@cache
def drawn(name):
    """All figures of the run of that name."""
    run, result = simulated(name)
    return figures(result, run)


@cache
def page(name):
    """The report of the run of that name."""
    run, result = simulated(name)
    return report(result, run)


@pytest.fixture(params=["one GPU", "one stage", "split backward", "in pairs"])
def drawings(request):
    """The figures of runs that look different."""
    return drawn(request.param)


@pytest.fixture(params=["one stage", "interleaved"])
def text(request):
    """The report of runs that look different."""
    return page(request.param)


@pytest.fixture(params=RUNS)
def pictured(request):
    """(run, result) of every run."""
    return simulated(request.param)


@pytest.fixture
def interleaved():
    """(run, result) of one run."""
    return simulated("interleaved")


@pytest.fixture
def simple():
    """(run, result) of the run with the least to draw."""
    return simulated("one stage")


@pytest.fixture
def interleaved_page():
    """The report of that run."""
    return page("interleaved")
