"""How a run divides its experts: EP, expert-TP, dispatcher and load."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.partition.expert_load import Load, router_load
from simulator.spec.run import RunSpec

BALANCED = Load()
DISPATCHED_BYTES = {"bf16": 2.0, "fp8": 1.0 + 4.0 / 128}  # fp8 with an fp32 scale for 128 elements


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertParallel:
    """How experts are divided and rows travel.

    ``dispatcher``: ``alltoall`` sends each copy of a token to its expert's rank; ``allgather`` sends every
    token everywhere; ``deepep`` and ``hybridep`` send a token once to each rank that needs it, and over the
    network once per node. ``single_launch``: one kernel runs the products of all local experts; otherwise
    each has its own launch (Transformer Engine's multi-stream products), for which the host must know its
    rows: in a graph of the whole step it does not. ``synchronises``: the host must know how many rows come
    before it can launch what works on them. ``one_graph``: it launches nothing, a graph holds the whole step.
    """

    size: int = 1
    tensor: int = 1
    experts: int = 1
    top_k: int = 1
    row_width: int = 1
    dispatcher: str = "alltoall"
    node_limit: int = 0
    load: Load = BALANCED
    single_launch: bool = False
    synchronises: bool = True
    one_graph: bool = False
    dispatch_bytes: float = 2.0  # of an element on the way to its expert, with its share of the scales

    @property
    def ranks(self) -> int:
        """Ranks that share all experts of a layer."""
        return self.size * self.tensor

    @property
    def distinct_ranks(self) -> float:
        """Expected EP ranks that the copies of one token go to: each is missed by all with (1 − 1/ep)^k."""
        return self.size * (1.0 - (1.0 - 1.0 / self.size) ** self.top_k)


def expert_parallel(run: RunSpec) -> ExpertParallel:
    """How a run divides the experts of a layer; where loads are drawn, those of layer 0."""
    model, p, runtime = run.model, run.parallelism, run.runtime
    if not model.is_moe:
        return ExpertParallel()
    limited = model.topk_group if model.n_group > 1 else 0  # groups are placed node by node
    padded, one_graph = run.training.moe.pad_to_capacity, runtime.cuda_graphs == "full"
    return ExpertParallel(
        size=p.ep,
        tensor=p.etp or p.tp,
        experts=model.num_experts,
        top_k=model.num_experts_per_tok,
        row_width=model.moe_latent_size or model.hidden_size,
        dispatcher=runtime.moe_dispatcher,
        node_limit=limited,
        load=router_load(run.training.moe, p.ep, model.num_experts, seed=(run.simulation.seed, 0)),
        single_launch=runtime.moe_grouped_gemm == "fused" or (one_graph and not padded),
        synchronises=not (padded or one_graph),
        one_graph=one_graph,
        dispatch_bytes=DISPATCHED_BYTES[runtime.moe_dispatch_precision],
    )
