"""Optimizer states and parameters outside the device: ZeRO-Offload and ZeRO-Infinity.

Reduced gradients go to the host, whose processors update the shard and send its 16-bit weights back (Ren
2021). States on NVMe are read before the update and written after it; fully sharded parameters may live there
too, and each unit's shard is then fetched before its gather (Rajbhandari 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from simulator.graph.operators import Copy, HostUpdate, Operator
from simulator.partition.optimizer import Optimizer

Home = Literal["device", "cpu", "nvme"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateOffload:
    """Where the optimizer's states and the parameters live; ``sharers`` ranks of a node share its host."""

    optimizer: Home = "device"
    parameters: Home = "device"
    sharers: int = 1

    def leave(self, elements: float, grad_bytes: float) -> tuple[Copy, ...]:
        """A shard's reduced gradients on their way to the host."""
        if self.optimizer == "device":
            return ()
        return (Copy(name="gradients.offload", kind="d2h", size_bytes=elements * grad_bytes),)

    def update(self, elements: float, grad_bytes: float, optimizer: Optimizer) -> tuple[Operator, ...]:
        """A shard's step on the host: gradient and states read, states and the 16-bit weight written."""
        state = elements * optimizer.state_bytes
        gradient, weight = elements * grad_bytes, elements * optimizer.parameter_bytes
        step = HostUpdate(
            name="host_optimizer",
            read_bytes=gradient + state,
            write_bytes=state + weight,
            sharers=self.sharers,
        )
        ops: list[Operator] = [step]
        if self.optimizer == "nvme":
            ops = [self._nvme("nvme_read", state), step, self._nvme("nvme_write", state)]
        if self.parameters == "device":
            ops.insert(ops.index(step) + 1, Copy(name="weights.reload", kind="h2d", size_bytes=weight))
        elif self.parameters == "nvme":
            ops.append(self._nvme("nvme_write", weight))
        return tuple(ops)

    def fetch(self, size_bytes: float) -> tuple[Copy, ...]:
        """A shard of weights on its way to the device, before their gather."""
        if self.parameters == "device":
            return ()
        up = Copy(name="weights.fetch", kind="h2d", size_bytes=size_bytes)
        return (self._nvme("nvme_read", size_bytes), up) if self.parameters == "nvme" else (up,)

    def _nvme(self, kind: Literal["nvme_read", "nvme_write"], size_bytes: float) -> Copy:
        return Copy(name=f"states.{kind}", kind=kind, size_bytes=size_bytes, sharers=self.sharers)


ON_DEVICE = StateOffload()
