"""One run, simulated part by part: each is worked out when it is first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from simulator.cost.kernels import Kernels
from simulator.engine.block import Blocks
from simulator.engine.conditions import SOUND, Condition
from simulator.engine.replay import paused_collector
from simulator.engine.step import StepReplay
from simulator.graph.adapters import untrained_flops
from simulator.graph.flops import PASSES, Convention, find_convention
from simulator.memory.report import MemoryReport
from simulator.preparation.prepare import prepare
from simulator.preparation.unevenness import disturbances_of
from simulator.shared import Shared
from simulator.spec.run import RunSpec

_RECENT = Shared(most=32)  # of simulations that are not given one


class Rates(NamedTuple):
    """What a step time comes to; ``*_tflops_*`` are 1e12 FLOP/s."""

    tokens_per_s: float
    tokens_per_s_per_gpu: float
    model_tflops_per_gpu: float
    hardware_tflops_per_gpu: float
    mfu: float
    hfu: float


class Simulation:
    """One run. Who asks for little waits little: a sweep needs no more than fit, time and rates."""

    def __init__(
        self, run: RunSpec, shared: Shared | None = None, *, whole: bool = False, fold: bool = True
    ) -> None:
        """``shared``: of other simulations; by default of the last few. ``fold``: microbatches of a steady
        state may stand for others. ``whole``: none may, and every stream is a process of its own.

        Raises ValueError where the layout is impossible; the message names the rule.
        """
        self.shared = shared or _RECENT
        self.prepared = prepare(run, self.shared.blocks)
        self.run = self.prepared.run
        self._whole = whole
        self._fold = fold

    @cached_property
    def kernels(self) -> Kernels:
        """The kernel model of the run's cluster."""
        return self.shared.kernels(self.run)

    @cached_property
    def blocks(self) -> Blocks:
        """Timed operators and replayed blocks."""
        return self._blocks_of(SOUND, SOUND)

    def _blocks_of(self, own: Condition, data: Condition) -> Blocks:
        return self.shared.blocks(self.run, self.prepared.schedule.directions, own, data)

    @cached_property
    def memory(self) -> MemoryReport:
        """The peak of every device."""
        return self.prepared.memory(self.step.orders if self._whole else None)

    @cached_property
    def step(self) -> StepReplay:
        """The step, replayed."""
        with paused_collector():
            disturbances = disturbances_of(self.run, self.prepared.schedule, self._blocks_of)
            return self.prepared.replay(self.blocks, disturbances, whole=self._whole, fold=self._fold)

    @cached_property
    def peak_flops(self) -> float:
        """FLOP/s of the device at the run's precision."""
        return self.kernels.peak(self.run.training.precision)

    @property
    def convention(self) -> Convention:
        """How the model's FLOPs are counted."""
        return find_convention(self.run.simulation.flops_convention)

    @cached_property
    def model_flops(self) -> float:
        """Of a step, as the convention counts them; those that adapters save are not counted."""
        training, vocabulary = self.run.training, self.prepared.plan.padded_vocab_size
        tokens = training.global_batch_size * training.seq_length
        untrained = untrained_flops(self.run.model, training.lora, tokens=tokens, vocab_size=vocabulary)
        whole = self.convention.flops_per_step(
            self.run.model,
            seq_length=training.seq_length,
            global_batch_size=training.global_batch_size,
            padded_vocab_size=vocabulary,
            decoder_seq_length=training.decoder_seq_length,
            documents=self.run.documents,
        )
        return whole / PASSES if self.prepared.plan.forward_only else whole - untrained

    @cached_property
    def rates(self) -> Rates:
        """What the step time comes to."""
        run, plan, seconds = self.run, self.prepared.plan, self.step.seconds
        lengths = run.training.seq_length + run.training.decoder_seq_length
        tokens = run.training.global_batch_size * lengths
        model = self.model_flops / (seconds * run.gpus)
        hardware = plan.flops_per_replica * plan.data.replicas / (seconds * run.gpus)
        return Rates(
            tokens_per_s=tokens / seconds,
            tokens_per_s_per_gpu=tokens / (seconds * run.gpus),
            model_tflops_per_gpu=model / 1e12,
            hardware_tflops_per_gpu=hardware / 1e12,
            mfu=model / self.peak_flops,
            hfu=hardware / self.peak_flops,
        )
