#!/usr/bin/env bash
# What on-policy distillation is good for: a student of half the layers of a trained 8.4M-parameter Llama, first distilled on MedQuAD, then
# trained on with reverse KL: on the text, on its own words, and on both in turn. Each is judged on held-out text (KLD), and by its teacher on
# what it says itself after held-out prompts (KL of student from teacher a token). Resumes: a finished part is not done again.
#   on_policy_medqa.sh OUT [TOKENS]      SLMC_BUILD=build folder, SLMC_SHARED=folder with models/ and corpora/
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
build=${SLMC_BUILD:-$here/build}
shared=${SLMC_SHARED:-$here/../shared}
out=$1
tokens=${2:-100000}
teacher=$shared/models/medqa-8m
text=$shared/corpora/medquad
mkdir -p "$out"
distill() { "$build/slmc" distill --teacher "$teacher" --context 192 --ce-weight 0 --seed 1 --save-dtype f32 "$@"; }
[ -d "$out/begin" ] || distill --student layers:4 --data "$text/train.txt" -o "$out/begin" --tokens $((3 * tokens)) --batch 8 --lr 1e-3 --warmup 20 --resume
judge() {  # judge NAME: nothing is learned at rate 0, the loss of its one step is the judgement
  [ -d "$out/$1.judged" ] || distill --student "$out/$1" --data "$text/test.txt" -o "$out/$1.judged" --steps 1 --batch 48 --lr 0 --loss reverse_kl \
    --on-policy 1
  [ -f "$out/$1.eval.json" ] || "$build/slmc" eval "$out/$1" --against "$teacher" --text "$text/test.txt" --context 192 --max-tokens 20000 \
    --activations f32 --json "$out/$1.eval.json"
}
judge begin
for lambda in 0 0.5 1; do
  [ -d "$out/lambda-$lambda" ] || distill --student "$out/begin" --data "$text/train.txt" -o "$out/lambda-$lambda" --tokens "$tokens" --batch 8 --lr 3e-4 \
    --warmup 5 --loss reverse_kl --on-policy $lambda --resume
  judge "lambda-$lambda"
done
python3 - "$out" <<'PY'
import json, sys
out = sys.argv[1]
print(f"{'student':<12} {'tokens/s':>9} {'sampling':>9} {'KL on its own words':>20} {'KLD on text':>12} {'top-1':>7}")
for name in ("begin", "lambda-0", "lambda-0.5", "lambda-1"):
    e = json.load(open(f"{out}/{name}.eval.json"))
    t = json.load(open(f"{out}/{name}/slmc_report.json"))["training"]
    j = json.load(open(f"{out}/{name}.judged/slmc_report.json"))["training"]
    share = t.get("on_policy", {}).get("sampling_share", 0)
    print(f"{name:<12} {t['tokens_per_second']:>9.0f} {share:>9.0%} {j['final_loss']:>20.4f} {e['against']['kld_mean']:>12.4f} {e['against']['top1_agreement']:>7.3f}")
PY
