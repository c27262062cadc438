"""Bucketed data parallelism: DDP and Megatron-LM's distributed optimizer (ZeRO-1), ZeRO-2.

The step begins where the last optimizer step ended: updated parameters are gathered first, each bucket before
the forward that needs it. Gradients are reduced when the last microbatch's backward has completed a bucket,
or all of them at the end. ZeRO-2, which keeps no whole gradients, reduces those of every microbatch, and
without overlap each bucket while its backward waits (DeepSpeed's hooks, ``runtime/zero/stage_1_and_2.py``,
with ``overlap_comm`` off: a full bucket is reduced on the stream of the backward itself).
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.engine.block import Placed
from simulator.engine.costing import exposed
from simulator.engine.data_traffic import Before, Piece, cut, reduce_bucket
from simulator.engine.data_work import DP, STREAMS, DataWork
from simulator.engine.device_costs import DeviceCosts
from simulator.engine.tasks import COMPUTE, Task, Token
from simulator.partition.data import Bucket
from simulator.partition.plan import RunPlan
from simulator.schedule.actions import Action, Kind


class BucketedTraffic:
    """Implements :class:`simulator.engine.data_traffic.DataTraffic` for replicated parameters."""

    def __init__(
        self,
        plan: RunPlan,
        work: DataWork,
        costs: DeviceCosts,
        *,
        overlap_gather: bool,
        overlap_reduce: bool,
        update: int = 0,
    ) -> None:
        self._plan = plan
        self._work = work
        self._costs = costs
        self._overlap_reduce = overlap_reduce
        self._update = update  # which of several in a row
        self._every_microbatch = plan.data.zero == 2
        self.meets_parameters = overlap_gather  # then a bucket's gather is awaited by its forward alone
        self.meets_gradients = overlap_reduce or self._every_microbatch  # it goes once it is complete
        self._edges: set[int] = set()
        self._gathered: set[Token] = set()
        self._completed: list[tuple[Action, Bucket]] = []
        self._reduced: list[Token] = []

    def begin(self, actions: Sequence[Action]) -> list[Placed]:
        """All-gathers of updated parameters, in the order in which forwards need them.

        Overlapped, a bucket's gather is issued when the forward of the bucket before it in the same group
        begins (Megatron-LM's hooks); otherwise nothing starts before all have come.
        """
        first = {a.stage: a for a in reversed(actions) if a.kind is Kind.F}
        last = _last_gradients(actions)
        if self.meets_parameters:
            self._edges = {id(action) for action in first.values()}
        if self.meets_gradients:
            self._edges |= {id(action) for action in last}
        else:
            self._completed = [
                (action, bucket)
                for action in last
                for piece in reversed(cut(self._plan.chunks[action.stage]))
                for bucket in piece.buckets
            ]
        placed: list[Placed] = []
        hooks: dict[str, tuple[Token, ...]] = {}
        for stage, direction in dict.fromkeys((a.stage, a.direction) for a in actions if a.kind is Kind.F):
            for bucket in reversed(self._plan.chunks[stage].buckets):
                op = self._work.bucket(bucket).gather
                if op is None:
                    continue
                waits = hooks.get(bucket.axis, ()) if self.meets_parameters else ()
                known_as = ("parameters", self._update, stage, bucket.first_layer)
                signal = self._token("parameters", stage, direction, bucket)
                self._gathered.add(signal)
                name = f"stage {stage}.param_all_gather"
                placed.append(
                    self._costs.collective(op, STREAMS[op.axis], waits, signal, known_as=known_as, name=name)
                )
                hooks[bucket.axis] = (self._token("hook", stage, direction, bucket),)
        if placed and not self.meets_parameters:
            ready = tuple(task.signal for _, task in placed)
            placed.append(Placed(COMPUTE, Task("parameters ready", exposed(DP), 0.0, ready)))
        return placed

    def pieces(self, action: Action) -> Sequence[Piece] | None:
        """Cut are every stage's first forward where gathers overlap, its last backward where reductions do.

        With ZeRO-2 every backward is.
        """
        every_gradient = self._every_microbatch and action.kind in (Kind.B, Kind.W)
        return cut(self._plan.chunks[action.stage]) if every_gradient or id(action) in self._edges else None

    def before(self, action: Action, piece: Piece, waits: tuple[Token, ...]) -> Before:
        """The forward pre-hooks: each waits for its bucket's parameters and lets the next gather start."""
        placed: list[Placed] = []
        hook: Token | None = None
        for bucket in piece.buckets if action.kind is Kind.F else ():
            if hook is not None:
                placed.append(Placed(COMPUTE, Task("hook", COMPUTE, 0.0, waits, hook)))
                waits = ()
            parameters = self._token("parameters", action.stage, action.direction, bucket)
            if parameters in self._gathered:
                waits = (*waits, parameters)
            hook = self._token("hook", action.stage, action.direction, bucket)
        return Before(placed, waits, hook)

    def after(self, action: Action, piece: Piece, done: Token) -> list[Placed]:
        """Gradients of these buckets are complete: reduce them now, or keep them for the end of the step."""
        if action.kind is Kind.F:
            return []
        self._completed += [(action, bucket) for bucket in piece.buckets]
        if not self.meets_gradients:
            return []
        before = len(self._reduced)
        placed = self._reduce(done)
        reduced = tuple(self._reduced[before:])
        if reduced and not self._overlap_reduce:
            placed.append(Placed(COMPUTE, Task("gradients reduced", exposed(DP), 0.0, reduced)))
        return placed

    def finish(self) -> tuple[list[Placed], tuple[Token, ...]]:
        """Reduces what has been kept."""
        if not self._completed:
            return [], tuple(self._reduced)
        action, _ = self._completed[0]
        done: Token = ("gradients complete", action.direction, action.stage, action.microbatch)
        mark = Placed(COMPUTE, Task("gradients complete", COMPUTE, 0.0, (), done))
        return [mark, *self._reduce(done)], tuple(self._reduced)

    def _reduce(self, complete: Token) -> list[Placed]:
        placed: list[Placed] = []
        for action, bucket in self._completed:
            place = (bucket.axis, action.stage, action.microbatch, bucket.first_layer)
            work, direction = self._work.bucket(bucket), action.direction
            tasks, tokens = reduce_bucket(work, place, self._costs, complete, direction=direction)
            placed += tasks
            self._reduced += tokens
        self._completed.clear()
        return placed

    def _token(self, what: str, stage: int, direction: int, bucket: Bucket) -> Token:
        return (what, bucket.axis, self._update, stage, direction, bucket.first_layer)


def _last_gradients(actions: Sequence[Action]) -> list[Action]:
    """Those that complete a stage's gradients, in order."""
    last: dict[int, Action] = {}
    for action in actions:
        if action.kind in (Kind.B, Kind.W):
            last.pop(action.stage, None)  # so that it moves to the end
            last[action.stage] = action
    return list(last.values())
