"""Timing kernels with PyTorch, on a CUDA device or, for rehearsal, on the CPU.

Inputs are random (constant ones draw less power and run faster); tensors rotate through several copies so
that a repeat does not find its operands in the L2 cache; the first runs are thrown away. CUDA events time
the device, not the host that launches.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from calibration.measure.plan import Case
from calibration.measure.session import Timing

WARM_UP = 3
REPEATS = 20
LONGEST_S = 2.0  # of one case's repeats
ROTATED_BYTES = 512e6  # tensors to rotate through, larger than any L2 cache
_QUERY = "name,driver_version,clocks.sm,clocks.max.sm,power.limit,power.draw,temperature.gpu"

Run = Callable[[], Any]


class TorchBackend:
    """Runs cases on ``device`` (``cuda:0`` or ``cpu``); ``torch`` is the module."""

    def __init__(self, device: str = "cuda:0", *, gpu: str = "") -> None:
        import torch  # noqa: PLC0415  (an extra, gigabytes large)

        self.torch = torch
        self._device = torch.device(device)
        self._cuda = self._device.type == "cuda"
        self.gpu = gpu or (torch.cuda.get_device_name(self._device) if self._cuda else "cpu")
        self._memory = torch.cuda.get_device_properties(self._device).total_memory if self._cuda else 4e9

    def describe(self) -> dict[str, str]:
        """Versions, clocks and power as the driver reports them now."""
        torch = self.torch
        found = {
            "backend": "torch",
            "gpu": self.gpu,
            "torch": torch.__version__,
            "cuda": str(torch.version.cuda),
        }
        if self._cuda:
            found["cudnn"] = str(torch.backends.cudnn.version())
            found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
            command = [
                "nvidia-smi",
                f"--query-gpu={_QUERY}",
                "--format=csv,noheader",
                f"-i={self._device.index or 0}",
            ]
            try:
                text = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
                found.update(zip(_QUERY.split(","), (cell.strip() for cell in text.split(",")), strict=False))
            except (OSError, subprocess.SubprocessError) as error:
                found["nvidia-smi"] = f"not available: {error}"
        return found

    def refuses(self, case: Case) -> str:
        """Why a case cannot run: memory, or a kernel this build lacks."""
        if 4.0 * case.bytes > 0.8 * self._memory:
            return "needs more memory than the device has"
        if case.kind == "grouped_gemm_training" and not (self._cuda and hasattr(self.torch, "_grouped_mm")):
            return "this build of torch has no grouped GEMM here"
        if case.kind == "copy" and not self._cuda:
            return "copies need a GPU"
        return ""

    def time(self, case: Case) -> Timing:
        """Median of the repeats after a warm-up; of a sustained loop, its second half."""
        runs = self._rotated(case)
        for _ in range(WARM_UP):
            next(runs)()
        times: list[float] = []
        start = time.perf_counter()
        longest = case.sustained_s or LONGEST_S
        while time.perf_counter() - start < longest and (case.sustained_s or len(times) < REPEATS):
            times.append(self._timed(next(runs)))
        if case.sustained_s:
            times = times[len(times) // 2 :] or times
        ordered = sorted(times)
        low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.16, 0.84))
        middle = statistics.median(ordered)
        return Timing(seconds=middle, spread=(high - low) / 2.0 / middle, repeats=len(ordered))

    def _timed(self, run: Run) -> float:
        if not self._cuda:
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        torch = self.torch
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e-3

    def _rotated(self, case: Case) -> Iterator[Run]:
        copies = max(1, min(8, int(ROTATED_BYTES / max(case.bytes, 1.0)))) if self._cuda else 2
        make = getattr(self, f"_make_{case.kind}")
        return itertools.cycle([make(case) for _ in range(copies)])

    def _random(self, *shape: int, dtype: str = "bf16", grad: bool = False) -> Any:
        torch = self.torch
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(dtype, torch.float32)
        return torch.randn(*shape, device=self._device).to(kind).requires_grad_(grad)

    def _make_gemm_training(self, case: Case) -> Run:
        m, n, k = (case.number(name) for name in ("m", "n", "k"))
        layout, dtype = case.text("layout"), case.text("dtype")
        self.torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
        a = (
            self._random(k, m, dtype=dtype).t()
            if layout[0] == "N" and layout[1] == "T"
            else self._random(m, k, dtype=dtype)
        )
        b = self._random(n, k, dtype=dtype).t() if layout[0] == "T" else self._random(k, n, dtype=dtype)
        out = self.torch.empty(m, n, device=self._device, dtype=a.dtype)
        return lambda: self.torch.mm(a, b, out=out)

    def _make_grouped_gemm_training(self, case: Case) -> Run:
        torch = self.torch
        groups, rows, n, k = (case.number(name) for name in ("num_groups", "m_per_group", "n", "k"))
        a, b = self._random(groups * rows, k), self._random(groups, n, k).transpose(1, 2)
        ends = torch.arange(rows, groups * rows + 1, rows, device=self._device, dtype=torch.int32)
        return lambda: torch._grouped_mm(a, b, offs=ends)

    def _make_attention_training(self, case: Case) -> Run:
        torch = self.torch
        batch, seq, heads, kv_heads = (case.number(name) for name in ("batch", "seq", "heads", "kv_heads"))
        back = case["direction"] == "bwd"
        dims = case.number("qk_head_dim"), case.number("v_head_dim")
        q = self._random(batch, heads, seq, dims[0], grad=back)
        k = self._random(batch, kv_heads, seq, dims[0], grad=back)
        v = self._random(batch, kv_heads, seq, dims[1], grad=back)

        def forward() -> Any:
            return torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, enable_gqa=heads != kv_heads
            )

        if not back:
            return forward
        out = forward()
        gradient = torch.randn_like(out)
        return lambda: torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True)

    def _make_memory_bound(self, case: Case) -> Run:
        torch, kind = self.torch, case.text("kind")
        elements = round(float(case.text("write_bytes")) / (12.0 if kind == "optimizer" else 2.0))
        width = min(4096, elements)
        x = self._random(elements // width, width)
        f = torch.nn.functional
        if kind == "optimizer":
            weights = self._random(elements, dtype="fp32", grad=True)
            weights.grad = torch.randn_like(weights)
            adam = torch.optim.AdamW([weights], fused=self._cuda)
            step: Run = adam.step
            return step
        y, out = torch.randn_like(x), torch.empty_like(x)
        wide = x.float()
        made: dict[str, Run] = {
            "norm": lambda: f.rms_norm(x, (width,)),
            "dropout_add": lambda: torch.add(x, y, out=out),
            "activation": lambda: f.silu(x) * y,
            "cast": lambda: wide.to(torch.bfloat16),
            "softmax": lambda: torch.softmax(x, -1),
            "transpose": lambda: x.t().contiguous(),
            "zero": out.zero_,
        }
        return made[kind]

    def _make_copy(self, case: Case) -> Run:
        torch, size = self.torch, case.number("size_bytes")
        host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        device = torch.empty(size, dtype=torch.uint8, device=self._device)
        if case["kind"] == "h2d":
            return lambda: device.copy_(host, non_blocking=True)
        return lambda: host.copy_(device, non_blocking=True)
