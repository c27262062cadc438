#!/bin/bash
#SBATCH --nodes=128
#SBATCH --ntasks-per-node=8
TP=${TP:-1} PP=16 EP=64
MOE="--num-experts 256 --moe-router-topk 8 --moe-ffn-hidden-size 2048 \
     --moe-layer-freq '([0]*3+[1]*58)' --moe-shared-expert-intermediate-size 2048 \
     --moe-router-num-groups 8 --moe-router-group-topk 4 --moe-router-enable-expert-bias \
     --moe-router-score-function sigmoid --moe-grouped-gemm --moe-permute-fusion \
     --moe-token-dispatcher-type flex --moe-enable-deepep"
if [[ "$TP" -gt 1 && $PP != 1 ]]; then
    MOE="$MOE --sequence-parallel"
fi
options=" \
    --num-layers 61 --hidden-size 7168 --ffn-hidden-size 18432 --num-attention-heads 128 \
    --multi-latent-attention --q-lora-rank 1536 --kv-lora-rank 512 --qk-layernorm \
    --qk-head-dim 128 --qk-pos-emb-head-dim 64 --v-head-dim 128 --mtp-num-layers 1 \
    --swiglu --disable-bias-linear --normalization RMSNorm --position-embedding-type rope \
    --untie-embeddings-and-output-weights --attention-dropout 0 --hidden-dropout 0 \
    --vocab-size 129280 --seq-length 4096 --max-position-embeddings 4096 \
    --micro-batch-size 1 --global-batch-size 8192 --bf16 \
    --fp8-format e4m3 --fp8-recipe blockwise \
    --tensor-model-parallel-size ${TP} --pipeline-model-parallel-size ${PP} \
    --expert-model-parallel-size ${EP} --expert-tensor-parallel-size 1 \
    --pipeline-model-parallel-layout 'Et*3|(t*4|)*14ttmL' \
    --use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather \
    --use-precision-aware-optimizer --exp-avg-dtype bf16 --exp-avg-sq-dtype bf16 \
    --recompute-granularity selective --recompute-modules mla_up_proj layernorm moe_act"
run_cmd="python -u pretrain_gpt.py ${options} ${MOE} --lr 1e-4"
srun -l bash -c "cd /workspace && ${run_cmd}"
