"""What packed documents do to a run: the figures its attention was worked out from."""

from __future__ import annotations

from simulator.graph.documents import filled, whole_mask
from simulator.partition.document_load import share_documents
from simulator.partition.plan import RunPlan
from simulator.spec.run import RunSpec


def packed_documents(run: RunSpec, plan: RunPlan) -> dict[str, float]:
    """Rounded for the reader; empty where a sequence is one document.

    ``attention``: pairs in documents over those of the causal square; ``padding``: share of the tokens;
    ``fullest_cp_rank``: its work over the mean; ``lightest`` and ``heaviest_microbatch``: over the mean, of
    the replica that ends the step.
    """
    if run.documents is None:
        return {}
    seq = run.training.seq_length
    found = {
        "attention": 2.0 * whole_mask(run.documents, seq, 0).pairs / seq**2,
        "padding": 1.0 - filled(run.documents, seq),
    }
    p = run.parallelism
    if p.cp > 1 and p.cp_method == "all-gather":
        found["fullest_cp_rank"] = share_documents(
            run.documents,
            seq,
            0,
            p.cp,
            run.training.micro_batch_size,
            whole_sequences=run.cp_slices == "sequence",
        ).peak
    if plan.loads is not None:
        found["lightest_microbatch"] = min(plan.loads.work)
        found["heaviest_microbatch"] = max(plan.loads.work)
    return {key: round(value, 4) for key, value in found.items()}
