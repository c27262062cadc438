"""The operators a training step is made of. Each knows its shape, FLOPs and bytes, never its time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

DTYPE_BYTES = {
    "fp32": 4.0,
    "tf32": 4.0,
    "fp16": 2.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "fp8_block": 1.0,
    "mxfp8": 1.0,
    "nvfp4": 0.5,
}

GemmRole = Literal["forward", "dgrad", "wgrad"]
CollectiveKind = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "reduce"]
Axis = Literal[
    "tp",
    "tp_row",
    "tp_col",
    "tp_depth",
    "cp",
    "ep",
    "etp",
    "dp",
    "dp_cp",
    "edp",
    "shard",
    "replicate",
    "cp_inner",
    "cp_outer",
    "pp",
    "world",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """``batch`` products [m, k] × [k, n]; a weight gradient may accumulate into an fp32 buffer."""

    name: str
    m: int
    n: int
    k: int
    batch: int = 1
    dtype: str = "bf16"
    role: GemmRole = "forward"
    output_bytes_per_element: float = 2.0
    accumulate: bool = False

    @property
    def flops(self) -> float:
        """2·m·n·k per product."""
        return 2.0 * self.batch * self.m * self.n * self.k

    @property
    def bytes(self) -> float:
        """Operands read once, result written once (and read once more when accumulated)."""
        operand = DTYPE_BYTES[self.dtype]
        result = self.output_bytes_per_element * (2 if self.accumulate else 1)
        return self.batch * (operand * (self.m * self.k + self.k * self.n) + result * self.m * self.n)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImplicitGemm(Gemm):
    """Products whose [m, k] operand is read from something smaller, ``reuse`` times as small.

    A convolution per group of ``batch`` (Chetlur 2014, cuDNN, section 3): forward, m is images × output
    pixels, n the group's output channels, k its input channels × window, and the image is never unfolded in
    memory; the input gradient gives the image, the weight gradient reads it. Or a batch of products of which
    several read the same operand.
    """

    reuse: float = 1.0

    @property
    def bytes(self) -> float:
        """What is read, weights and output each pass through memory once."""
        operand = DTYPE_BYTES[self.dtype]
        result = self.output_bytes_per_element * (2 if self.accumulate else 1)
        left, right, out = float(self.m * self.k), float(self.k * self.n), float(self.m * self.n)
        if self.role == "forward":
            left /= self.reuse
        elif self.role == "dgrad":
            out /= self.reuse
        else:
            right /= self.reuse
        return self.batch * (operand * (left + right) + result * out)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedGemm:
    """One GEMM per expert: ``rows`` tokens in all over ``groups`` experts, each [rows_g, k] × [k, n].

    A weight gradient's ``n`` and ``k`` are those of its forward product. ``apart``: each expert's product is
    an ordinary GEMM with a launch of its own, as in Transformer Engine; otherwise one kernel runs them all.
    """

    name: str
    groups: int
    rows: float
    n: int
    k: int
    dtype: str = "bf16"
    role: GemmRole = "forward"
    output_bytes_per_element: float = 2.0
    accumulate: bool = False
    apart: bool = False

    @property
    def kernels(self) -> int:
        """Launches the software needs."""
        return self.groups if self.apart else 1

    @property
    def flops(self) -> float:
        """2·rows·n·k over all groups."""
        return 2.0 * self.rows * self.n * self.k

    @property
    def bytes(self) -> float:
        """Operands read once, result written once; a weight gradient writes groups·n·k."""
        operand = DTYPE_BYTES[self.dtype]
        weights, rows_in, rows_out = self.groups * self.n * self.k, self.rows * self.k, self.rows * self.n
        read, written = (
            (rows_in + rows_out, weights) if self.role == "wgrad" else (rows_in + weights, rows_out)
        )
        return operand * read + self.output_bytes_per_element * written * (2 if self.accumulate else 1)


class Mask(NamedTuple):
    """What causal attention inside documents computes, per sequence (means over sequences).

    ``pairs``: query-key pairs; ``tiles`` and ``queries``: pairs and queries in whole tiles of queries, of
    which a short document fills a part; ``keys``: the most that one query sees.
    """

    pairs: float
    tiles: float
    queries: float
    keys: float

    def times(self, load: float) -> Mask:
        """Of a rank with more to do."""
        return Mask(self.pairs * load, self.tiles * load, self.queries * load, self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """A fused (flash) attention core: scores, softmax and weighted sum without storing the scores."""

    name: str
    batch: int
    seq_q: int
    seq_kv: int
    heads: int
    kv_heads: int
    qk_head_dim: int
    v_head_dim: int
    causal: bool = True
    window: int = 0
    mask: Mask | None = None  # of documents; else the whole sequence is one
    direction: Literal["forward", "backward"] = "forward"
    dtype: str = "bf16"

    @property
    def kernels(self) -> int:
        """Backward also sums O·dO over features first and casts dQ last (FlashAttention-2's preprocess and
        convert).
        """
        return 1 if self.direction == "forward" else 3

    @property
    def score_pairs(self) -> float:
        """Query–key pairs computed per head and sequence: all; where causal, those of the last ``seq_q``
        queries with the keys up to them, or with the last ``window`` of these; those of a mask.
        """
        if self.mask is not None:
            return self.mask.pairs
        if not self.causal:
            return float(self.seq_q * self.seq_kv)
        before = self.seq_kv - self.seq_q
        if 0 < self.window < self.seq_kv:
            growing = max(0, self.window - before)  # queries that see all keys up to them
            return self.seq_q * self.window - growing * growing / 2.0
        return self.seq_q * (before + self.seq_q / 2.0)

    @property
    def flops(self) -> float:
        """Forward 2 matmuls; backward 5 (flash attention recomputes the scores): FlashAttention-2, section
        3.1.
        """
        matmuls = 2 if self.direction == "forward" else 5
        width = (self.qk_head_dim + self.v_head_dim) / 2.0
        return 2.0 * matmuls * self.batch * self.heads * self.score_pairs * width

    @property
    def bytes(self) -> float:
        """Q, K, V read and O written (backward: those, their gradients and the incoming gradient)."""
        q = self.batch * self.seq_q * self.heads * (self.qk_head_dim + self.v_head_dim)
        kv = self.batch * self.seq_kv * self.kv_heads * (self.qk_head_dim + self.v_head_dim)
        passes = 1.0 if self.direction == "forward" else 2.5
        return passes * DTYPE_BYTES[self.dtype] * (q + kv)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBound:
    """An element-wise or reduction kernel, limited by memory traffic.

    ``kind`` is the cost class: norm, rope, activation, dropout_add, softmax, cross_entropy, embedding, cast,
    amax, quantize, quantize_block, transpose, permute, unpermute, router, optimizer, grad_norm, zero.
    ``kernels`` is how many launches the software needs for it.
    """

    name: str
    kind: str
    read_bytes: float
    write_bytes: float
    flops: float = 0.0
    kernels: int = 1

    @property
    def bytes(self) -> float:
        """Traffic to and from device memory."""
        return self.read_bytes + self.write_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """A collective over one axis of the layout. ``size_bytes`` follows nccl-tests:

    all_reduce and broadcast: the buffer; all_gather: the gathered output; reduce_scatter: the whole input;
    all_to_all: what one rank sends, its own share included.

    ``copies`` > 0 makes an all-to-all node-limited (DeepEP): that many copies of each row go to as many
    ranks, but cross the network once per node, of which a row reaches at most ``node_limit`` (0: any number).
    ``bulk``: its kernel orders bulk copies (HybridEP), where DeepEP's moves each element through a thread.
    """

    name: str
    kind: CollectiveKind
    axis: Axis
    size_bytes: float
    flops: float = 0.0
    copies: int = 0
    node_limit: int = 0
    bulk: bool = False

    @property
    def bytes(self) -> float:
        """Traffic in device memory is not counted; the network sees ``size_bytes``."""
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRecv:
    """A point-to-point message along an axis."""

    name: str
    axis: Axis
    size_bytes: float
    flops: float = 0.0

    @property
    def bytes(self) -> float:
        """As for collectives."""
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A copy between device and host (``h2d``, ``d2h``) or to and from NVMe.

    ``sharers``: ranks of a node that do so at the same time over one link (NVMe).
    """

    name: str
    kind: Literal["h2d", "d2h", "nvme_read", "nvme_write"]
    size_bytes: float
    flops: float = 0.0
    sharers: int = 1

    @property
    def bytes(self) -> float:
        """Bytes moved."""
        return self.size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HostUpdate:
    """Element-wise work of the host's processors, limited by its memory, which ``sharers`` ranks share."""

    name: str
    read_bytes: float
    write_bytes: float
    sharers: int = 1
    flops: float = 0.0

    @property
    def bytes(self) -> float:
        """Traffic to and from host memory."""
        return self.read_bytes + self.write_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """Work of the most loaded rank of a group, which this rank does not do but has to wait for.

    ``beyond``: what it has done itself by then.
    """

    work: KernelOp
    axis: Axis
    beyond: Attention | None = None

    @property
    def name(self) -> str:
        """The name of the work."""
        return f"{self.work.name}.awaited"

    @property
    def flops(self) -> float:
        """None of this rank's own."""
        return 0.0

    @property
    def bytes(self) -> float:
        """None of this rank's own."""
        return 0.0


KernelOp: TypeAlias = Gemm | GroupedGemm | Attention | MemoryBound
NetworkOp: TypeAlias = Collective | SendRecv
Operator: TypeAlias = KernelOp | NetworkOp | Copy | HostUpdate | Awaited
