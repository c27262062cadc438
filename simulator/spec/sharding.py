"""Where sharded parameters and optimizer states live, and when they are whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict

from simulator.spec.cluster import FORBID
from simulator.spec.fields import Choice, Count, FlagOrAuto

Home: TypeAlias = Annotated[Literal["device", "cpu", "nvme"], Choice(("device", "cpu", "nvme"))]
GatherBuffers: TypeAlias = Annotated[
    Literal["copied", "flat", "in-place"], Choice(("copied", "flat", "in-place"))
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FullySharded:
    """How sharded parameters come and gradients go: FSDP and ZeRO-3. A unit is a layer, embedding or head."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    reshard_after_forward: FlagOrAuto = None
    """Free a unit after its forward and gather it again for its backward; null: where pp is 1."""
    reshard_after_backward: FlagOrAuto = None
    """Free a unit after its backward, or gather it once a step; null: where pp is 1."""
    gradient_sync: Annotated[str, Choice(("", "microbatch", "step"))] = ""
    """Reduce gradients after every microbatch or the last; empty: microbatch where pp is 1, else step."""
    prefetch: Count = 1
    """Units that gathers run ahead of compute."""
    buffers: GatherBuffers = "copied"
    """What collectives use: buffers of their own (FSDP2), a flat tensor (FSDP1), the tensors themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateOffload:
    """Homes outside the device. What lives on NVMe passes through host memory."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    optimizer: Home = "device"
    """Of the optimizer's states; cpu and nvme: the host's processors run its step (needs zero 1 to 3)."""
    parameters: Home = "device"
    """Of sharded parameters, fetched before each gather (needs zero 3 and an optimizer on the host)."""
