"""A memory report in words and in its stable JSON form."""

from __future__ import annotations

from simulator.memory.report import RELATIVE_ERROR, MemoryReport, StageMemory

GIB = 2.0**30


def to_mapping(report: MemoryReport) -> dict[str, object]:
    """The stable JSON form, in bytes. The five parts of a stage sum to its ``peak_bytes``."""
    return {
        "peak_bytes": report.peak_bytes,
        "allocated_bytes": report.allocated_bytes,
        "reserved_bytes": report.reserved_bytes,
        "capacity_bytes": report.capacity_bytes,
        "fits": report.fits,
        "verdict": report.verdict,
        "relative_error": RELATIVE_ERROR,
        "stages": [_stage_mapping(stage) for stage in report.stages],
    }


def _stage_mapping(stage: StageMemory) -> dict[str, float | int | str]:
    """``buffers`` include what is outside PyTorch; it is listed apart too."""
    return {
        "weights": stage.weights,
        "gradients": stage.gradients,
        "optimizer": stage.optimizer,
        "activations": stage.activations,
        "buffers": stage.buffers + stage.context + stage.communication,
        "peak_bytes": stage.peak_bytes,
        "allocated_bytes": stage.allocated_bytes,
        "reserved_bytes": stage.reserved_bytes,
        "fragmentation": stage.fragmentation,
        "context": stage.context,
        "communication": stage.communication,
        "peak_action": stage.peak_action,
        "kept_forwards": stage.kept_forwards,
    }


def memory_warnings(report: MemoryReport) -> tuple[str, ...]:
    """What a reader must know before starting the run."""
    if report.verdict == "fits":
        return ()
    needed, there = report.peak_bytes / GIB, report.capacity_bytes / GIB
    cached, error = report.comfortable_bytes / GIB, 100 * RELATIVE_ERROR
    if report.verdict == "does not fit":
        return (f"does not fit: the fullest rank needs {needed:.1f} GiB of {there:.1f} GiB",)
    return (
        f"may not fit: the fullest rank needs {needed:.1f} GiB of {there:.1f} GiB, {cached:.1f} with what "
        f"PyTorch caches; the memory model is up to {error:.0f} % off",
    )
