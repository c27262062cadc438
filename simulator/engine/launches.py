"""The host's part of a segment: when it issues what."""

from __future__ import annotations

from simulator.engine.host import HostCosts
from simulator.engine.tasks import Task, Token
from simulator.partition.segment import HOST, Step


class Launches:
    """What the host has yet to issue of a segment, and after what.

    While nothing makes the host wait it runs ahead of the kernels: only its total counts, at the end of the
    segment. After a synchronisation both are level: each kernel waits until it is issued.
    """

    def __init__(self, costs: HostCosts, begin: Token) -> None:
        self._costs = costs
        self._after = begin
        self._eager_s = 0.0
        self._captured_s = 0.0
        self._level = False

    def take(self, step: Step, issue_s: float) -> None:
        """One more operator, which takes so long to issue by itself."""
        seconds = self._costs.relaunch_s if step.continues else issue_s
        if step.captured:
            self._captured_s += seconds
        else:
            self._eager_s += seconds
        if step.opens_part:
            self._eager_s += self._costs.part_s

    def awaited(self, step: Step) -> bool:
        """Whether a step that was just taken has to wait until it is issued."""
        return self._level and step.stream != HOST and not step.captured and self._eager_s > 0.0

    def launch(self, signal: Token) -> Task:
        """Issues what was taken."""
        seconds = self._costs.launch(self._captured_s, self._eager_s)
        self._eager_s = self._captured_s = 0.0
        return Task("launch", HOST, seconds, (self._after,), signal)

    def synchronise(self, launched: Token, done: Token) -> Task:
        """Issues what was taken; what comes later is issued once ``done``."""
        task = self.launch(launched)
        self._after, self._level = done, True
        return task
