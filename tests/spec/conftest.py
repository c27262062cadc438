"""A run file that is right, whole in one text, to be made wrong one line at a time."""

from collections.abc import Callable
from pathlib import Path

import pytest

GOOD = """\
name: small
model:
  name: tiny
  num_hidden_layers: 16
  hidden_size: 1024
  intermediate_size: 4096
  num_attention_heads: 16
  num_key_value_heads: 8
  vocab_size: 32000
cluster:
  name: lab
  gpus_per_node: 8
  max_gpus: 1024
  device:
    name: chip
    kernels: h100-sxm5-80gb
    architecture: hopper
    peak_flops: {bf16: 989 TFLOP/s, fp8: 1979 TFLOP/s}
    memory_bytes: 80 GiB
    memory_bandwidth: 3.35 TB/s
    sm_count: 132
  scale_up:
    link: {name: nv, kind: nvlink, bandwidth: 450 GB/s, latency_s: 0.6 us}
    domain_size: 8
  scale_out:
    link: {name: ib, kind: infiniband, bandwidth: 400 Gb/s, latency_s: 3 us}
    nics_per_node: 8
    tiers:
      - {name: leaf, nodes: 32}
      - {name: spine}
  host:
    link: {name: pcie, kind: pcie, bandwidth: 64 GB/s, latency_s: 1 us}
gpus: 64
parallelism:
  tp: 4
  pp: 2
training:
  seq_length: 4096
  micro_batch_size: 1
  global_batch_size: 64
  precision: bf16
"""


@pytest.fixture
def good() -> str:
    return GOOD


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a text to a file in a directory of the test's own."""

    def write_file(text: str | bytes, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_file
