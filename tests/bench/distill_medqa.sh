#!/usr/bin/env bash
# Which loss, and does distillation beat training on the text alone? A student of half the layers of a trained 8.4M-parameter Llama, on MedQuAD, for
# the same tokens by each loss, each with half of the text's cross-entropy where its name says so; then all on the held-out text.
# Resumes: a finished part is not done again, one that was stopped goes on.
#   distill_medqa.sh OUT [TOKENS [LOSS...]]      LOSS: as for --loss, or LOSS+text; without any: all of them
#   SLMC_BUILD=build folder, SLMC_SHARED=folder with models/ and corpora/
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
build=${SLMC_BUILD:-$here/build}
shared=${SLMC_SHARED:-$here/../shared}
out=$1
tokens=${2:-1000000}
shift $(($# < 2 ? $# : 2))
losses=("$@")
[ ${#losses[@]} -gt 0 ] || losses=(forward_kl forward_kl+text cross_entropy reverse_kl 'jsd(beta=0.5)' 'skew_kl(alpha=0.1)' 'skew_reverse_kl(alpha=0.1)' total_variation
  'forward_kl,mse_hidden' 'forward_kl,cosine_hidden')
teacher=$shared/models/medqa-8m
mkdir -p "$out"
for loss in "${losses[@]}"; do
  weight=0
  [ "$loss" = "${loss%+text}" ] || weight=0.5
  [ -d "$out/$loss" ] || "$build/slmc" distill --teacher "$teacher" --student layers:4 --data "$shared/corpora/medquad/train.txt" -o "$out/$loss" \
    --tokens "$tokens" --batch 8 --context 256 --lr 1e-3 --warmup 100 --schedule cosine --seed 1 --resume --loss "${loss%+text}" --ce-weight $weight \
    --json "$out/$loss.train.json"
  [ -f "$out/$loss.eval.json" ] || "$build/slmc" eval "$out/$loss" --against "$teacher" --text "$shared/corpora/medquad/test.txt" --context 512 \
    --activations f32 -q --json "$out/$loss.eval.json"
done
python3 - "$out" "${losses[@]}" <<'PY'
import json, sys
print(f"{'loss':<28} {'tokens':>9} {'tokens/s':>9} {'perplexity':>11} {'KLD':>8} {'top-1':>7}")
for name in sys.argv[2:]:
    e = json.load(open(f"{sys.argv[1]}/{name}.eval.json"))
    t = json.load(open(f"{sys.argv[1]}/{name}.train.json"))["training"]
    print(f"{name:<28} {t['tokens']:>9} {t['tokens_per_second']:>9.0f} {e['perplexity']:>11.3f} {e['against']['kld_mean']:>8.4f} {e['against']['top1_agreement']:>7.3f}")
PY
