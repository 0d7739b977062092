#!/bin/sh
# Runs one comparison with other programs: run.sh TEST.py. Needs a Python with transformers, tokenizers, gguf, safetensors and xllamacpp:
# SLMC_PEERS_PYTHON names it, else the one in ~/.cache/slmc-peers/hf is tried. The programs are those of SLMC_BUILD, else of build/. Exit 77 means skipped, with the reason printed.
python=${SLMC_PEERS_PYTHON:-$HOME/.cache/slmc-peers/hf/bin/python}
if [ ! -x "$python" ]; then
  echo "skipped: no Python with the peers' packages (set SLMC_PEERS_PYTHON)"
  exit 77
fi
root=$(cd "$(dirname "$0")/../.." && pwd)
export SLMC_SOURCE_DIR="${SLMC_SOURCE_DIR:-$root}" SLMC_BUILD="${SLMC_BUILD:-$root/build}"
exec "$python" "$@"
