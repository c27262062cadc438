"""The layout rules: what makes a run impossible, each a small function that names the nearest valid choice.

A rule is a generator over objects whose fields are each valid on their own. All are run, so that a user sees
every broken one; a sweep counts illegal layouts by ``Violation.name``, the name of the function.
"""

from __future__ import annotations

from simulator.spec.cluster import ClusterSpec
from simulator.spec.model import ModelSpec
from simulator.spec.rules.cluster import CLUSTER_RULES
from simulator.spec.rules.context import CONTEXT_RULES
from simulator.spec.rules.documents import DOCUMENT_RULES
from simulator.spec.rules.encoder import ENCODER_MODEL_RULES, ENCODER_RULES
from simulator.spec.rules.experts import EXPERT_RULES
from simulator.spec.rules.grid import GRID_RULES
from simulator.spec.rules.layout import LAYOUT_RULES
from simulator.spec.rules.lora import LORA_RULES
from simulator.spec.rules.model import MODEL_RULES
from simulator.spec.rules.noise import NOISE_RULES
from simulator.spec.rules.not_modelled import NOT_MODELLED
from simulator.spec.rules.operator_graph import GRAPH_RULES, MODEL_KIND_RULES
from simulator.spec.rules.pipeline import PIPELINE_RULES
from simulator.spec.rules.sharding import SHARDING_RULES
from simulator.spec.rules.software import SOFTWARE_RULES
from simulator.spec.rules.training import TRAINING_RULES
from simulator.spec.rules.violation import Violation
from simulator.spec.run import RunSpec

__all__ = [
    "RULES",
    "Violation",
    "broken_cluster_rules",
    "broken_layout_rules",
    "broken_model_rules",
    "broken_rules",
]

RULES = (
    *LAYOUT_RULES,
    *PIPELINE_RULES,
    *TRAINING_RULES,
    *SHARDING_RULES,
    *CONTEXT_RULES,
    *SOFTWARE_RULES,
    *EXPERT_RULES,
    *NOISE_RULES,
    *GRAPH_RULES,
    *GRID_RULES,
    *ENCODER_RULES,
    *LORA_RULES,
    *DOCUMENT_RULES,
)


def broken_rules(run: RunSpec) -> list[Violation]:
    """Every rule that a run, its model and its cluster break."""
    of_model, of_cluster = broken_model_rules(run.model), broken_cluster_rules(run.cluster)
    of_layout = [] if any(broken.name == "kind_of_model" for broken in of_model) else broken_layout_rules(run)
    return [*_below("model", of_model), *_below("cluster", of_cluster), *of_layout]


def broken_layout_rules(run: RunSpec) -> list[Violation]:
    """Every rule that the layout of a run breaks, and everything in the run that is not modelled yet.

    What is left of :func:`broken_rules` where model and cluster are known to be right, as in a sweep.
    """
    broken = [violation._replace(name=rule.__name__) for rule in RULES for violation in rule(run)]
    unknown = [violation._replace(name="not_modelled") for find in NOT_MODELLED for violation in find(run)]
    return [*broken, *unknown]


def broken_model_rules(model: ModelSpec) -> list[Violation]:
    """Every rule that a model breaks whatever it runs on; key paths start at the model."""
    basic = [broken._replace(name=rule.__name__) for rule in MODEL_KIND_RULES for broken in rule(model)]
    if basic or model.layers:
        return basic  # the others are about a transformer's sizes
    rules = (*MODEL_RULES, *ENCODER_MODEL_RULES)
    return [broken._replace(name=rule.__name__) for rule in rules for broken in rule(model)]


def broken_cluster_rules(cluster: ClusterSpec) -> list[Violation]:
    """Every rule that a cluster breaks whatever runs on it; key paths start at the cluster."""
    return [broken._replace(name=rule.__name__) for rule in CLUSTER_RULES for broken in rule(cluster)]


def _below(key: str, violations: list[Violation]) -> list[Violation]:
    return [broken._replace(key_path=f"{key}.{broken.key_path}") for broken in violations]
