"""What a run file can say but the simulator does not model yet. Nothing is ignored: it is refused here.

When a feature lands, its lines go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simulator.spec.errors import listed
from simulator.spec.rules.violation import Violation
from simulator.spec.run import RunSpec

SCHEDULES = (
    "automatic",
    "gpipe",
    "1f1b",
    "interleaved-1f1b",
    "looped-bfs",
    "zb-h1",
    "zb-h2",
    "interleaved-zb",
    "zb-v",
    "v-min",
    "dualpipe",
    "dualpipev",
)
MODULES = ("core_attn", "mlp", "moe", "moe_act", "layernorm", "mla_up_proj", "shared_experts")


def architecture(run: RunSpec) -> Iterator[Violation]:
    """Kinds of layers."""
    m = run.model
    if m.attention_type == "mla" and run.runtime.attention == "unfused":
        yield _no("runtime.attention", run.runtime.attention, "unfused latent attention", "flash")
    if "M" in m.hybrid_layer_pattern and run.parallelism.cp > 1:
        yield _no("parallelism.cp", run.parallelism.cp, "Mamba layers under context parallelism", "1")


def parallelism(run: RunSpec) -> Iterator[Violation]:
    """Ways to split."""
    if run.schedule not in SCHEDULES and not run.schedule.endswith(".csv"):
        yield _no("parallelism.schedule", run.schedule, "this schedule", listed(SCHEDULES))


def _no(key_path: str, value: object, what: str, remedy: str) -> Violation:
    return Violation(key_path, value, f"{what} is not modelled yet", remedy)


NOT_MODELLED: tuple[Callable[[RunSpec], Iterator[Violation]], ...] = (
    architecture,
    parallelism,
)
