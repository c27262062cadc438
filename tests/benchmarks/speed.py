"""How fast the simulator is: medians of the demo's process, of warm evaluations, and their growth with GPUs.

Run by ``make bench``. Prints; asserts nothing, because times on a shared machine prove nothing.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from simulator.simulate import simulate
from simulator.spec.load import load_run

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "workloads" / "runs" / "llama3.1-405b-16384-h100.yaml")
COMMAND = f"from simulator.cli.app import main; main(['run', {DEMO!r}])"
WORLDS = (1024, 4096, 16384, 65536, 131072)
TP, PP, MICROBATCHES = 8, 16, 16


def median_s(action: Callable[[], object], repeats: int) -> float:
    """The median wall time of one call, after one call that is not counted."""
    action()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def process(program: str) -> None:
    """One fresh interpreter, from start to exit."""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


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


def main(arguments: Sequence[str]) -> None:
    """Time everything; the first argument is the number of repeats (9 unless given)."""
    repeats = int(arguments[0]) if arguments else 9
    machine = f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs"
    sys.stdout.write(f"{machine}, medians of {repeats}\n\n")
    report("interpreter start and exit", median_s(lambda: process("pass"), repeats))
    report("demo, whole process", median_s(lambda: process(COMMAND), repeats))
    run = load_run(DEMO)
    report("demo, reading the run file, warm process", median_s(lambda: load_run(DEMO), repeats))
    report("demo, evaluation, warm process", median_s(lambda: simulate(run), repeats))
    sys.stdout.write(f"\nEvaluation at PP {PP} and {MICROBATCHES} microbatches, warm process\n")
    smallest = 0.0
    for gpus in WORLDS:
        run = load_run(DEMO, at_scale(gpus))
        seconds = median_s(lambda run=run: simulate(run), repeats)
        smallest = smallest or seconds
        report(f"{gpus:>9,} GPUs", seconds, f"{seconds / smallest:.2f} × that of {WORLDS[0]:,}")


if __name__ == "__main__":
    main(sys.argv[1:])
