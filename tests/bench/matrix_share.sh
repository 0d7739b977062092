#!/usr/bin/env bash
# How much of a training's processor time is spent in matrix products: the rest is what a better program could still save. Samples the program with perf
# and sums by kernel. Shares of processor time hold on a busy machine too, unless threads spin.
#   matrix_share.sh SCRATCH ARGUMENTS...      ARGUMENTS: of slmc distill, without -o      SLMC_BUILD=build folder
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
build=${SLMC_BUILD:-$here/build}
scratch=$1
shift
mkdir -p "$scratch"
OMP_WAIT_POLICY=passive perf record -q -F 199 -o "$scratch/perf.data" "$build/slmc" distill -o "$scratch/student" --force -q "$@" > "$scratch/log"
perf report -i "$scratch/perf.data" --stdio -w 0 --field-separator ';' -F overhead,dso,symbol 2> "$scratch/perf.log" | python3 -c '
import re, sys
groups = {"matrix products": "gemm", "attention": "flash_attention", "losses, softmax": "loss_rows|::row|row_|softmax|logf",
          "optimizer": "::update", "activations, norms, rotary": "swiglu|gelu|norm|rotary|rope"}
shares = dict.fromkeys([*groups, "the rest"], 0.0)
for line in sys.stdin:
    part = line.split(";", 2)
    if line.startswith("#") or len(part) < 3: continue
    name = next((g for g, pattern in groups.items() if re.search(pattern, part[2], re.I)), "the rest")
    shares[name] += float(part[0].strip(" %"))
for name, share in shares.items(): print(f"{name:<28} {share:5.1f}%")'
