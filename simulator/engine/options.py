"""How a step is run, and in how much detail it is replayed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """Switches of the software and of the replay."""

    overlap_grad_reduce: bool
    overlap_param_gather: bool
    overlap_p2p: bool
    overlap_warmup_flush: bool = True  # where p2p overlaps: also outside a device's steady state
    batch_p2p: bool = True  # where it does not: what is sent and received at once is one call
    every_operator: bool = False
    every_rank: bool = False
    overlap_experts: bool = False  # run forwards and backwards in pairs, beside each other's all-to-alls
    delay_wgrad: bool = False
    fold_steady_state: bool = True  # replay a periodic middle once
    quiet_steps: bool = True  # what only messages can delay runs in one queue, not in a process per stream
    post_validation: bool = False  # no device waits for the norm of all gradients before it updates

    @property
    def in_detail(self) -> bool:
        """Whether operators or ranks are replayed one by one."""
        return self.every_operator or self.every_rank

    @property
    def may_fold(self) -> bool:
        """Whether microbatches may stand for others."""
        return self.fold_steady_state and not self.in_detail

    def blocks_p2p(self, devices: int, vp: int) -> bool:
        """Whether neighbours wait for each other in blocking exchanges."""
        return not self.overlap_p2p and vp == 1 and devices > 1
