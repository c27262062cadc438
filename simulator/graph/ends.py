"""What stands before the first layer and behind the last one, whole: embedding, LM head and loss."""

from __future__ import annotations

from simulator.graph.encoder import classifier, masked_transform, patch_embedding
from simulator.graph.fusion import fused
from simulator.graph.layer import LayerGraph, Node, Region, Tensor, elementwise, linear
from simulator.graph.operators import MemoryBound
from simulator.graph.options import GraphOptions
from simulator.graph.transformer import ACTIVATION_BYTES, MASK_BYTES, activation, norm
from simulator.spec.model import ModelSpec


def embedding(model: ModelSpec, opts: GraphOptions) -> LayerGraph:
    """Token look-up (and learned positions, dropout). Backward scatters into the main gradient.

    Nothing for an operator graph, which holds all it computes.
    """
    if model.layers:
        return LayerGraph(kind="input", nodes=())
    if model.image_size:
        return patch_embedding(model, opts)
    size = opts.tokens * model.hidden_size * ACTIVATION_BYTES
    scatter = MemoryBound(
        name="embedding.wgrad",
        kind="embedding",
        read_bytes=size + size * opts.grad_bytes / ACTIVATION_BYTES,
        write_bytes=size * opts.grad_bytes / ACTIVATION_BYTES,
    )
    nodes = [
        Node(
            forward=MemoryBound(name="embedding", kind="embedding", read_bytes=size, write_bytes=size),
            module="embedding",
            region=Region.EMBEDDING,
            weight_gradient=(scatter,),
            boundary_bytes=size,
            parameters=float(opts.vocab_size * model.hidden_size),
        )
    ]
    learned = model.position_embedding == "learned"
    if learned or model.hidden_dropout:
        mask = opts.tokens * model.hidden_size * MASK_BYTES if model.hidden_dropout else 0.0
        nodes.append(
            elementwise(
                "embedding_dropout",
                "residual",
                module="embedding",
                region=Region.SEQUENCE,
                forward=(size * (2 if learned else 1), size + mask),
                backward=(size + mask, size),
                replicated_parameters=float(
                    (model.max_position_embeddings + model.type_vocab_size) * model.hidden_size
                )
                if learned
                else 0.0,
                saves=(Tensor(name="embedding.mask", bytes=mask, region=Region.SEQUENCE, origin="embedding"),)
                if mask
                else (),
            )
        )
    return LayerGraph(kind="embedding", nodes=tuple(nodes))


def head(model: ModelSpec, opts: GraphOptions) -> LayerGraph:
    """Final norm, LM head and vocabulary-parallel cross entropy (Shoeybi 2019, section 3).

    Three all-reduces of one fp32 per token: maximum, target logit, sum; Transformer Engine's loss sends them
    as one message. Nothing for an operator graph.
    """
    if model.layers:
        return LayerGraph(kind="output", nodes=())
    if model.image_size:
        return classifier(model, opts)
    opts = opts.of_decoder
    logits = float(opts.tokens) * opts.vocab_size
    tokens_fp32 = opts.tokens * 4.0
    lm_head = linear(
        "lm_head",
        module="head",
        region=Region.COLUMN,
        tokens=opts.tokens,
        inputs=model.hidden_size,
        outputs=opts.vocab_size,
        dtype="bf16" if opts.dtype not in ("fp16", "fp32", "tf32") else opts.dtype,
        grad_bytes=opts.grad_bytes,
        fused_accumulation=opts.fused_accumulation,
        saves=(activation("lm_head.input", opts.tokens * model.hidden_size, Region.SEQUENCE, "layernorm"),),
    )
    passes = opts.fusion.loss
    kept = "softmax_fp32" if passes.kept > ACTIVATION_BYTES else "logits"
    loss = fused(
        "cross_entropy",
        passes,
        logits,
        module="head",
        region=Region.FEATURE,
        reductions=(3 * tokens_fp32,) if opts.loss_fusion == "te" else (tokens_fp32,) * 3,
        saves=(Tensor(name=kept, bytes=logits * passes.kept, region=Region.FEATURE, origin="head"),),
    )
    transform = masked_transform(model, opts) if model.is_encoder else ()
    return LayerGraph(kind="head", nodes=(norm(model, opts, "final_norm"), *transform, lm_head, loss))
