#!/bin/sh
# Time and peak memory (VmHWM, mapped pages included) of converting and quantizing models at real size, with random weights:
# Phi-3.5-mini's shape (3.8B parameters, 7.6 GB in four shards) and Mistral-7B's (7.2B, 14.5 GB).
#   tests/bench/big_models.sh BUILD FOLDER [phi-3.5-mini|mistral-7b]...
# FOLDER needs 20 GB free for the first and 40 GB for the second; what is written there is removed again. Prints a line a run and fails if a
# peak is above 1 GB. Every file is read back and run for 32 tokens, as it is by default.
set -eu
build=${1:?usage: big_models.sh BUILD FOLDER [MODEL...]}
folder=${2:?usage: big_models.sh BUILD FOLDER [MODEL...]}
shift 2
[ $# -gt 0 ] || set -- phi-3.5-mini mistral-7b
limit_kb=1000000
failed=0

# Seconds, and the kernel's figure of the finished child's peak.
measure() {
  label=$1; shift
  python3 - "$label" "$limit_kb" "$@" <<'PY'
import resource, subprocess, sys, time
label, limit, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
start = time.monotonic()
code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
seconds = time.monotonic() - start
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(f"{label}: exit {code}, {seconds:.0f} s, peak {peak / 1000:.0f} MB", flush=True)
sys.exit(code or (1 if peak > limit else 0))
PY
}

for model in "$@"; do
  case $model in phi-3.5-mini) shards=4 ;; *) shards=6 ;; esac
  source_folder=$folder/$model
  measure "$model: make" "$build/slmc-make-model" --preset "$model" --shards $shards -o "$source_folder" || failed=1
  measure "$model: convert to GGUF" "$build/slmc" convert "$source_folder" -o "$folder/$model.gguf" --max-ram 1GB --force || failed=1
  rm -f "$folder/$model.gguf"
  measure "$model: quantize to q4_0" "$build/slmc" quantize "$source_folder" -o "$folder/$model-q4_0.gguf" --scheme q4_0 \
    --max-ram 1GB --force || failed=1
  ls -l "$folder/$model-q4_0.gguf"
  rm -rf "$folder/$model-q4_0.gguf" "$source_folder"
done
exit $failed
