"""Small runs whose memory can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simulator.spec.load import load_cluster
from simulator.spec.model import ModelSpec
from simulator.spec.run import Parallelism, RunSpec, Runtime, Training

GPT = ModelSpec(
    name="gpt",
    num_hidden_layers=8,
    hidden_size=1024,
    intermediate_size=4096,
    num_attention_heads=16,
    vocab_size=16384,
    gated_mlp=False,
    hidden_act="gelu",
    norm="layernorm",
    linear_bias=True,
    position_embedding="learned",
    max_position_embeddings=2048,
    tie_word_embeddings=False,
    hidden_dropout=0.1,
    attention_dropout=0.1,
)

MakeRun = Callable[..., RunSpec]


@pytest.fixture
def make_run() -> MakeRun:
    """A GPT run; keywords are fields of Parallelism, Training or Runtime, or ``model`` and ``gpus``."""

    def make(
        *, model: ModelSpec = GPT, gpus: int = 8, cluster: str = "a100-sxm4-80gb", **fields: object
    ) -> RunSpec:
        def of(kind: type) -> dict[str, object]:
            return {name: value for name, value in fields.items() if name in kind.__dataclass_fields__}

        training = {"seq_length": 2048, "micro_batch_size": 1, "global_batch_size": 64, "precision": "fp16"}
        return RunSpec(
            model=model,
            cluster=load_cluster(cluster),
            gpus=gpus,
            parallelism=Parallelism(**of(Parallelism)),  # type: ignore[arg-type]
            training=Training(**{**training, **of(Training)}),  # type: ignore[arg-type]
            runtime=Runtime(**of(Runtime)),  # type: ignore[arg-type]
        )

    return make
