"""One class of ranks that waits for the fullest one, against a group whose ranks differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.cost.catalog import kernels_for
from simulator.engine.block import Blocks, expand
from simulator.engine.costing import OperatorCosts
from simulator.engine.replay import replay
from simulator.engine.tasks import Meeting, Task
from simulator.graph.decoder import decoder_layer, layer_kinds
from simulator.graph.layer import Node
from simulator.graph.options import GraphOptions
from simulator.network.collectives import Network
from simulator.network.placement import Placement
from simulator.partition.expert import RoutedNode
from simulator.partition.expert_layout import ExpertParallel
from simulator.partition.expert_load import Load
from simulator.partition.layer_share import Split
from simulator.partition.recompute import backward_segment, forward_segment
from simulator.partition.segment import Segment
from simulator.partition.tensor import TensorParallel
from simulator.spec.load import load_run

RANKS = 8
ALONE = TensorParallel(size=1, sequence=False)
RUN = load_run("mixtral-8x7b-64-h100")


def nodes(load: Load) -> tuple[Node, ...]:
    """A layer on one rank; all-to-alls take what the fullest rank makes them."""
    model = RUN.model
    experts = ExpertParallel(
        size=RANKS, experts=model.num_experts, top_k=2, row_width=model.hidden_size, load=load
    )
    opts = GraphOptions(batch=1, seq=4096, dtype="bf16", vocab_size=model.vocab_size)
    layer = decoder_layer(model, opts, layer_kinds(model)[0])
    return tuple(Split(ALONE, experts).share(node) for node in layer.nodes)


def as_the_fullest(node: Node) -> Node:
    """The node with the work that the others wait for."""
    if not isinstance(node, RoutedNode) or node.awaited is None:
        return node
    more = node.awaited
    return replace(
        node,
        forward=more.forward,
        input_gradient=more.input_gradient,
        weight_gradient=more.weight_gradient,
        awaited=None,
    )


def with_its_own(node: Node) -> Node:
    """The node without the work of others."""
    return replace(node, awaited=None) if isinstance(node, RoutedNode) else node


def segment(layer: tuple[Node, ...], direction: str) -> Segment:
    if direction == "forward":
        return forward_segment(layer, ALONE)
    return backward_segment(layer, ALONE, full=False, modules=frozenset())


def streams(rank: int, segment: Segment, costs: OperatorCosts) -> dict[str, list[Task]]:
    found: dict[str, list[Task]] = {}
    for stream, task in expand(segment, costs, "layer", rendezvous=True):
        meeting = None if task.meeting is None else Meeting(task.meeting.key, RANKS)
        scoped = task._replace(
            waits=tuple((rank, token) for token in task.waits),
            signal=(rank, task.signal),
            meeting=meeting,
        )
        found.setdefault(stream, []).append(scoped)
    return found


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("peak", [1.0, 1.3, 2.0])
def test_the_class_takes_as_long_as_a_group_with_one_full_rank(direction: str, peak: float) -> None:
    network = Network(RUN.cluster, Placement(RUN.cluster, ep=RANKS, dp=RANKS))
    costs = OperatorCosts(kernels_for(RUN.cluster), network)
    layer = nodes(Load(1.0, peak))
    full = segment(tuple(as_the_fullest(node) for node in layer), direction)
    others = segment(tuple(with_its_own(node) for node in layer), direction)
    group = {0: streams(0, full, costs), **{r: streams(r, others, costs) for r in range(1, RANKS)}}
    typical = segment(layer, direction)
    assert Blocks(costs).block(typical).seconds == pytest.approx(replay(group).end, rel=1e-9)
    assert full.flops >= typical.flops
