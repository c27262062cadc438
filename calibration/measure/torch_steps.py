"""Training steps of small decoders in plain PyTorch: fp32 parameters under bf16 autocast, fused AdamW.

The model is what the simulator assumes of eager or compiled PyTorch, spelled out: pre-norm layers, flash
attention by ``scaled_dot_product_attention``, an expert at a time, the loss in fp32.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from calibration.measure.steps import Slice
from simulator.validation.published import Architecture, Measured

WARM_UP = 5  # compilation and the allocator's growth end within them
STEPS = 20
ROPE_BASE = 10_000.0


class Norm(nn.Module):
    """RMSNorm where the model is gated, else LayerNorm, with a bf16 result."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.width = (_whole(a.hidden_size),)
        self.weight = nn.Parameter(torch.ones(self.width))
        self.bias = None if a.gated_mlp else nn.Parameter(torch.zeros(self.width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, sequence, width) to the same."""
        weight = self.weight.to(x.dtype)
        if self.bias is None:
            return functional.rms_norm(x, self.width, weight)
        return functional.layer_norm(x, self.width, weight, self.bias.to(x.dtype)).to(x.dtype)


class Attention(nn.Module):
    """Causal attention with fewer key-value heads than heads; rotary positions where the model is gated."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.dim = (
            _whole(a.num_attention_heads),
            _whole(a.num_key_value_heads),
            _whole(a.head_dim),
        )
        width = _whole(a.hidden_size)
        self.qkv = nn.Linear(width, (self.heads + 2 * self.kv_heads) * self.dim, bias=not a.gated_mlp)
        self.out = nn.Linear(self.heads * self.dim, width, bias=not a.gated_mlp)
        self.rotary = bool(a.gated_mlp)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, sequence, width) to the same."""
        b, s, _ = x.shape
        counts = (self.heads, self.kv_heads, self.kv_heads)
        q, k, v = (
            part.view(b, s, -1, self.dim).transpose(1, 2)
            for part in self.qkv(x).split([count * self.dim for count in counts], dim=-1)
        )
        if self.rotary:
            q, k = _rotated(q), _rotated(k)
        core = functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=self.heads != self.kv_heads
        )
        return self.out(core.transpose(1, 2).reshape(b, s, -1))


class Mlp(nn.Module):
    """SwiGLU, or GELU with biases."""

    def __init__(self, width: int, inner: int, *, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        self.up = nn.Linear(width, inner * (2 if gated else 1), bias=not gated)
        self.down = nn.Linear(inner, width, bias=not gated)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, width) to the same."""
        y = self.up(x)
        if self.gated:
            gate, y = y.chunk(2, dim=-1)
            return self.down(functional.silu(gate) * y)
        return self.down(functional.gelu(y))


class Experts(nn.Module):
    """Top-k routing to experts that run one after the other. Scores are even, as benchmarks force them."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        width, inner, self.count = (
            _whole(a.hidden_size),
            _whole(a.moe_intermediate_size),
            _whole(a.num_experts),
        )
        self.top_k = _whole(a.num_experts_per_tok)
        self.router = nn.Linear(width, self.count, bias=False)
        self.experts = nn.ModuleList(Mlp(width, inner, gated=True) for _ in range(self.count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, sequence, width) to the same."""
        tokens = x.reshape(-1, x.shape[-1])
        scores = torch.softmax(self.router(tokens).float(), dim=-1)
        first = torch.arange(len(tokens), device=x.device)[:, None] * self.top_k
        chosen = (first + torch.arange(self.top_k, device=x.device)) % self.count
        weights = scores.gather(1, chosen).to(x.dtype)
        expert, order = chosen.flatten().sort()
        counts = torch.bincount(expert, minlength=self.count).tolist()
        rows = tokens[order // self.top_k].split(counts)
        done = torch.cat([module(part) for module, part in zip(self.experts, rows, strict=True)])
        back = torch.zeros_like(done).index_copy(0, order, done).view(len(tokens), self.top_k, -1)
        return (back * weights[..., None]).sum(dim=1).view_as(x)


class Layer(nn.Module):
    """A pre-norm layer."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        width = _whole(a.hidden_size)
        self.norms = nn.ModuleList(Norm(a) for _ in range(2))
        self.attention = Attention(a)
        self.mlp = (
            Experts(a) if a.num_experts else Mlp(width, _whole(a.intermediate_size), gated=bool(a.gated_mlp))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, sequence, width) to the same."""
        x = x + self.attention(self.norms[0](x))
        return x + self.mlp(self.norms[1](x))


class Decoder(nn.Module):
    """Embedding, layers, final norm and head; the loss of predicting every next token."""

    def __init__(self, a: Architecture, *, recompute: bool) -> None:
        super().__init__()
        width, vocabulary = _whole(a.hidden_size), _whole(a.vocab_size)
        self.recompute = recompute
        self.embedding = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Layer(a) for _ in range(_whole(a.num_hidden_layers)))
        self.norm = Norm(a)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(batch, sequence) token numbers, twice, to the mean loss."""
        x = self.embedding(tokens).to(torch.bfloat16)
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.recompute else layer(x)
        logits = self.head(self.norm(x)).float()
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def time_step(piece: Slice, device: str) -> Measured:
    """The median of the steps after a warm-up, and the most memory that tensors took (GPUs only)."""
    cuda = device.startswith("cuda")
    torch.manual_seed(0)
    model = Decoder(piece.architecture, recompute=piece.recompute).to(device)
    if piece.compiled:
        for layer in model.layers:
            layer.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=cuda)
    shape = (piece.micro_batch_size, piece.seq_length)
    tokens, targets = (
        torch.randint(_whole(piece.architecture.vocab_size), shape, device=device) for _ in "xy"
    )

    def step() -> None:
        with torch.autocast(device.partition(":")[0], torch.bfloat16):
            loss = model(tokens, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    times: list[float] = []
    for index in range(WARM_UP + STEPS):
        if cuda and index == WARM_UP:
            torch.cuda.reset_peak_memory_stats(device)
        times.append(_timed(step, cuda=cuda))
    peak = float(torch.cuda.max_memory_allocated(device)) if cuda else None
    return Measured(
        step_time_s=statistics.median(times[WARM_UP:]),
        step_time_basis="reported",
        peak_memory_bytes=peak,
        memory_basis="allocated" if cuda else "",
    )


def _timed(step: Any, *, cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _rotated(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions over halves of the head dimension."""
    s, dim = x.shape[-2:]
    frequencies = ROPE_BASE ** (-torch.arange(0, dim, 2, device=x.device) / dim)
    angles = torch.outer(torch.arange(s, device=x.device), frequencies).to(x.dtype)
    one, other = x.chunk(2, dim=-1)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat((one * cosine - other * sine, other * cosine + one * sine), dim=-1)


def _whole(size: int | None) -> int:
    if size is None:
        raise ValueError("a slice states all its dimensions")
    return size
