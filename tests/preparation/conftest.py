"""Small pipelines of whole runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from simulator.spec.load import load_run
from simulator.spec.run import RunSpec

SmallRun = Callable[..., RunSpec]


@pytest.fixture(scope="session")
def small_run() -> SmallRun:
    """Eight layers of Llama 3 8B on a pipeline; keywords are fields of Parallelism or Runtime."""
    whole = load_run("llama3-8b-8-h100")

    def make(
        schedule: str, *, pp: int = 4, vp: int = 1, m: int = 8, dp: int = 2, **fields: object
    ) -> RunSpec:
        of_runtime = {name: value for name, value in fields.items() if name in whole.runtime.__slots__}
        of_layout = {name: value for name, value in fields.items() if name not in of_runtime}
        p = replace(whole.parallelism, tp=1, pp=pp, vp=vp, dp=dp, schedule=schedule, **of_layout)  # type: ignore[arg-type]
        return replace(
            whole,
            gpus=pp * dp,
            model=replace(whole.model, num_hidden_layers=8),
            parallelism=p,
            training=replace(whole.training, micro_batch_size=1, global_batch_size=m * dp),
            runtime=replace(whole.runtime, **{"overlap_p2p": None, **of_runtime}),  # type: ignore[arg-type]
        )

    return make
