"""What a sweep file says beside its run: what to look for, how, and what machines cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, TypeAlias

from simulator.spec.cluster import FORBID
from simulator.spec.fields import Choice, Number, Real, Text, Watts

OBJECTIVES = ("step_time", "tokens_per_s", "tokens_per_dollar", "tokens_per_kwh", "gpus_for_deadline")
SEARCHES = ("exhaustive", "best")

ObjectiveName: TypeAlias = Annotated[str, Choice(OBJECTIVES)]
SearchName: TypeAlias = Annotated[str, Choice(SEARCHES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSettings:
    """What machines cost, where their cluster does not say, and how much there is to do."""

    __pydantic_config__: ClassVar = FORBID

    price_per_gpu_hour: Real = 0.0
    """In a currency of your choice; a cluster's own price goes first. 0: not given."""
    power_per_gpu: Watts = 0.0
    """Of a node under load, over its GPUs; 0: the TDP of the device alone."""
    pue: Annotated[float, Number(1.0)] = 1.0
    """Power usage effectiveness: what the building draws over what the machines draw."""
    tokens: Real = 0.0
    """Training budget; 0: not given."""
    deadline_days: Real = 0.0
    """Time for the budget, for the objective gpus_for_deadline; 0: not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The keys of a sweep file beside ``run`` and ``constraints``."""

    __pydantic_config__: ClassVar = FORBID

    name: Text = ""
    """Of the sweep."""
    description: Text = ""
    """One line for the reader."""
    objective: ObjectiveName = "step_time"
    """What the best layout is best at."""
    search: SearchName = "exhaustive"
    """Every legal layout, or as many as it takes to be sure of the best one."""
    cost: CostSettings = field(default_factory=CostSettings)
    """What machines cost, and how much there is to do."""
