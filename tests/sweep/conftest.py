"""A small space of layouts of an 8B model on one or two nodes, as a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

SMALL = """
run:
  model: llama3-8b
  cluster: h100
  gpus: [8, 16]
  parallelism:
    tp: [1, 2, 4]
    pp: [1, 2]
    vp: divisors(num_hidden_layers / pp)
  training:
    seq_length: 4096
    micro_batch_size: [1, 2]
    global_batch_size: 32
constraints:
  headroom: peak_bytes <= 0.9 * capacity_bytes
  shallow: vp <= 4
"""


@pytest.fixture
def sweep_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a sweep file: the small one, or another text."""

    def write(text: str = SMALL, name: str = "small.yaml") -> Path:
        path = tmp_path / name
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return write
