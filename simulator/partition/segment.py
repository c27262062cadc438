"""A rank's share of a layer: steps on streams, with the waits between them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from simulator.graph.operators import Awaited, Collective, Copy, Operator, SendRecv

COMPUTE = "compute"
HOST = "host"  # of the stream that launches kernels
ELSEWHERE = "elsewhere"  # what another rank of a group does meanwhile


@dataclass(frozen=True, slots=True)
class Step:
    """One operator on one stream. It starts after the steps before it on its stream and after ``waits``.

    ``waits`` are positions within the same segment. ``weight_gradient`` marks work that a zero-bubble
    schedule may postpone. ``beside`` are positions of communication that runs next to a kernel and takes some
    of its processors. ``captured``: a layer's CUDA graph may hold it (its shape is known beforehand).
    ``opens_part``: the software runs what begins here as a part of its own. ``continues``: one call of the
    software launches it with the step before.
    """

    op: Operator
    stream: str
    waits: tuple[int, ...] = ()
    weight_gradient: bool = False
    beside: tuple[int, ...] = ()
    captured: bool = True
    opens_part: bool = False
    continues: bool = False

    def moved(self, position: Callable[[int], int]) -> Step:
        """The step with the positions it refers to renumbered."""
        return replace(
            self,
            waits=tuple(position(wait) for wait in self.waits),
            beside=tuple(position(other) for other in self.beside),
        )


@dataclass(frozen=True, slots=True)
class Way:
    """Steps that may stand in place of a segment's steps [start, stop), doing the same.

    Their positions count from ``start``. Both versions begin with what the data path has ready, and both are
    done when their last step is.
    """

    start: int
    stop: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """Steps in issue order. A segment starts with all streams idle and ends when all are idle again.

    ``ways`` are other ways to do parts of it, first to last, apart from each other: who runs it takes the
    quickest.
    """

    steps: tuple[Step, ...]
    ways: tuple[Way, ...] = ()

    @property
    def flops(self) -> float:
        """FLOPs of one rank."""
        return sum(step.op.flops for step in self.steps)

    def versions(self, way: Way) -> tuple[Segment, Segment]:
        """The replaced part and its replacement, each as a segment of its own."""
        return _alone(self.steps[way.start : way.stop], way.start), _alone(way.steps, way.start)

    def taking(self, chosen: Collection[Way]) -> Segment:
        """The segment with some of its ways taken, and no choice left."""
        steps = self.steps
        for way in sorted(chosen, key=lambda way: way.start, reverse=True):  # earlier positions stay valid
            steps = _replaced(steps, way)
        return Segment(steps)


def _alone(steps: Sequence[Step], start: int) -> Segment:
    """Steps that begin at position ``start``, without what they wait for before it."""
    return Segment(
        tuple(
            replace(
                step,
                waits=tuple(w - start for w in step.waits if w >= start),
                beside=tuple(b - start for b in step.beside if b >= start),
            )
            for step in steps
        )
    )


def _replaced(steps: tuple[Step, ...], way: Way) -> tuple[Step, ...]:
    last, longer = way.start + len(way.steps) - 1, len(way.steps) - (way.stop - way.start)

    def position(old: int) -> int:
        if old < way.start:
            return old
        return last if old < way.stop else old + longer

    return (*steps[: way.start], *way.steps, *(step.moved(position) for step in steps[way.stop :]))


@dataclass(slots=True)
class SegmentBuilder:
    """Collects steps; keeps track of what the next compute step must wait for."""

    steps: list[Step] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)
    last_compute: int | None = None
    pending: tuple[int, ...] = ()  # communication that the next compute step on the data path needs
    elsewhere: tuple[int, ...] = ()  # another rank's work that the next communication needs
    captured: bool = True  # of the steps appended from now on

    def compute(
        self,
        op: Operator,
        *,
        waits: tuple[int, ...] = (),
        weight_gradient: bool = False,
        beside: tuple[int, ...] = (),
    ) -> int:
        """Appends a kernel on the data path."""
        self._append(Step(op, COMPUTE, (*self.pending, *waits), weight_gradient, beside))
        self.pending = ()
        self.last_compute = len(self.steps) - 1
        return self.last_compute

    def beside(self, op: Operator, *, waits: tuple[int, ...] = (), beside: tuple[int, ...] = ()) -> int:
        """Appends a kernel that does not wait for pending communication (it runs beside it)."""
        self._append(Step(op, COMPUTE, waits, True, beside))
        self.last_compute = len(self.steps) - 1
        return self.last_compute

    @property
    def ready(self) -> tuple[int, ...]:
        """What the data path has to have done before its next step."""
        return self.pending if self.last_compute is None else (*self.pending, self.last_compute)

    def otherwise(self, start: int, steps: Sequence[Step]) -> None:
        """Another way to do the steps appended since ``start``."""
        self.ways.append(Way(start, len(self.steps), tuple(steps)))

    def communicate(self, op: Collective | SendRecv) -> int:
        """Starts communication once the data path has produced its input; returns its position."""
        self._append(Step(op, op.axis, (*self.ready, *self.elsewhere)))
        self.elsewhere = ()
        return len(self.steps) - 1

    def alongside(self, op: Collective | SendRecv, waits: tuple[int, ...]) -> int:
        """Starts communication after given steps, whatever else the data path does; returns its position."""
        self._append(Step(op, op.axis, waits))
        return len(self.steps) - 1

    def exposed(self, op: Collective | SendRecv) -> None:
        """Communication whose result the next kernel needs."""
        self.pending = (self.communicate(op),)

    def synchronise(self, op: Copy) -> None:
        """Makes the host wait for a copy before it launches what follows."""
        self._append(Step(op, HOST, self.ready))
        self.pending = (len(self.steps) - 1,)

    def await_elsewhere(
        self, op: Awaited, arrived: tuple[int, ...], *, weight_gradient: bool = False
    ) -> None:
        """Work of the most loaded rank, begun once ``arrived``; the next communication waits for it."""
        self._append(Step(op, ELSEWHERE, arrived, weight_gradient))
        self.elsewhere = (len(self.steps) - 1,)

    def _append(self, step: Step) -> None:
        self.steps.append(step if self.captured else replace(step, captured=False))

    def build(self) -> Segment:
        """The finished segment."""
        return Segment(tuple(self.steps), tuple(self.ways))


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

    def among(positions: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(position[old] for old in positions if old in position)

    def chosen(step: Step) -> Step:
        return replace(step, waits=among(step.waits), beside=among(step.beside))

    return Segment(
        tuple(chosen(segment.steps[i]) for i in kept),
        tuple(_kept_way(way, position) for way in segment.ways if way.start in position),
    )


def _kept_way(way: Way, position: dict[int, int]) -> Way:
    """A way within kept steps; what it waits for before its start may be gone."""
    start = position[way.start]

    def among(positions: tuple[int, ...]) -> tuple[int, ...]:
        before = (position[old] for old in positions if old < way.start and old in position)
        return (*before, *(old - way.start + start for old in positions if old >= way.start))

    steps = (replace(step, waits=among(step.waits), beside=among(step.beside)) for step in way.steps)
    return Way(start, position[way.stop - 1] + 1, tuple(steps))
