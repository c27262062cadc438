"""How layouts are ranked: scores where less is better, none of which falls as the step takes longer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from simulator.spec.errors import Problem, SpecError
from simulator.spec.run import RunSpec
from simulator.sweep.settings import CostSettings

Score: TypeAlias = tuple[float, ...]

DAY_S, HOUR_S = 86400.0, 3600.0
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What a run costs per token and for the whole budget; 0 where a price or a budget is not given."""

    tokens_per_dollar: float
    tokens_per_kwh: float
    days: float
    dollars: float
    kwh: float


@dataclass(frozen=True, slots=True)
class Objective:
    """A way to rank layouts. Its scores compare within one sweep."""

    name: str
    cost: CostSettings

    def score(self, run: RunSpec, step_time_s: float) -> Score:
        """Less is better; never falls as ``step_time_s`` grows, so a bound of the time gives one of the
        score.
        """
        seconds_per_token = step_time_s / tokens_per_step(run)
        match self.name:
            case "step_time":
                return (step_time_s,)
            case "tokens_per_s":
                return (seconds_per_token,)
            case "tokens_per_dollar":
                return (seconds_per_token * run.gpus * self.price(run),)
            case "tokens_per_kwh":
                return (seconds_per_token * run.gpus * self.watts(run),)
        days = self.cost.tokens * seconds_per_token / DAY_S
        return (0.0, run.gpus, days) if days <= self.cost.deadline_days else (1.0, days, run.gpus)

    def price(self, run: RunSpec) -> float:
        """Of a GPU-hour."""
        return run.cluster.price_per_gpu_hour or self.cost.price_per_gpu_hour

    def watts(self, run: RunSpec) -> float:
        """Of a GPU with its share of node and building."""
        return (self.cost.power_per_gpu or run.cluster.device.tdp_w) * self.cost.pue

    def spending(self, run: RunSpec, step_time_s: float) -> Spending:
        """Money, energy and time."""
        tokens = tokens_per_step(run)
        dollars = step_time_s * run.gpus * self.price(run) / HOUR_S
        kwh = step_time_s * run.gpus * self.watts(run) / JOULES_PER_KWH
        steps = self.cost.tokens / tokens
        return Spending(
            tokens_per_dollar=tokens / dollars if dollars else 0.0,
            tokens_per_kwh=tokens / kwh if kwh else 0.0,
            days=steps * step_time_s / DAY_S,
            dollars=steps * dollars,
            kwh=steps * kwh,
        )

    def check(self, run: RunSpec) -> None:
        """Raises SpecError where the objective needs what neither sweep file nor cluster says."""
        missing = {
            "tokens_per_dollar": ("price_per_gpu_hour", self.price(run)),
            "tokens_per_kwh": ("power_per_gpu", self.watts(run)),
            "gpus_for_deadline": ("deadline_days", self.cost.deadline_days and self.cost.tokens),
        }.get(self.name)
        if missing is None or missing[1]:
            return
        key = f"cost.{missing[0]}"
        rule = f"the objective {self.name} needs {key}"
        if self.name == "gpus_for_deadline":
            rule += " and cost.tokens"
        raise SpecError(Problem(key_path=key, rule=rule, suggestion=f"--set {key}=..."))


def tokens_per_step(run: RunSpec) -> int:
    """Tokens of a global batch."""
    return run.training.global_batch_size * run.training.seq_length
