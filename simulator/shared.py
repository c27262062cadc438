"""What simulations of one process have in common."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial

from simulator.cost.catalog import kernels_for
from simulator.cost.kernels import BENCHMARKED, Kernels
from simulator.cost.sustained import Sustained, precision_class
from simulator.engine.block import Blocks, Replayed
from simulator.engine.conditions import SOUND, Condition
from simulator.engine.contention import communication_share
from simulator.engine.costing import OperatorCosts
from simulator.engine.disturbances import links
from simulator.engine.host import SOFTWARE, HostCosts
from simulator.graph.operators import Axis
from simulator.network.collectives import Network
from simulator.network.fabric import FabricOf, fabric_for
from simulator.preparation.unevenness import network_of, spread_of
from simulator.spec.cluster import ClusterSpec
from simulator.spec.run import RunSpec


class Shared:
    """What simulations of one process have in common: kernel models, networks, timed operators and blocks.

    Results are the same with it and without; similar runs take less time. It forgets everything once it holds
    more than ``most`` kinds of layout. ``fabric`` gives the fitted coefficients of a cluster's links.
    """

    def __init__(self, most: int = 1024, fabric: FabricOf = fabric_for) -> None:
        self._most = most
        self._fabric = fabric
        self._clusters: list[tuple[ClusterSpec, tuple[str, str, Sustained | None], Kernels]] = []
        self._blocks: dict[Hashable, Blocks] = {}
        self._replayed: dict[Hashable, Replayed] = {}

    def kernels(self, run: RunSpec) -> Kernels:
        """The kernel model of a run's cluster, with its cache."""
        return self._clusters[self._known(run)][-1]

    def blocks(
        self, run: RunSpec, copies: int = 1, own: Condition = SOUND, data: Condition = SOUND
    ) -> Blocks:
        """Timed operators and replayed blocks of runs on the same cluster with groups in the same places.

        ``copies``: of the model in each pipeline. ``own``: of ranks in that condition; ``data``: the worst
        one in their groups of data parallelism.
        """
        known, p = self._known(run), run.parallelism
        sizes = (run.gpus, p.tp, p.tp_grid, p.cp, p.ep, p.etp, p.pp, run.shard_size)
        host = (run.runtime.software, run.runtime.cuda_graphs)
        spread = spread_of(run, copies)
        varies = spread and (spread.kernels, spread.communication, spread.rank)
        key = (known, copies, *sizes, run.runtime.rank_order, *host, own, data, varies)
        found = self._blocks.get(key)
        if found is None:
            if len(self._blocks) >= self._most:
                self._blocks.clear()
                self._replayed.clear()
            cluster, _, kernels = self._clusters[known]
            network = network_of(run, copies, own, self._fabric)
            costs = OperatorCosts(
                kernels,
                network,
                _host_costs(run),
                communication_share(cluster.device),
                speed=own.compute,
                slow_data=None if links(data) == links(own) else network_of(run, copies, data, self._fabric),
            )
            # segments hold no traffic of data parallelism, so that what is slow elsewhere does not matter
            alike = None if spread else self._replayed.setdefault((known, *host, own), Replayed())
            found = self._blocks[key] = Blocks(costs, spread, alike, partial(_place, network))
        return found

    def _known(self, run: RunSpec) -> int:
        """A cluster with its attention kernels and sustained rates.

        Clusters hold mappings and cannot be hashed; there are few.
        """
        cluster, asked = run.cluster, run.runtime.attention
        attention = asked if asked not in ("flash", "unfused") else ""
        sustained = _sustained(run)
        choice = (attention, "" if sustained else precision_class(run.training.precision), sustained)
        for index, (known, chosen, _) in enumerate(self._clusters):
            if chosen == choice and (known is cluster or known == cluster):
                return index
        if len(self._clusters) >= self._most:
            self._clusters.clear()
            self._blocks.clear()  # which count clusters by their place
            self._replayed.clear()
        kernels = kernels_for(
            cluster, attention=attention, precision=run.training.precision, sustained=sustained
        )
        self._clusters.append((cluster, choice, kernels))
        return len(self._clusters) - 1


def _place(network: Network, axis: Axis) -> Hashable:
    """All that the times and flows of a group's traffic depend on in a network, beside its cluster."""
    return network.placement.group(axis), tuple((up.level, up.bandwidth) for up in network.uplinks)


def _sustained(run: RunSpec) -> Sustained | None:
    """The factor that a run states; ``None``: the shipped one of its device and precision."""
    asked = run.simulation.sustained
    if isinstance(asked, bool):
        return None if asked else BENCHMARKED
    return Sustained(asked, run.simulation.sustained_error)


def _host_costs(run: RunSpec) -> HostCosts:
    return HostCosts(
        kernel_s=run.cluster.host.kernel_launch_s,
        thread_speed=run.cluster.host.thread_speed,
        software=SOFTWARE[run.runtime.software],
        graphs=run.runtime.cuda_graphs,
    )
