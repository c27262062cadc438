"""The search: which layouts are evaluated, in what order, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from itertools import chain, islice

from simulator.engine.replay import paused_collector
from simulator.spec.errors import Problem, SpecError
from simulator.sweep.bounds import Bounds, Effort
from simulator.sweep.evaluate import evaluate
from simulator.sweep.evaluation import Evaluation
from simulator.sweep.execute import Executor, Inline
from simulator.sweep.families import Families, one_by_one
from simulator.sweep.objective import Objective, Score
from simulator.sweep.read import Sweep
from simulator.sweep.space import Census, Layout
from simulator.sweep.store import Store


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where a search stands; ``changed`` is called after every step."""

    total: int = 0
    done: int = 0
    best: Evaluation | None = None
    changed: Callable[[Progress], None] = lambda _: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a sweep found. ``ranked`` are the feasible layouts, best first.

    ``evaluated`` counts this invocation, ``evaluated_total`` all that is kept; ``infeasible`` and ``failed``
    are part of it. ``explained``: the layout that was asked for, simulated even where it does not fit.
    """

    sweep: Sweep
    census: Census
    layouts: dict[int, Layout]
    ranked: tuple[Evaluation, ...]
    left_out: tuple[Evaluation, ...]  # infeasible and failed ones
    infeasible: Counter[str]
    failed: Counter[str]
    evaluated: int
    evaluated_total: int
    complete: bool
    explained: Evaluation | None = None

    def evaluation(self, number: int) -> Evaluation | None:
        """What became of a layout, if it has been evaluated."""
        every = (*self.ranked, *self.left_out)
        return next((evaluation for evaluation in every if evaluation.number == number), None)

    @property
    def best(self) -> Evaluation | None:
        """The winner, if any layout is feasible."""
        return self.ranked[0] if self.ranked else None


def enumerate_layouts(sweep: Sweep) -> tuple[list[Layout], Census]:
    """The legal layouts. Raises SpecError where there are none, or too many to look at."""
    census = Census()
    layouts = list(sweep.space.layouts(census))
    if not layouts:
        raise SpecError(_nothing_legal(sweep, census))
    return layouts, census


def _nothing_legal(sweep: Sweep, census: Census) -> Problem:
    """Why no combination is legal, by rule, with what to change for the most common ones."""
    count = f"{census.combinations:,} combination" + ("" if census.combinations == 1 else "s")
    broken = "; ".join(f"{rule} excludes {number:,}" for rule, number in census.illegal.most_common())
    hint = " | ".join(census.examples[rule] for rule, _ in census.illegal.most_common(2))
    rule = f"none of the {count} is legal: {broken}"
    return Problem(file=sweep.file, key_path="run", rule=rule, suggestion=f"change what this says: {hint}")


@paused_collector()  # hundreds of thousands of objects stay to the end
def search(sweep: Sweep, store: Store, executor: Executor, progress: Progress) -> Outcome:
    """Evaluates what the search asks for and is not in the store yet.

    An interruption (KeyboardInterrupt) ends the search early; what was finished is kept and ranked.

    Raises SpecError where the space holds nothing to evaluate.
    """
    layouts, census = enumerate_layouts(sweep)
    for layout in layouts:
        sweep.objective.check(layout.run)
    store.note("illegal", dict(census.illegal))
    by_number = {layout.number: layout for layout in layouts}
    judge = _Judge(sweep.objective, by_number)
    for evaluation in store.evaluations():
        judge.take(evaluation)
    known = store.numbers()
    todo = [layout for layout in layouts if layout.number not in known]
    progress.total, progress.done, progress.best = len(layouts), len(known), judge.best
    progress.changed(progress)
    evaluated, complete = 0, True
    try:
        for finished in _evaluations(sweep, todo, judge, executor):
            store.add(finished)
            evaluated += len(finished)
            for evaluation in finished:
                judge.take(evaluation)
            progress.done, progress.best = len(known) + evaluated, judge.best
            progress.changed(progress)
    except KeyboardInterrupt:
        complete = False
    return judge.outcome(sweep, census, store, evaluated, complete)


def look_up(sweep: Sweep, store: Store, number: int) -> Outcome:
    """What is kept, and one layout more: simulated where it has not been yet, and the best one if none has.

    Raises SpecError for a number that no legal layout has.
    """
    layouts, census = enumerate_layouts(sweep)
    if not 1 <= number <= len(layouts):
        rule = f"must be the id of a legal layout, 1 to {len(layouts):,}"
        raise SpecError(Problem(file="--explain", value=number, rule=rule))
    judge = _Judge(sweep.objective, {layout.number: layout for layout in layouts})
    for evaluation in store.evaluations():
        judge.take(evaluation)
    evaluated = 0
    chosen = layouts[number - 1]
    if number not in store.numbers():
        store.add([evaluate(chosen, sweep.after)])
        evaluated += 1
    if judge.best is None:
        for finished in Inline().run(one_by_one(_promising(layouts, judge)), sweep.after):
            evaluated += len(finished)
            for evaluation in finished:
                judge.take(evaluation)
                if evaluation.number not in store.numbers():
                    store.add([evaluation])
    outcome = judge.outcome(sweep, census, store, evaluated, complete=True)
    found = outcome.evaluation(number)
    if found is not None and found.status == "infeasible":
        found = evaluate(chosen, sweep.after, in_full=True)
    return replace(outcome, explained=found)


FEW = 12  # evaluations that take no longer than starting processes does


def _evaluations(
    sweep: Sweep, layouts: Sequence[Layout], judge: _Judge, executor: Executor
) -> Iterator[list[Evaluation]]:
    """What the search evaluates, as it is finished."""
    if sweep.settings.search == "exhaustive" and len(layouts) > FEW:
        yield from executor.run(Families(layouts, executor.workers), sweep.after)
        return
    chosen = iter(layouts) if sweep.settings.search == "exhaustive" else _promising(layouts, judge)
    yield from Inline().run(one_by_one(islice(chosen, FEW)), sweep.after)
    for first in chosen:
        yield from executor.run(one_by_one(chain([first], chosen)), sweep.after)


def _promising(layouts: Iterable[Layout], judge: _Judge) -> Iterator[Layout]:
    """Layouts in the order of their lower bounds, until none of the rest can be the best.

    Exact: what is left out either cannot fit, or has a bound above a score that has been reached.
    """
    bounds = Bounds()
    queue: list[tuple[tuple[Score, int], Effort]] = []  # bound and number, and how it was found
    by_number = {}
    for layout in layouts:
        bound = bounds.bound(layout.run, Effort.KERNELS)
        if bound.peak_bytes <= layout.run.cluster.device.memory_bytes:
            by_number[layout.number] = layout
            queue.append(((judge.objective.score(layout.run, bound.seconds), layout.number), Effort.KERNELS))
    heapify(queue)
    while queue:
        key, effort = heappop(queue)
        if judge.best_key is not None and key > judge.best_key:
            return
        layout = by_number[key[1]]
        if effort is Effort.ORDER:
            yield layout
        else:  # finer ones take longer, and most layouts are out of the question without them
            finer = Effort(effort + 1)
            score = judge.objective.score(layout.run, bounds.bound(layout.run, finer).seconds)
            heappush(queue, ((score, layout.number), finer))


@dataclass(slots=True)
class _Judge:
    """Knows the best evaluation so far. Equal scores go to the lower number."""

    objective: Objective
    layouts: dict[int, Layout]
    best: Evaluation | None = None
    best_key: tuple[Score, int] | None = None

    def key(self, evaluation: Evaluation) -> tuple[Score, int]:
        """What evaluations are sorted by."""
        run = self.layouts[evaluation.number].run
        return self.objective.score(run, evaluation.step_time_s), evaluation.number

    def take(self, evaluation: Evaluation) -> None:
        """Looks at a finished evaluation."""
        if evaluation.status != "ok":
            return
        key = self.key(evaluation)
        if self.best_key is None or key < self.best_key:
            self.best, self.best_key = evaluation, key

    def outcome(self, sweep: Sweep, census: Census, store: Store, evaluated: int, complete: bool) -> Outcome:
        """Everything in the store, sorted and counted."""
        every = list(store.evaluations())
        return Outcome(
            sweep=sweep,
            census=census,
            layouts=self.layouts,
            ranked=tuple(sorted((e for e in every if e.status == "ok"), key=self.key)),
            left_out=tuple(e for e in every if e.status != "ok"),
            infeasible=Counter(e.message for e in every if e.status == "infeasible"),
            failed=Counter(e.message for e in every if e.status == "failed"),
            evaluated=evaluated,
            evaluated_total=len(every),
            complete=complete,
        )
