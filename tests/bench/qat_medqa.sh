#!/usr/bin/env bash
# What quantization-aware distillation is worth: a trained 8.4M-parameter Llama as SCHEME, rounded to nearest, by each calibrated method, and
# trained through its rounding against itself on MedQuAD; all measured on the held-out text. Training starts from what the best calibrated file
# holds, with its codes and scales. Resumes: a finished part is not done again.
#   qat_medqa.sh OUT [TOKENS] [SCHEME]      SLMC_BUILD=build folder, SLMC_SHARED=folder with models/ and corpora/, SLMC_LR=highest learning rate
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
build=${SLMC_BUILD:-$here/build}
shared=${SLMC_SHARED:-$here/../shared}
out=$1
tokens=${2:-1000000}
scheme=${3:-q4_0}
rate=${SLMC_LR:-3e-4}
model=$shared/models/medqa-8m
text=$shared/corpora/medquad
mkdir -p "$out"
measure() {  # measure NAME
  [ -f "$out/$1.eval.json" ] || "$build/slmc" eval "$out/$1.gguf" --against "$model" --text "$text/test.txt" --context 512 --activations f32 \
    -q --json "$out/$1.eval.json"
}
quantize() {  # quantize METHOD
  local calibration=()
  [ "$1" = nearest ] || calibration=(--calibration "$text/calibration.txt")
  [ -f "$out/$1.gguf" ] || "$build/slmc" quantize "$model" -o "$out/$1.gguf" --scheme "$scheme" --method "$1" "${calibration[@]}" -q
  measure "$1"
}
train() {  # train NAME STUDENT
  [ -f "$out/$1.gguf" ] || "$build/slmc" distill --teacher "$model" --student "$2" --data "$text/train.txt" -o "$out/$1.gguf" --quantize "$scheme" --qat \
    --loss forward_kl --ce-weight 0 --tokens "$tokens" --batch 4 --context 256 --lr "$rate" --warmup 10 --weight-decay 0 --seed 1 --checkpoint-every 50 \
    --resume --json "$out/$1.train.json"
  measure "$1"
}
for method in nearest imatrix gptq; do quantize $method; done
train qat-from-gptq "$out/gptq.gguf"
python3 - "$out" <<'PY'
import json, os, sys
print(f"{'file':<14} {'bytes':>10} {'perplexity':>11} {'KLD':>9} {'top-1':>7}")
for name in ("nearest", "imatrix", "gptq", "qat-from-gptq"):
    e = json.load(open(f"{sys.argv[1]}/{name}.eval.json"))
    size = os.path.getsize(f"{sys.argv[1]}/{name}.gguf")
    print(f"{name:<14} {size:>10} {e['perplexity']:>11.3f} {e['against']['kld_mean']:>9.5f} {e['against']['top1_agreement']:>7.3f}")
PY
