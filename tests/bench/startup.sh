#!/usr/bin/env bash
# How long slmc takes to answer: overview, help, inspect, an error. Usage: tests/bench/startup.sh [PROGRAM [MODEL]]. Prints the median
# and the spread of 21 runs in milliseconds as JSON lines; exits with 1 if a median is over 50 ms, the promise of docs.
set -euo pipefail
program=${1:-build/slmc}
model=${2:-}
failed=0
measure() {
  local name=$1 times=() start end
  shift
  for _ in $(seq 21); do
    start=$(date +%s%N)
    "$@" >/dev/null 2>&1 || true
    end=$(date +%s%N)
    times+=($(((end - start) / 1000)))
  done
  mapfile -t times < <(printf '%s\n' "${times[@]}" | sort -n)
  awk -v name="$name" -v low="${times[5]}" -v median="${times[10]}" -v high="${times[15]}" \
    'BEGIN { printf "{\"what\": \"%s\", \"median_ms\": %.1f, \"middle_half_ms\": [%.1f, %.1f]}\n", name, median / 1000, low / 1000, high / 1000 }'
  if [ "${times[10]}" -gt 50000 ]; then failed=1; fi
}
measure "overview" "$program"
measure "help of distill" "$program" distill --help
measure "unknown option" "$program" quantize --schme q4_0
measure "absent model" "$program" inspect /nonexistent
if [ -n "$model" ]; then measure "inspect" "$program" inspect "$model"; fi
exit $failed
