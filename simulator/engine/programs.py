"""The programs of replicas: what each of their devices runs in a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from simulator.engine.conditions import Condition
from simulator.engine.data_work import DataWork
from simulator.engine.disturbances import Disturbances, links
from simulator.engine.hops import Hops
from simulator.engine.messages import Exchange, Pipeline
from simulator.engine.program import DeviceProgram, ProgramOptions
from simulator.engine.quiet_program import QuietProgram
from simulator.engine.steady import Cuts
from simulator.engine.survey import Wiring
from simulator.engine.tasks import COMPUTE, Streams
from simulator.engine.uplinks import Paths, on_uplinks
from simulator.engine.wired_program import WiredProgram
from simulator.partition.plan import RunPlan
from simulator.schedule.actions import Order

_data_work = lru_cache(maxsize=64)(DataWork)  # similar runs have one in common


@dataclass(slots=True, kw_only=True)
class Programs:
    """Builds the programs of replicas; those in equal conditions share one."""

    plan: RunPlan
    pipeline: Pipeline
    options: ProgramOptions  # of a run where nothing is slow
    disturbances: Disturbances
    orders: Sequence[Order]
    exchanges: Sequence[Sequence[Sequence[Sequence[Exchange]]]] | None  # blocking: by update, device, action
    cuts: Sequence[Sequence[int]]
    data: Sequence[Condition]  # by device: the worst links in its groups of data parallelism
    ends: Sequence[Sequence[int]] = ()  # by device, the actions before which updates stand; else at the end
    wiring: Wiring | None = None  # where their quiet steps are not to be tasks ...
    notes: bool = False  # ... and whether these keep their times
    quiet: list[QuietProgram] = field(default_factory=list)
    issued: Cuts = field(default_factory=list)
    updated: list[list[int]] = field(default_factory=list)  # tasks of each compute stream up to its updates
    _built: dict[tuple[Condition, ...], list[Streams]] = field(default_factory=dict)

    def streams(self, conditions: tuple[Condition, ...]) -> list[Streams]:
        """By device, whose cells have these conditions."""
        found = self._built.get(conditions)
        if found is None:
            found = self._built[conditions] = self._build(conditions)
        return found

    def _build(self, conditions: tuple[Condition, ...]) -> list[Streams]:
        blocks = [self.disturbances.blocks(*pair) for pair in zip(conditions, self.data, strict=True)]
        between = [
            links(here.worse(there))
            for here, there in zip(conditions, (*conditions[1:], conditions[0]), strict=True)
        ]
        costs = [self.disturbances.blocks(condition, condition).costs for condition in between]
        hops = Hops(self.plan, self.pipeline, costs)
        data = {id(own): _data_work(self.plan.data, own.costs) for own in blocks}
        parts = [(self.plan, self.pipeline, own, data[id(own)], hops, self.options) for own in blocks]
        if self.wiring is not None:
            return self._around_quiet_steps(
                [WiredProgram(*own, device) for device, own in enumerate(parts)], self.wiring
            )
        programs: list[Streams] = []
        self.issued, self.updated = [], []
        for device, order in enumerate(self.orders):
            program = DeviceProgram(*parts[device], device)
            counts = []
            ends = self.ends[device] if self.ends else [len(order)]
            for update, (begin, end) in enumerate(pairwise([0, *ends])):
                exchanges = None if self.exchanges is None else self.exchanges[update][device]
                program.build(order[begin:end], exchanges, self.cuts[device])
                counts.append(len(program.streams[COMPUTE]))
            programs.append(program.streams)
            self.issued.append(program.issued)
            self.updated.append(counts)
        return programs

    def on_uplinks(
        self, ranks: Mapping[int, Streams], paths: Paths, capacities: Mapping[str, float]
    ) -> dict[int, Streams]:
        """The streams of simulated ranks, and the transfers of quiet steps, with what uplinks they cross."""
        if not self.quiet:
            return on_uplinks(ranks, paths, capacities)
        transfers = [program.transfers for program in self.quiet]
        found = on_uplinks({rank: {**ranks[rank], **transfers[rank]} for rank in ranks}, paths, capacities)
        self.quiet = [program.with_transfers(found[rank]) for rank, program in enumerate(self.quiet)]
        return {rank: {name: found[rank][name] for name in streams} for rank, streams in ranks.items()}

    def _around_quiet_steps(self, programs: Sequence[WiredProgram], wiring: Wiring) -> list[Streams]:
        self.quiet = [
            program.build_around(own, notes=self.notes)
            for program, own in zip(programs, wiring.devices, strict=True)
        ]
        return [program.streams for program in programs]
