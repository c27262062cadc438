"""What better hardware would change, in words: the same on the screen and on a page."""

from __future__ import annotations

from typing import NamedTuple

from reports.quantities import percent, seconds
from simulator.result import Result, WhatIf
from simulator.spec.run import RunSpec

HEADS = ("", "step time", "change", "elasticity", "memory")
TITLE = "With better hardware"
NOTE = "Each line is a simulation with one figure changed; elasticity: % of step time per % of the figure."
_LINKS = {"nvlink": "NVLink", "pcie": "PCIe", "ici": "ICI", "c2c": "C2C"}


class Gain(NamedTuple):
    """A changed figure and what it gives."""

    words: str
    share: float  # of the step time that goes
    cells: tuple[str, str, str, str]  # under HEADS


def gains(result: Result, run: RunSpec) -> list[Gain]:
    """The figures by what they give, most first; those that give no time last."""
    found = [_gain(item, result, run) for item in result.what_if]
    return sorted(found, key=lambda gain: -round(gain.share, 6))


def _gain(item: WhatIf, result: Result, run: RunSpec) -> Gain:
    share = 1.0 - item.step_time_s / result.step_time_s
    change = 0.0 if abs(share) < 5e-5 else -100 * share
    elasticity = 0.0 if abs(item.elasticity) < 5e-3 else item.elasticity
    before = result.memory["verdict"]
    verdict = item.verdict if item.verdict == before else f"{before} → {item.verdict}"
    return Gain(
        f"{100 * (item.factor - 1):+.0f} % {_words(item.figure, run)}".replace("-", "−"),
        share,
        (
            seconds(item.step_time_s, 4),
            f"{change:+.2f} %".replace("-", "−") if change else "0 %",
            f"{elasticity:+.2f}".replace("-", "−") if elasticity else "0",
            verdict,
        ),
    )


def _words(figure: str, run: RunSpec) -> str:
    cluster = run.cluster
    links = {"scale_up_bandwidth": cluster.scale_up.link, "host_link_bandwidth": cluster.host.link}
    if figure in links:
        kind = links[figure].kind
        to = " to the host" if figure.startswith("host") else ""
        return f"{_LINKS.get(kind, kind)} bandwidth{to}"
    return {
        "peak_flops": "FLOP/s",
        "memory_bandwidth": "memory bandwidth",
        "scale_out_bandwidth": "NIC bandwidth",
        "latency": "latency of links",
        "host_speed": "speed of the host that launches",
        "memory_capacity": "memory capacity",
    }[figure]


def saved(gain: Gain) -> str:
    """The step time that goes, as on a bar."""
    return percent(max(0.0, gain.share), 2)
