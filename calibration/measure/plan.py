"""What to measure, in which order: every prefix of the plan is a usable, smaller measurement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, product, zip_longest

PARTS = ("gemm", "attention", "grouped_gemm", "memory_bound", "copy", "sustained")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to time. ``columns`` are its cells in a table of ``kind`` (see
    ``calibration.readers.KINDS``).

    ``bytes`` is the device memory its tensors take, ``flops`` its arithmetic; ``sustained_s`` above 0
    asks for a loop of that length, long enough for clocks to settle, of which the second half counts.
    """

    part: str
    kind: str
    columns: tuple[tuple[str, object], ...]
    flops: float = 0.0
    bytes: float = 0.0
    sustained_s: float = 0.0

    def __getitem__(self, name: str) -> object:
        return dict(self.columns)[name]

    def number(self, name: str) -> int:
        """A column as a whole number."""
        return int(str(self[name]))

    def text(self, name: str) -> str:
        """A column as text."""
        return str(self[name])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large the shapes are; ``TINY`` is for CPUs and tests."""

    rows: tuple[int, ...] = (4096, 1024, 8192, 2048, 16384, 512, 257)
    widths: tuple[tuple[int, int], ...] = (
        (4096, 4096),
        (8192, 8192),
        (14336, 4096),
        (4096, 14336),
        (1024, 8192),
        (28672, 8192),
        (8192, 1024),
        (512, 4096),
        (5120, 1536),
        (16384, 16384),
        (32768, 4096),
    )
    lengths: tuple[int, ...] = (4096, 8192, 2048, 16384, 1024)
    heads: tuple[tuple[int, int], ...] = ((32, 8), (16, 16), (64, 8), (8, 1))
    head_dims: tuple[int, ...] = (128, 64)
    experts: tuple[int, ...] = (8, 32)
    elements: tuple[int, ...] = (2**26, 2**22, 2**24, 2**28, 2**20)
    copies: tuple[int, ...] = (2**28, 2**20, 2**24, 2**16)
    messages: tuple[int, ...] = tuple(
        2**power for power in (28, 20, 24, 16, 26, 22, 18, 29, 12, 27, 14, 25, 10)
    )
    sustained_s: float = 20.0


TINY = Scale(
    rows=(32, 64),
    widths=((64, 64), (32, 128)),
    lengths=(64,),
    heads=((2, 1),),
    head_dims=(16,),
    experts=(2,),
    elements=(2**12, 2**14),
    copies=(2**12,),
    messages=(2**10, 2**14),
    sustained_s=0.05,
)

_STREAMS = {  # kind -> bytes read and written per bf16 element, kernels
    "norm": (2.0, 2.0, 1),
    "dropout_add": (4.0, 2.0, 1),
    "activation": (4.0, 2.0, 2),
    "cast": (4.0, 2.0, 1),
    "softmax": (2.0, 2.0, 1),
    "transpose": (2.0, 2.0, 1),
    "zero": (0.0, 2.0, 1),
    "optimizer": (16.0, 12.0, 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Cases in the order to run them."""

    cases: tuple[Case, ...] = field(default=())

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __len__(self) -> int:
        return len(self.cases)


def plan(
    *, scale: Scale | None = None, dtypes: Sequence[str] = ("bf16",), parts: Sequence[str] = PARTS
) -> Plan:
    """The cases of the parts asked for, taking turns between the parts."""
    scale = scale or Scale()
    makers = {
        "gemm": lambda: _gemms(scale, dtypes),
        "attention": lambda: _attention(scale, dtypes[0]),
        "grouped_gemm": lambda: _grouped(scale, dtypes[0]),
        "memory_bound": lambda: _streams(scale),
        "copy": lambda: _copies(scale),
        "sustained": lambda: _sustained(scale, dtypes),
    }
    columns = [list(makers[part]()) for part in parts]
    turns = chain.from_iterable(zip_longest(*columns))
    return Plan(cases=tuple(case for case in turns if case is not None))


def gemm_case(dtype: str, layout: str, m: int, n: int, k: int, *, sustained_s: float = 0.0) -> Case:
    """One product in the columns of a training GEMM table."""
    columns = (
        ("dtype", dtype),
        ("b", 1),
        ("m", m),
        ("n", n),
        ("k", k),
        ("layout", layout),
        ("accumulate", False),
        ("out_dtype", dtype),
    )
    size = 4.0 if dtype in ("fp32", "tf32") else 2.0
    return Case(
        part="sustained" if sustained_s else "gemm",
        kind="gemm_training",
        columns=columns,
        flops=2.0 * m * n * k,
        bytes=size * (m * k + n * k + m * n),
        sustained_s=sustained_s,
    )


def _gemms(scale: Scale, dtypes: Sequence[str]) -> Iterator[Case]:
    for m, (n, k), dtype, layout in product(scale.rows, scale.widths, dtypes, ("TN", "NN", "NT")):
        rows, columns, inner = {"TN": (m, n, k), "NN": (m, k, n), "NT": (n, k, m)}[layout]
        yield gemm_case(dtype, layout, rows, columns, inner)


def _sustained(scale: Scale, dtypes: Sequence[str]) -> Iterator[Case]:
    for dtype in dtypes:
        size = scale.rows[0] * 2
        yield gemm_case(dtype, "TN", size, size, size, sustained_s=scale.sustained_s)


def _attention(scale: Scale, dtype: str) -> Iterator[Case]:
    for seq, (heads, kv_heads), dim in product(scale.lengths, scale.heads, scale.head_dims):
        for direction, matmuls in (("fwd", 2), ("bwd", 5)):
            columns = (
                ("dtype", dtype),
                ("batch", 1),
                ("seq", seq),
                ("heads", heads),
                ("kv_heads", kv_heads),
                ("qk_head_dim", dim),
                ("v_head_dim", dim),
                ("direction", direction),
                ("causal", 1),
            )
            yield Case(
                part="attention",
                kind="attention_training",
                columns=columns,
                flops=float(matmuls) * seq * seq * heads * dim,
                bytes=8.0 * seq * (heads + kv_heads) * dim * 2,
            )


def _grouped(scale: Scale, dtype: str) -> Iterator[Case]:
    for groups, rows, (n, k) in product(scale.experts, scale.rows[:4], scale.widths[:4]):
        columns = (
            ("dtype", dtype),
            ("num_groups", groups),
            ("m_per_group", max(1, rows // groups)),
            ("n", n),
            ("k", k),
            ("stage", "fwd"),
            ("out_dtype", dtype),
        )
        yield Case(
            part="grouped_gemm",
            kind="grouped_gemm_training",
            columns=columns,
            flops=2.0 * rows * n * k,
            bytes=2.0 * (rows * (n + k) + groups * n * k),
        )


def _streams(scale: Scale) -> Iterator[Case]:
    for elements, (kind, (read, written, kernels)) in product(scale.elements, _STREAMS.items()):
        columns = (
            ("kind", kind),
            ("read_bytes", read * elements),
            ("write_bytes", written * elements),
            ("kernels", kernels),
        )
        size = 28.0 if kind == "optimizer" else 8.0
        yield Case(part="memory_bound", kind="memory_bound", columns=columns, bytes=size * elements)


def _copies(scale: Scale) -> Iterator[Case]:
    for size, kind in product(scale.copies, ("h2d", "d2h")):
        yield Case(
            part="copy", kind="copy", columns=(("kind", kind), ("size_bytes", size)), bytes=float(size)
        )
