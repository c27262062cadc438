"""Rules of jitter and named stragglers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simulator.spec.noise import Slow
from simulator.spec.rules.violation import Violation
from simulator.spec.run import RunSpec

MOST = 0.3  # standard deviations beyond this would draw kernels that take no time
SPREADS = ("compute", "gemm", "attention", "memory", "communication", "rank")
PARTS = ("compute", "nic", "nvlink")


def jitter_size(run: RunSpec) -> Iterator[Violation]:
    """Times are drawn from a normal distribution, which must stay above zero."""
    own = "cluster.jitter" if run.noise.jitter is None else "noise.jitter"
    for key in SPREADS:
        spread = getattr(run.jitter, key)
        if spread is not None and spread > MOST:
            rule = f"a relative standard deviation of at most {MOST:g}"
            yield Violation(f"{own}.{key}", spread, rule, f"{MOST:g}")


def sampled_detail(run: RunSpec) -> Iterator[Violation]:
    """Where every rank is simulated jitter is drawn, which needs each of its kernels."""
    if run.jitter and run.simulation.ranks == "all" and run.simulation.detail != "operator":
        rule = "jitter with simulation.ranks all is drawn for every kernel, so every kernel must be simulated"
        yield Violation("simulation.detail", run.simulation.detail, rule, "operator, or ranks: classes")


def straggler(run: RunSpec) -> Iterator[Violation]:
    """A straggler is one rank or one node of the job, named once, and something of it is slow."""
    seen: set[tuple[int | None, int | None]] = set()
    for index, slow in enumerate(run.noise.slow):
        key = f"noise.slow.{index}"
        if (slow.rank is None) == (slow.node is None):
            yield Violation(key, _shown(slow), "must name either a rank or a node", "rank: 0, or node: 0")
        for name, count in (("rank", run.gpus), ("node", -(-run.gpus // run.cluster.gpus_per_node))):
            place = getattr(slow, name)
            if place is not None and place >= count:
                rule = f"the job has {name}s 0 to {count - 1}"
                yield Violation(f"{key}.{name}", place, rule, str(count - 1))
        if all(getattr(slow, part) == 1.0 for part in PARTS):
            yield Violation(key, _shown(slow), f"nothing of it is slow: {', '.join(PARTS)}", "compute: 0.9")
        if (slow.rank, slow.node) in seen:
            yield Violation(key, _shown(slow), "is named twice", "one entry with all that is slow")
        seen.add((slow.rank, slow.node))


def slow_links(run: RunSpec) -> Iterator[Violation]:
    """A slow link is one that the job uses."""
    alone = run.gpus <= max(run.cluster.gpus_per_node, run.cluster.scale_up.domain_size)
    for index, slow in enumerate(run.noise.slow):
        if slow.nic < 1.0 and alone:
            rule = "the job stays in one scale-up domain or node and uses no NIC"
            yield Violation(f"noise.slow.{index}.nic", slow.nic, rule, "nvlink, or leave it out")
        if slow.nvlink < 1.0 and run.cluster.scale_up.domain_size == 1:
            rule = f"{run.cluster.name} has no scale-up links"
            yield Violation(f"noise.slow.{index}.nvlink", slow.nvlink, rule, "nic, or leave it out")


def _shown(slow: Slow) -> str:
    named = {"rank": slow.rank, "node": slow.node}
    places = {name: value for name, value in named.items() if value is not None}
    return str(places | {name: value for name in PARTS if (value := getattr(slow, name)) < 1.0})


NOISE_RULES: tuple[Callable[[RunSpec], Iterator[Violation]], ...] = (
    jitter_size,
    sampled_detail,
    straggler,
    slow_links,
)
