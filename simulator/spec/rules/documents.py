"""Rules of documents packed into sequences: which lengths, and what knows their mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simulator.spec.documents import Documents
from simulator.spec.rules.violation import Violation
from simulator.spec.run import RunSpec

OF = {"fixed": ("mean",), "lognormal": ("mean", "sigma"), "listed": ("lengths", "shares")}
NEEDED = {"fixed": ("mean",), "lognormal": ("mean", "sigma"), "listed": ("lengths",)}


def document_lengths(run: RunSpec) -> Iterator[Violation]:
    """A distribution has its own parameters and no others."""
    asked, default = run.training.documents, Documents()
    kind = asked.distribution
    for key in ("mean", "sigma", "lengths", "shares", "packing", "seed"):
        value, own = getattr(asked, key), OF.get(kind, ())
        if not kind and value != getattr(default, key):
            rule = "belongs to a distribution of document lengths; none is given"
            yield Violation(f"training.documents.{key}", value, rule, "distribution: lognormal")
        elif key in ("mean", "sigma", "lengths", "shares") and key not in own and value:
            owners = " or ".join(name for name, keys in OF.items() if key in keys)
            rule = f"belongs to distribution {owners}; it is {kind} here"
            yield Violation(f"training.documents.{key}", value, rule, "leave it out")
        elif key in NEEDED.get(kind, ()) and not value:
            yield Violation(f"training.documents.{key}", value, f"must be given where lengths are {kind}")
    if 0 < asked.mean < 1:
        yield Violation("training.documents.mean", asked.mean, "must be at least a token", "1")
    if asked.shares and (len(asked.shares) != len(asked.lengths) or not sum(asked.shares)):
        rule = f"must have a share for each of the {len(asked.lengths)} lengths, not all of them 0"
        yield Violation("training.documents.shares", asked.shares, rule, "leave it out: equally many")


def document_mask(run: RunSpec) -> Iterator[Violation]:
    """Masks of documents are modelled in fused causal attention."""
    if run.documents is None:
        return
    model, asked = run.model, run.training.documents.distribution
    if model.layers or model.bidirectional_layers:
        rule = f"documents in a sequence are modelled for decoders; {model.name} is none"
        yield Violation("training.documents.distribution", asked, rule, "leave documents out")
    if run.runtime.attention == "unfused":
        rule = "unfused attention computes the whole square, whatever documents it masks"
        yield Violation("runtime.attention", "unfused", rule, "flash")
    if run.runtime.ep_overlap and run.simulation.detail == "operator":
        rule = "operators of two microbatches of unequal documents side by side are not modelled"
        yield Violation("simulation.detail", "operator", rule, "block")


def document_slices(run: RunSpec) -> Iterator[Violation]:
    """Whose slices CP ranks get is a question of documents, and a ring has one answer."""
    p = run.parallelism
    if not p.cp_slices:
        return
    if run.documents is None or p.cp == 1 or p.cp_method == "ulysses":
        rule = "belongs to training.documents shared by slices: cp > 1, and cp_method not ulysses"
        yield Violation("parallelism.cp_slices", p.cp_slices, rule, "leave it out")
    elif p.cp_slices == "sequence" and p.cp_method != "all-gather":
        rule = f"cp_method {p.cp_method} passes slices of each document round, as Transformer Engine does"
        yield Violation("parallelism.cp_slices", p.cp_slices, rule, "document, or cp_method: all-gather")


def packed_flops(run: RunSpec) -> Iterator[Violation]:
    """FLOPs inside documents need documents."""
    if run.simulation.flops_convention == "megatron-packed" and run.documents is None:
        rule = "counts attention inside training.documents, and there are none"
        yield Violation("simulation.flops_convention", "megatron-packed", rule, "megatron")


DOCUMENT_RULES: tuple[Callable[[RunSpec], Iterator[Violation]], ...] = (
    document_lengths,
    document_mask,
    document_slices,
    packed_flops,
)
