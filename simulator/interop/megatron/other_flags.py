"""Flags of Megatron-LM that mean nothing for time and memory, and those that mean what is not imported."""

from __future__ import annotations

import re
from typing import Final

_IGNORED: Final[tuple[tuple[str, str], ...]] = (
    (
        r"--(train|valid|test|eval|exit|skip|iterations|rerun|retro-no)-.*|--(train|eval)-(iters|samples)"
        r"|--num-(dataset-builder-threads|workers)|--(data|per-split-data|data-args|dataloader|mock|split|fim|blend)"
        r"(-.*)?|--(reset|eod|create|no-create|no-mmap|no-data-sharding|full-validation)-.*|--bin-.*|--legacy-tokenizer",
        "data and the length of training",
    ),
    (
        r"--(tokenizer|vocab-file|vocab-extra|merge-file|tiktoken|padded|special|extra-vocab|chat)(-.*)?"
        r"|--make-vocab-size-divisible-by|--trust-remote-code",
        "the tokenizer",
    ),
    (
        r"--(lr|min-lr|max-lr|decoupled|weight-decay|start-weight|end-weight|adam|sgd|muon|clip-grad|loss-scale"
        r"|initial-loss|min-loss|hysteresis|init|override|use-checkpoint-opt|apply-query|seed|data-parallel-random"
        r"|no-weight-decay|check-for-nan|no-check-for-nan|check-for-large|head-lr|scale-lr|lrd|warmup)(-.*)?"
        r"|--calculate-per-token-loss|--inverse-square-.*",
        "the optimizer's and the initial values' numbers",
    ),
    (
        r"--(log|tensorboard|wandb|timing|profile|use-pytorch-profiler|record-memory|barrier|one-logger|enable-one"
        r"|app|mlflow|verbosity|no-log|logging|memory-snapshot|print|train-sync|report|exp|run-workload|kitchen)(-.*)?"
        r"|--no-barrier.*|--enable-msc",
        "logging and profiling",
    ),
    (
        r"--(save|load|ckpt|dist-ckpt|no-save|no-load|finetune|pretrained|async-save|use-persistent|auto-detect"
        r"|non-persistent|use-dist-ckpt|use-checkpoint-args|no-use-tokenizer|convert|replication|adlr|replicate"
        r"|no-ckpt|strict-fsdp|exit-on|no-dist-ckpt)(-.*)?",
        "checkpoints",
    ),
    (
        r"--(distributed|local-rank|nccl|no-initialization|use-cpu-init|lazy|master|rank|rdzv|node|use-ring"
        r"|disable-straggler|enable-ft|ft|inprocess|error-injection|enable-gloo|disable-gloo|deterministic|manual-gc"
        r"|empty-unused|sharp|use-sharp|use-nccl|result-rejected|straggler|heartbeat|calculate-ft)(-.*)?",
        "how processes start and recover",
    ),
    (
        r"--(layernorm-epsilon|norm-epsilon|apply-layernorm|rotary-base|rotary-scaling|rotary-seq|use-rope-scaling"
        r"|rope-.*|mscale.*|rotary-interleaved|window-size-.*|beta-fast|beta-slow|attention-softmax-in-fp32"
        r"|no-query-key|apply-residual|openai-gelu|onnx|softmax-scale|original-max|activation-func-clamp.*|glu-linear.*"
        r"|no-persist-layer-norm|bias-gelu-fusion|bias-swiglu-fusion|masked-softmax-fusion|memory-efficient-ln"
        r"|use-fused-weighted.*|fp32-residual.*|mrope.*)(-.*)?",
        "a constant or a detail inside a kernel",
    ),
    (
        r"--moe-(router-(load|dtype|pre|score|bias|topk-scaling|topk-limited|force-load|padding-for|.*coeff)"
        r"|aux-loss|z-loss|input-jitter|token-drop|per-layer|apply-probs|grouped-gemm|upcycling|extended-tp"
        r"|deepep-num|hybridep-num|enable-routing)(-.*)?|--mtp-loss-scaling-factor|--disable-moe-token-.*",
        "how the router scores, or the usual way",
    ),
    (
        r"--(fp8-(margin|interval|amax|no-wgrad|wgrad|quantizer)|no-fp8-wgrad|fp8-.*-history|first-last-layers"
        r"|main-params|store-param|decrease-batch|no-fp8)(-.*)?",
        "the scales of fp8",
    ),
    (
        r"--(use-mcore-models|use-legacy-models|transformer-impl|num-gpus|cuda-graph-(warmup|num|share|retain).*"
        r"|te-rng-tracker|inference.*|align-.*|no-align-.*|group-query-attention|no-contiguous.*|use-te.*"
        r"|ddp-(num|pad).*|overlap-(grad|param).*-with.*|delay.*-grad-reduce|cp-partition|suggested.*|spec|is-hybrid-model"
        r"|fsdp-.*|keep-fp8.*|gradient-reduce-div.*|init-model-with-meta.*|tp-comm-bootstrap.*|batch-p2p.*"
        r"|no-async-.*|masked-.*|empty.*|no-scatter-gather.*|no-delay-.*|use-fused-.*|enable-experimental)(-.*)?",
        "the usual way, or said by other flags",
    ),
)

_NOT_MODELLED: Final[tuple[tuple[str, str], ...]] = (
    (
        r"--(encoder|decoder)-num-layers|--decoder-seq-length|--pipeline-model-parallel-split-rank",
        "an encoder",
    ),
    (r"--encoder-.*-parallel-size", "a layout of an encoder"),
    (
        r"--(retro|vision|img|patch|vit|swin|dino|bert|biencoder|ict|retriever|mask)-.*|--(bert|ict)",
        "this model",
    ),
    (
        r"--heterogeneous-.*|--linear-attention.*|--experimental-attention.*|--gated-delta.*",
        "layers of this kind",
    ),
    (r"--(micro-)?batch-size-.*|--microbatch-group-size.*", "this grouping of microbatches"),
    (r"--distribute-saved-activations", "saved activations spread over the TP group"),
    (
        r"--(fine-grained-)?activation-offloading|--offload-modules|--cpu-offloading.*",
        "this offload of activations",
    ),
    (
        r"--use-torch-optimizer-for.*|--overlap-cpu-optimizer.*",
        "a part of the states",
    ),
    (r"--overlap-p2p-communication-warmup-flush", "messages overlapped in warm-up and flush"),
    (r"--outer-dp-sharding-strategy", "sharding across instances"),
    (r"--relu|--attention-output-gate|--glu|--geglu", "this activation"),
)


def ignored_flag(flag: str) -> str:
    """Why a flag means nothing here; empty where it may."""
    return next((reason for pattern, reason in _IGNORED if re.fullmatch(pattern, flag)), "")


def not_modelled(flag: str) -> str:
    """What a flag asks for that is not imported; empty where it is another matter."""
    return next((what for pattern, what in _NOT_MODELLED if re.fullmatch(pattern, flag)), "")
