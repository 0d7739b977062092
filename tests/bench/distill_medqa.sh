#!/usr/bin/env bash
# Does distillation beat training on the text alone? A student of half the layers of a trained 8.4M-parameter Llama, on MedQuAD, for the
# same tokens, with the teacher, with teacher and text, and with the text alone; then all on the held-out text. Resumes: a finished part is not done again.
#   distill_medqa.sh OUT [TOKENS]      SLMC_BUILD=build folder, SLMC_SHARED=folder with models/ and corpora/
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
build=${SLMC_BUILD:-$here/build}
shared=${SLMC_SHARED:-$here/../shared}
out=$1
tokens=${2:-1000000}
teacher=$shared/models/medqa-8m
mkdir -p "$out"
train() {  # train NAME LOSS...
  local name=$1
  shift
  [ -d "$out/$name" ] || "$build/slmc" distill --teacher "$teacher" --student layers:4 --data "$shared/corpora/medquad/train.txt" -o "$out/$name" \
    --tokens "$tokens" --batch 8 --context 256 --lr 1e-3 --warmup 100 --schedule cosine --seed 1 --resume --json "$out/$name.train.json" "$@"
  [ -f "$out/$name.eval.json" ] || "$build/slmc" eval "$out/$name" --against "$teacher" --text "$shared/corpora/medquad/test.txt" --context 512 \
    --activations f32 --json "$out/$name.eval.json"
}
train distilled --loss forward_kl --temperature 1 --ce-weight 0
train with-the-text --loss forward_kl --temperature 1 --ce-weight 0.5
train text-alone --loss cross_entropy
python3 - "$out" <<'PY'
import json, sys
print(f"{'student':<14} {'tokens':>9} {'tokens/s':>9} {'perplexity':>11} {'KLD':>8} {'top-1':>7}")
for name in ("distilled", "with-the-text", "text-alone"):
    e = json.load(open(f"{sys.argv[1]}/{name}.eval.json"))
    t = json.load(open(f"{sys.argv[1]}/{name}.train.json"))
    t = t.get("training", t)
    print(f"{name:<14} {t.get('tokens', 0):>9} {t.get('tokens_per_second', 0):>9.0f} {e['perplexity']:>11.3f} {e['against']['kld_mean']:>8.4f} {e['against']['top1_agreement']:>7.3f}")
PY
