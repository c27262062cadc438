"""Predictions for published rows, in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from simulator.cost.sustained import Sustained
from simulator.graph.flops import find_convention
from simulator.result import Result
from simulator.simulate import simulate
from simulator.spec.run import RunSpec
from simulator.validation.published import PublishedRun
from simulator.validation.row_to_run import NotExpressibleError, refusals, to_run
from simulator.validation.unstated import with_unstated_layout, with_unstated_savings


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What was published and what is predicted for one row. Times in seconds, ``error`` relative."""

    row: PublishedRun
    measured_s: float
    predicted_s: float
    interval_s: tuple[float, float]
    peak_memory_bytes: float
    device: str
    hardware_flops: float  # of a step, over all GPUs
    peak_flops: float  # of all GPUs, in the precision of the linear layers
    breakdown_s: Mapping[str, float] = field(default_factory=dict)
    assumed: str = ""

    @property
    def error(self) -> float:
        """predicted / measured − 1."""
        return self.predicted_s / self.measured_s - 1.0

    @property
    def inside(self) -> bool:
        """Whether the measurement lies in the interval."""
        low, high = self.interval_s
        return low <= self.measured_s <= high


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A row without a prediction: every reason."""

    row: PublishedRun
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One distinct simulation: a run, at a sustained factor of its own or at the shipped one (``None``)."""

    run: RunSpec
    sustained: Sustained | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where to tell how far a validation is: ``total`` simulations of a batch, then ``done`` ones."""

    total: Callable[[str, int], None] = lambda what, runs: None
    done: Callable[[int], None] = lambda runs: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expressed:
    """A row that the simulator accepts: its run, the published step time in seconds, and what is assumed."""

    row: PublishedRun
    run: RunSpec
    measured_s: float
    assumed: str = ""


def express(rows: Iterable[PublishedRun]) -> tuple[list[Expressed], list[Refused]]:
    """Sorts rows into those that can be simulated and those that cannot, with the reasons."""
    accepted, refused = [], []
    for published in rows:
        row, layout_assumed = with_unstated_layout(published)
        try:
            run = to_run(row)
        except NotExpressibleError as error:
            refused.append(Refused(row=row, reasons=(str(error),)))
            continue
        measured = measured_step_s(row, run)
        reasons = refusals(run) if measured else ["no step time, tokens/s or TFLOP/s is published"]
        if reasons or measured is None:
            refused.append(Refused(row=row, reasons=tuple(reasons)))
        else:
            run, saving_assumed = with_unstated_savings(row, run)
            assumed = "; ".join(filter(None, (layout_assumed, saving_assumed)))
            accepted.append(Expressed(row=row, run=run, measured_s=measured, assumed=assumed))
    return accepted, refused


def measured_step_s(row: PublishedRun, run: RunSpec) -> float | None:
    """The published step time, or what follows from tokens/s, or from TFLOP/s by the row's own convention."""
    measured, batch = row.measured, run.training.global_batch_size
    if measured.step_time_s:
        return measured.step_time_s
    if measured.tokens_per_s_per_gpu:
        return batch * run.training.seq_length / (measured.tokens_per_s_per_gpu * run.gpus)
    if measured.tflops_per_gpu and measured.flops_convention:
        flops = find_convention(measured.flops_convention).flops_per_step(
            run.model, seq_length=run.training.seq_length, global_batch_size=batch
        )
        return flops / (measured.tflops_per_gpu * 1e12 * run.gpus)
    return None


class Simulations:
    """Simulates rows in parallel and remembers every result: equal runs at equal factors run once.

    Args:
        workers: processes.
        progress: told what is simulated and how far it is.
    """

    def __init__(self, workers: int = 2, progress: Progress | None = None) -> None:
        self.workers = workers
        self.progress = progress or Progress()
        self._known: dict[str, Result | str] = {}

    def predict(
        self, expressed: Sequence[Expressed], sustained: Mapping[str, Sustained] | None = None, what: str = ""
    ) -> tuple[list[Prediction], list[Refused]]:
        """Predictions in the order of the rows, and the rows where the simulator failed.

        Args:
            expressed: from :func:`express`.
            sustained: run_id -> sustained factor (the shipped one where absent).
            what: the name of this batch, for the progress.
        """
        factors = sustained or {}
        tasks = [Task(run=anonymous(item.run), sustained=factors.get(item.row.run_id)) for item in expressed]
        keys = [repr(task) for task in tasks]
        self._simulate(dict(zip(keys, tasks, strict=True)), what)
        predictions, failed = list[Prediction](), list[Refused]()
        for item, key in zip(expressed, keys, strict=True):
            result = self._known[key]
            if isinstance(result, str):
                failed.append(Refused(row=item.row, reasons=(result,)))
            else:
                predictions.append(_prediction(item, result))
        return predictions, failed

    def _simulate(self, tasks: Mapping[str, Task], what: str) -> None:
        new = {key: task for key, task in tasks.items() if key not in self._known}
        self.progress.total(what, len(new))
        for key, result in zip(new, _outcomes(list(new.values()), self.workers), strict=True):
            self._known[key] = result
            self.progress.done(1)


def anonymous(run: RunSpec) -> RunSpec:
    """A run without its name and its measurement: equal runs have equal predictions."""
    return replace(run, name="", description="", published=None)


def _outcomes(tasks: list[Task], workers: int) -> Iterator[Result | str]:
    if workers == 1 or len(tasks) <= 1:
        yield from map(outcome, tasks)
        return
    from loky import get_reusable_executor  # noqa: PLC0415  not needed for one worker

    executor = get_reusable_executor(max_workers=workers)  # whose caches are there the next time
    try:
        for future in [executor.submit(outcome, task) for task in tasks]:
            yield future.result()
    except BaseException:  # an interruption: nobody waits for the rest
        executor.shutdown(kill_workers=True)
        raise


def outcome(task: Task) -> Result | str:
    """The result of one simulation, or why there is none: one row's failure must not hide the others."""
    try:
        return simulate(slowed(task.run, task.sustained))
    except Exception as error:
        return f"fails: {type(error).__name__}: {error}"


def slowed(run: RunSpec, sustained: Sustained | None) -> RunSpec:
    """The run at a sustained factor of its own, or at its device's shipped one (``None``)."""
    if sustained is None:
        return run
    simulation = replace(run.simulation, sustained=sustained.factor, sustained_error=sustained.error or 0.0)
    return replace(run, simulation=simulation)


def _prediction(item: Expressed, result: Result) -> Prediction:
    low, high = result.step_time_interval_s
    return Prediction(
        row=item.row,
        measured_s=item.measured_s,
        predicted_s=result.step_time_s,
        interval_s=(low, high),
        peak_memory_bytes=_peak(result, item.row.measured.memory_basis),
        hardware_flops=result.hardware_tflops_per_gpu * 1e12 * item.run.gpus * result.step_time_s,
        device=item.run.cluster.device.name,
        peak_flops=result.peak_flops * item.run.gpus,
        breakdown_s=dict(result.breakdown_s),
        assumed=item.assumed,
    )


def _peak(result: Result, basis: str) -> float:
    """The peak as the row measured it: ``allocated``, ``reserved``, or all that the device holds."""
    return float(result.memory[f"{basis}_bytes" if basis else "peak_bytes"])
