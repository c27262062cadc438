"""A rank's share of a layer: steps on streams, with the waits between them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from simulator.graph.operators import Awaited, Collective, Copy, Operator, SendRecv

COMPUTE = "compute"
HOST = "host"  # of the stream that launches kernels
ELSEWHERE = "elsewhere"  # what another rank of a group does meanwhile


@dataclass(frozen=True, slots=True)
class Step:
    """One operator on one stream. It starts after the steps before it on its stream and after ``waits``.

    ``waits`` are positions within the same segment. ``weight_gradient`` marks work that a zero-bubble
    schedule may postpone.
    """

    op: Operator
    stream: str
    waits: tuple[int, ...] = ()
    weight_gradient: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """Steps in issue order. A segment starts with all streams idle and ends when all are idle again."""

    steps: tuple[Step, ...]

    @property
    def flops(self) -> float:
        """FLOPs of one rank."""
        return sum(step.op.flops for step in self.steps)


@dataclass(slots=True)
class SegmentBuilder:
    """Collects steps; keeps track of what the next compute step must wait for."""

    steps: list[Step] = field(default_factory=list)
    last_compute: int | None = None
    pending: tuple[int, ...] = ()  # communication that the next compute step on the data path needs
    elsewhere: tuple[int, ...] = ()  # another rank's work that the next communication needs

    def compute(self, op: Operator, *, waits: tuple[int, ...] = (), weight_gradient: bool = False) -> int:
        """Appends a kernel on the data path."""
        self.steps.append(Step(op, COMPUTE, (*self.pending, *waits), weight_gradient))
        self.pending = ()
        self.last_compute = len(self.steps) - 1
        return self.last_compute

    def beside(self, op: Operator, *, waits: tuple[int, ...] = ()) -> int:
        """Appends a kernel that does not wait for pending communication (it runs beside it)."""
        self.steps.append(Step(op, COMPUTE, waits, True))
        self.last_compute = len(self.steps) - 1
        return self.last_compute

    def communicate(self, op: Collective | SendRecv) -> int:
        """Starts communication once the data path has produced its input; returns its position."""
        after = self.pending if self.last_compute is None else (*self.pending, self.last_compute)
        self.steps.append(Step(op, op.axis, (*after, *self.elsewhere)))
        self.elsewhere = ()
        return len(self.steps) - 1

    def exposed(self, op: Collective | SendRecv) -> None:
        """Communication whose result the next kernel needs."""
        self.pending = (self.communicate(op),)

    def synchronise(self, op: Copy) -> None:
        """Makes the host wait for a copy before it launches what follows."""
        after = self.pending if self.last_compute is None else (*self.pending, self.last_compute)
        self.steps.append(Step(op, HOST, after))
        self.pending = (len(self.steps) - 1,)

    def await_elsewhere(
        self, op: Awaited, arrived: tuple[int, ...], *, weight_gradient: bool = False
    ) -> None:
        """Work of the most loaded rank, begun once ``arrived``; the next communication waits for it."""
        self.steps.append(Step(op, ELSEWHERE, arrived, weight_gradient))
        self.elsewhere = (len(self.steps) - 1,)

    def build(self) -> Segment:
        """The finished segment."""
        return Segment(tuple(self.steps))


def split_gradients(backward: Segment) -> tuple[Segment, Segment]:
    """A backward pass as its input-gradient part and its weight-gradient part, for zero-bubble schedules.

    Communication that only weight gradients wait for goes with them.
    """
    late = {i for i, step in enumerate(backward.steps) if step.weight_gradient}
    for index in reversed(range(len(backward.steps))):
        users = {i for i, step in enumerate(backward.steps) if index in step.waits}
        if backward.steps[index].stream != COMPUTE and users and users <= late:
            late.add(index)
    early = [i for i in range(len(backward.steps)) if i not in late]
    return _select(backward, early), _select(backward, sorted(late))


def _select(segment: Segment, kept: list[int]) -> Segment:
    position = {old: new for new, old in enumerate(kept)}
    return Segment(
        tuple(
            replace(
                segment.steps[i], waits=tuple(position[w] for w in segment.steps[i].waits if w in position)
            )
            for i in kept
        )
    )
