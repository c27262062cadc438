"""What came out of a simulation: times, rates, memory and their uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from simulator.details import Details


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEvent:
    """One task of the replay. Times in seconds from the start of the step."""

    process: str  # rank class, such as "stage 3 (×1024 ranks)"
    thread: str  # stream
    name: str
    category: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """The step on a machine with one figure changed.

    ``elasticity`` is the relative change of the step time over that of the figure, in logarithms: −1 where
    the step is all that figure's, 0 where it does not matter.
    """

    figure: str
    factor: float
    step_time_s: float
    elasticity: float
    verdict: str  # whether it fits there, as in ``memory``


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A prediction, in SI units (``*_tflops_*`` are 1e12 FLOP/s).

    ``breakdown_s`` says where the wall time of the compute stream went, averaged over all GPUs; its values
    sum to ``step_time_s``. So do those of ``waterfall_s``: first what the counted FLOPs would take at the
    peak, then every loss (:mod:`simulator.explain.waterfall`). ``step_time_interval_s`` is [p10, p90] from
    the stated errors of the cost models.
    """

    step_time_s: float
    step_time_interval_s: tuple[float, float]
    tokens_per_s: float
    tokens_per_s_per_gpu: float
    model_tflops_per_gpu: float
    hardware_tflops_per_gpu: float
    mfu: float
    hfu: float
    flops_convention: str
    peak_flops: float
    bubble_fraction: float
    breakdown_s: Mapping[str, float]
    waterfall_s: Mapping[str, float]
    memory: Mapping[str, Any]
    world_size: int
    warnings: tuple[str, ...]
    provenance: Mapping[str, Any]
    what_if: tuple[WhatIf, ...] = ()  # with other hardware, where it was asked for
    choices: tuple[str, ...] = ()  # what the run left to the simulator, and what it chose
    timeline: tuple[TimelineEvent, ...] = ()
    details: Details | None = None  # what pictures show beside; made with the timeline

    def to_dict(self) -> dict[str, Any]:
        """The stable JSON form; the timeline and details go to traces and pictures instead."""
        document = {
            name: list(value)
            if isinstance(value, tuple)
            else dict(value)
            if isinstance(value, Mapping)
            else value
            for name in self.__dataclass_fields__
            if name not in ("timeline", "details", "what_if")
            for value in (getattr(self, name),)
        }
        if self.what_if:
            document["what_if"] = [asdict(item) for item in self.what_if]
        return document

    def to_frame(self) -> pd.DataFrame:
        """The breakdown as a table: one row per category, with its seconds and its share of the step."""
        import pandas as pd  # noqa: PLC0415  heavy, and needed by nobody else here

        frame = pd.DataFrame(
            {"category": list(self.breakdown_s), "seconds": list(self.breakdown_s.values())}
        ).sort_values("seconds", ascending=False, ignore_index=True)
        frame["share"] = frame["seconds"] / self.step_time_s
        return frame
