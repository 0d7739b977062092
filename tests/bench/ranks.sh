#!/usr/bin/env bash
# Do two ranks learn what one process learns? The same distillation of a trained 8.4M-parameter Llama, alone and on two Gloo ranks that share its
# batch, on this machine; then the largest difference of the two loss curves, whether the students are the same bytes, and the tokens a second of each.
#   ranks.sh OUT [STEPS]      SLMC_BUILD=build folder, SLMC_SHARED=folder with models/ and corpora/
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
build=${SLMC_BUILD:-$here/build}
shared=${SLMC_SHARED:-$here/../shared}
out=$1
steps=${2:-100}
mkdir -p "$out"
options=(distill --teacher "$shared/models/medqa-8m" --student layers:4 --data "$shared/corpora/medquad/train.txt" --steps "$steps" --batch 8 --context 256
         --micro-batch 1 --lr 1e-3 --warmup 20 --seed 1 --force -q)
"$build/slmc" "${options[@]}" -o "$out/one" --json "$out/one.json"
export WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=${MASTER_PORT:-29507}
RANK=1 "$build/slmc" "${options[@]}" -o "$out/two" &
RANK=0 "$build/slmc" "${options[@]}" -o "$out/two" --json "$out/two.json"
wait
python3 - "$out" <<'PY'
import json, sys
curve = lambda name: [json.loads(line) for line in open(f"{sys.argv[1]}/{name}.metrics.jsonl")]
one, two = curve("one"), curve("two")
print(f"{'step':>6} {'one':>12} {'two ranks':>12}")
for a, b in list(zip(one, two))[:: max(1, len(one) // 8)]:
    print(f"{a['step']:>6} {a['loss']:>12.7f} {b['loss']:>12.7f}")
print(f"largest difference of {len(one)} losses: {max(abs(a['loss'] - b['loss']) for a, b in zip(one, two)):.1e}")
student = lambda name: open(f"{sys.argv[1]}/{name}/model.safetensors", "rb").read()
print("students:", "the same bytes" if student("one") == student("two") else "other bytes")
for name, whose in (("one", "it"), ("two", "rank 0")):
    report = json.load(open(f"{sys.argv[1]}/{name}.json"))
    print(f"{name}: {report['training']['tokens_per_second']:.0f} tokens/s, peak memory of {whose} {report['peak_rss_bytes'] / 1e6:.0f} MB")
PY
