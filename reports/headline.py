"""What was simulated and the numbers people ask for first, in words: the same on the screen and on a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

from reports.quantities import digits, gibibytes, percent, scaled, seconds, seconds_between
from simulator.result import Result
from simulator.spec.run import RunSpec


class Number(NamedTuple):
    """A headline number: what it is, its value, a remark."""

    label: str
    value: str
    remark: str


class Comparison(NamedTuple):
    """A published number beside the predicted one, all in words."""

    label: str
    predicted: str
    published: str
    deviation: str
    within: str  # whether the published step time lies between p10 and p90


def title(run: RunSpec) -> str:
    """The run's own name, or its model's."""
    return run.name or run.model.name


def headline(result: Result, run: RunSpec) -> tuple[Number, ...]:
    """Step time, throughput, FLOP rates and the bubble."""
    low, high = result.step_time_interval_s
    peak = f"{digits(result.peak_flops / 1e12)} TFLOP/s"
    hardware = f"{digits(result.hardware_tflops_per_gpu)} TFLOP/s, recompute included"
    return (
        Number("Step time", seconds(result.step_time_s, 4), f"p10 – p90: {seconds_between(low, high)}"),
        Number(
            "Throughput",
            f"{scaled(result.tokens_per_s)} {'samples' if run.model.layers else 'tokens'}/s",
            f"{digits(result.tokens_per_s_per_gpu)} per GPU",
        ),
        Number(
            "Model FLOPs",
            f"{digits(result.model_tflops_per_gpu)} TFLOP/s",
            f"per GPU ({result.flops_convention} counting)",
        ),
        Number("MFU", percent(result.mfu), f"of {peak} (dense {run.training.precision} peak)"),
        Number("HFU", percent(result.hfu), hardware),
        Number("Bubble", percent(result.bubble_fraction), "of the step: pipeline stages wait"),
    )


def facts(run: RunSpec) -> tuple[str, str, str]:
    """Model and machine; layout; batch."""
    p, t, cluster = run.parallelism, run.training, run.cluster
    sizes = {"TP": p.tp, "PP": p.pp, "VP": p.vp, "CP": p.cp, "EP": p.ep, "DP": run.dp}
    layout = " · ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1) or "one GPU"
    if p.pp > 1:
        layout += f" · {PurePath(run.schedule).name}"
    lengths = f"{t.seq_length:,}" + (f" and {t.decoder_seq_length:,}" if t.decoder_seq_length else "")
    what = "samples" if run.model.layers else f"sequences of {lengths} tokens"
    batch = f"{t.global_batch_size:,} {what}"
    microbatches = f"{run.microbatches} microbatches of {t.micro_batch_size}"
    return (
        f"{run.model.name} on {run.gpus:,} × {cluster.device.title or cluster.device.name} ({cluster.name})",
        layout,
        f"{batch} · {microbatches} · {t.precision}",
    )


def comparisons(result: Result, run: RunSpec) -> list[Comparison]:
    """Beside what the run's source measured; empty where it measured nothing."""
    published = run.published
    if published is None:
        return []
    low, high = result.step_time_interval_s
    found = []
    for label, predicted, measured, shown in (
        ("step time", result.step_time_s, published.step_time_s, seconds),
        ("model TFLOP/s per GPU", result.model_tflops_per_gpu, published.model_tflops_per_gpu, digits),
        ("MFU", result.mfu, published.mfu, percent),
    ):
        if measured:
            ratio = predicted / measured
            step_s = result.step_time_s * (1 / ratio if label == "step time" else ratio)  # as published
            within = "yes" if low <= step_s <= high else "no"
            deviation = f"{100 * (ratio - 1):+.1f} %"
            found.append(Comparison(label, shown(predicted), shown(measured), deviation, within))
    return found


def remarks(result: Result, run: RunSpec) -> list[str]:
    """What to know about the published numbers."""
    published = run.published
    if published is None:
        return []
    lines = [f"source: {published.source}"]
    if published.flops_convention:
        lines.append(f"published FLOPs: {published.flops_convention}; predicted: {result.flops_convention}")
    if published.notes:
        lines.append(published.notes)
    return lines


def verdict(result: Result) -> str:
    """Whether it fits: ``fits``, ``may not fit`` (the memory model may err so much), ``does not fit``."""
    return str(result.memory.get("verdict", "fits" if result.memory["fits"] else "does not fit"))


def remedy(change: Mapping[str, Any]) -> str:
    """A change that helps, as overrides of the run file, and what it costs."""
    settings = " ".join(f"--set {key}={_override(value)}" for key, value in change["settings"].items())
    gives = f"{seconds(change['step_time_s'])} a step, {gibibytes(change['peak_bytes'])} GiB"
    return f"{settings}: {gives}" + ("" if change["verdict"] == "fits" else f" ({change['verdict']})")


def _override(value: object) -> str:
    """A value as ``--set`` takes it; quoted for the shell where it has braces."""
    if not isinstance(value, Mapping):
        return str(value)
    parts = ", ".join(
        f"{key}: [{', '.join(item)}]" if isinstance(item, list) else f"{key}: {item}"
        for key, item in value.items()
    )
    return f"'{{{parts}}}'"
