"""How fast the simulator is: medians of the demo's process, of warm evaluations, and their growth with GPUs.

Run by ``make bench``. Prints; asserts nothing, because times on a shared machine prove nothing.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from simulator.simulate import simulate
from simulator.simulation import Simulation
from simulator.spec.load import load_run
from simulator.spec.run import RunSpec

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "workloads" / "runs" / "llama3.1-405b-16384-h100.yaml")
WORLDS = (1024, 4096, 16384, 65536, 131072)
TP, PP, MICROBATCHES = 8, 16, 16
TRILLION = "megatron-1t-3072-a100-sc21"
SCHEDULES_ASKED = {
    "1T, PP 64, 512 microbatches": [],
    "1T, PP 64, VP 2, 512 microbatches": ["parallelism.schedule=interleaved-1f1b", "parallelism.vp=2"],
    "530B, PP 35, VP 3, 280 microbatches": [
        "model=megatron-530b",
        "gpus=1680",
        "training.global_batch_size=1680",
        "parallelism.schedule=interleaved-1f1b",
        "parallelism.pp=35",
        "parallelism.vp=3",
    ],
}
SWEEPS = (  # the last one takes minutes
    ("llama3-70b-512-h100", "best"),
    ("llama3-70b-equal-price", "best"),
    ("llama3.1-405b-16384-h100", "best"),
    ("deepseek-v3-2048-h800", "best"),
    ("llama3-70b-512-h100", "exhaustive"),
)


def medians_s(actions: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """The median wall time of one call of each, after a call that is not counted.

    They take turns, so that a machine that slows down slows all of them down.
    """
    times: list[list[float]] = [[] for _ in actions]
    for action in actions:
        action()
    for _ in range(repeats):
        for action, taken in zip(actions, times, strict=True):
            begun = time.perf_counter()
            action()
            taken.append(time.perf_counter() - begun)
    return [statistics.median(taken) for taken in times]


def process(program: str) -> None:
    """One fresh interpreter, from start to exit."""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def command(*options: str) -> str:
    """The program that the demo is."""
    return f"from simulator.cli.app import main; main({['run', DEMO, *options]!r})"


def at_scale(gpus: int) -> list[str]:
    """The demo on another number of GPUs with the same pipelines and microbatches: only dp differs."""
    dp = gpus // (TP * PP)
    return [
        f"gpus={gpus}",
        f"parallelism.dp={dp}",
        f"training.global_batch_size={MICROBATCHES * dp}",
        "cluster.max_gpus=0",
    ]


def report(label: str, seconds: float, remark: str = "") -> None:
    """One line: what, milliseconds, remark."""
    sys.stdout.write(f"{label:<44}{1e3 * seconds:9.1f} ms   {remark}".rstrip() + "\n")
    sys.stdout.flush()


def figures(run: RunSpec) -> None:
    """Fit, time and rates of a run."""
    simulation = Simulation(run)
    assert simulation.memory.capacity_bytes
    assert simulation.rates


def step_s(run: RunSpec, *, whole: bool = False, fold: bool = True) -> float:
    """The step of a run, with nothing left to share from the call before but its blocks and orders."""
    return Simulation(run, whole=whole, fold=fold).step.seconds


def cpu_s() -> float:
    """Processor time of all processes that have ended, whose wall time says little on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sweep(name: str, search: str) -> None:
    """A shipped sweep from start to exit."""
    with TemporaryDirectory() as folder:
        outcome = Path(folder) / "outcome.json"
        arguments = ["sweep", name, "--set", f"search={search}", "--json", str(outcome)]
        begun, spent = time.perf_counter(), cpu_s()
        process(f"from simulator.cli.app import main; main({arguments!r})")
        seconds, spent = time.perf_counter() - begun, cpu_s() - spent
        found = json.loads(outcome.read_text(encoding="utf-8"))
    evaluated, legal = found["evaluated_total"], found["legal"]
    done = f"{evaluated:,} of {legal:,} evaluated, {legal / seconds:.0f} layouts/s"
    report(f"{name}, {search}", seconds, f"{done}, {spent:.1f} s of CPU, {1e3 * spent / legal:.2f} ms each")


def main(arguments: Sequence[str]) -> None:
    """Time everything; the first argument is the number of repeats (9 unless given)."""
    repeats = int(arguments[0]) if arguments else 9
    machine = f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs"
    sys.stdout.write(f"{machine}, medians of {repeats}\n\n")
    run = load_run(DEMO)
    demo = {
        "interpreter start and exit": lambda: process("pass"),
        "demo, whole process": lambda: process(command()),
        "demo with --report, whole process": lambda: process(command("--report", os.devnull)),
        "demo, reading the run file, warm process": lambda: load_run(DEMO),
        "demo, evaluation, warm process": lambda: simulate(run),
    }
    for label, seconds in zip(demo, medians_s(list(demo.values()), repeats), strict=True):
        report(label, seconds)
    sys.stdout.write(f"\nEvaluation at PP {PP} and {MICROBATCHES} microbatches, warm process\n")
    runs = [load_run(DEMO, at_scale(gpus)) for gpus in WORLDS]
    times = medians_s([partial(simulate, run) for run in runs], repeats)
    for gpus, seconds in zip(WORLDS, times, strict=True):
        report(f"{gpus:>9,} GPUs", seconds, f"{seconds / times[0]:.2f} × that of {WORLDS[0]:,}")
    single = {
        "GPT-3 175B on 1,024 A100, what a sweep asks": partial(figures, load_run("gpt3-175b-1024-a100")),
        "405B on 16,384 H100, what a sweep asks": partial(figures, run),
    }
    sys.stdout.write("\nOne evaluation, warm process\n")
    for label, seconds in zip(single, medians_s(list(single.values()), repeats), strict=True):
        report(label, seconds)
    sys.stdout.write("\nOne step of a long schedule, its steady state replayed once and in full\n")
    for label, overrides in SCHEDULES_ASKED.items():
        asked = load_run(TRILLION, overrides)
        ways = [
            partial(step_s, asked),
            partial(step_s, asked, fold=False),
            partial(step_s, asked, whole=True),
        ]
        folded, full, processes = medians_s(ways, 3)
        report(label, folded, f"{1e3 * full:.0f} ms in full, {1e3 * processes:.0f} ms as processes")
    sys.stdout.write("\nSweeps, as commands on all cores\n")
    for name, search in SWEEPS:
        sweep(name, search)


if __name__ == "__main__":
    main(sys.argv[1:])
