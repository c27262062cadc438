"""What a run file can say but the simulator does not model yet. Nothing is ignored: it is refused here.

When a feature lands, its lines go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simulator.spec.rules.violation import Violation
from simulator.spec.run import RunSpec


def architecture(run: RunSpec) -> Iterator[Violation]:
    """Kinds of layers."""
    m = run.model
    if m.attention_type == "mla" and run.runtime.attention == "unfused":
        yield _no("runtime.attention", run.runtime.attention, "unfused latent attention", "flash")


def _no(key_path: str, value: object, what: str, remedy: str) -> Violation:
    return Violation(key_path, value, f"{what} is not modelled yet", remedy)


NOT_MODELLED: tuple[Callable[[RunSpec], Iterator[Violation]], ...] = (architecture,)
