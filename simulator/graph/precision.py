"""Narrow number formats: how linear layers are quantised, and what the extra kernels read and write.

Only the products of linear layers run in a narrow format; the attention core, norms, embedding, LM head,
loss and the residual stream stay in 16 bits (Transformer Engine; DeepSeek-V3 report, section 3.3). A recipe
says how the scale of a tensor is found and in how many copies it is kept: the weight-gradient product reduces
over tokens, the others over features, so block-scaled formats need a tensor quantised along both, and
Hopper's fp8 tensor cores need the second copy transposed (Transformer Engine, user guide, "Using FP8 and
FP4").

Left out: the all-reduce of delayed scaling's amax history once per pass, and the kernels that put MXFP8
scales into the order of the tensor cores (1/32 of the bytes, fused into the cast by newer versions).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.graph.operators import MemoryBound

WIDE_BYTES = 2.0  # what is quantised: bf16 activations, gradients and model weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one number format is trained with.

    ``dtype`` is the arithmetic of the products. ``element_bytes`` is one element with its share of the
    scales. ``amax_pass``: the scale needs a pass over the tensor before the one that casts (delayed scaling
    takes it from the steps before; blocks are small enough to be scaled on the fly) of ``amax_kernels``.
    ``pass_per_copy``: each copy is made by a kernel of its own.
    ``shared_amax``: ranks that hold parts of one tensor agree on its scale first. ``both``: two copies,
    along features and along tokens. ``second_is_transpose``: the second copy holds the same numbers as the
    first. ``transposed``: the second copy lies transposed, so a gathered one is transposed after the
    gather. ``norm_fused``: the norm before a layer can write its output quantised. ``cached_weights``:
    weights are quantised once a step, not in every microbatch. ``keeps_wide_input``: the 16-bit input is
    kept for the weight gradient and quantised again there. ``narrow_gather``: operands are quantised before
    they are gathered over the TP group. ``cast`` is the cost class of the kernel.
    """

    name: str
    dtype: str
    element_bytes: float
    amax_pass: bool = False
    amax_kernels: int = 1
    pass_per_copy: bool = False
    shared_amax: bool = False
    both: bool = True
    second_is_transpose: bool = False
    transposed: bool = False
    norm_fused: bool = False
    cached_weights: bool = True
    keeps_wide_input: bool = False
    narrow_gather: bool = True
    cast: str = "quantize"

    @property
    def copies(self) -> int:
        """Quantised copies of a tensor used by all three products."""
        return 2 if self.both else 1


_PER_TENSOR = Recipe(
    name="delayed", dtype="fp8", element_bytes=1.0, second_is_transpose=True, transposed=True
)
_TORCHAO = replace(_PER_TENSOR, cached_weights=False, keeps_wide_input=True)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        # Micikevicius 2022, section 3, with an amax history: one pass reads 16 bits, writes both copies
        replace(_PER_TENSOR, norm_fused=True),
        # per-tensor scale of this very tensor: a pass for the amax, then the cast
        # (Transformer Engine: one sets it to zero, one finds it, one makes the scale)
        replace(_PER_TENSOR, name="current", amax_pass=True, amax_kernels=3, shared_amax=True),
        # DeepSeek-V3, section 3.3.2: 1×128 activations, 128×128 weights, an fp32 scale per block
        Recipe(
            name="blockwise",
            dtype="fp8_block",
            element_bytes=1.0 + 4.0 / 128,
            transposed=True,
            cast="quantize_block",
        ),
        # Rouhani 2023 (OCP MX): a one-byte exponent per 32 elements along the reduction
        Recipe(name="mxfp8", dtype="mxfp8", element_bytes=1.0 + 1.0 / 32, norm_fused=True),
        # NVIDIA 2025 (arXiv 2509.25149): 1×16 blocks with an fp8 scale below one fp32 scale per tensor, hence
        # the amax pass; the copy for the weight gradient goes through a 16×16 Hadamard transform, and
        # gradients are rounded stochastically there, in a pass of its own (Transformer Engine's
        # `hadamard_transform_cast_fusion_columnwise`, remembered and not read)
        Recipe(
            name="nvfp4",
            dtype="nvfp4",
            element_bytes=0.5 + 1.0 / 16,
            amax_pass=True,
            shared_amax=True,
            pass_per_copy=True,
        ),
        # torchao's Float8Linear (PyTorch FSDP): weights are cast in every forward
        replace(_TORCHAO, name="torchao-tensorwise", amax_pass=True),
        replace(_TORCHAO, name="torchao-rowwise", second_is_transpose=False, narrow_gather=False),
    )
}


def find_recipe(precision: str, fp8_recipe: str, architecture: str) -> Recipe | None:
    """The recipe of a run; ``None`` where linear layers run in 16 bits or more.

    From Blackwell on, tensor cores read per-tensor fp8 operands in either layout: one copy serves all
    products.
    """
    name = {"fp8": fp8_recipe or "delayed", "mxfp8": "mxfp8", "nvfp4": "nvfp4"}.get(precision)
    if name is None:
        return None
    recipe = RECIPES[name]
    if architecture == "blackwell":
        return replace(recipe, both=not recipe.second_is_transpose, transposed=False)
    return recipe


def quantize(name: str, elements: float, recipe: Recipe, *, copies: int) -> tuple[MemoryBound, ...]:
    """Kernels that bring a 16-bit tensor into the recipe's format.

    One pass reads 2 bytes per element and writes the copies, or one does for each; where the scale is this
    tensor's own, a pass that only reads comes first.
    """
    size = elements * WIDE_BYTES
    passes = copies if recipe.pass_per_copy else 1
    cast = MemoryBound(
        name=f"{name}.quantize",
        kind=recipe.cast,
        read_bytes=size * passes,
        write_bytes=elements * recipe.element_bytes * copies,
        kernels=passes,
    )
    if not recipe.amax_pass:
        return (cast,)
    amax = MemoryBound(
        name=f"{name}.amax", kind="amax", read_bytes=size, write_bytes=0.0, kernels=recipe.amax_kernels
    )
    return (amax, cast)


def transpose(name: str, elements: float, recipe: Recipe) -> MemoryBound:
    """Writes the second copy from one that exists."""
    size = elements * recipe.element_bytes
    return MemoryBound(name=f"{name}.transpose", kind="transpose", read_bytes=size, write_bytes=size)
