#!/usr/bin/env bash
# Finds what slmc is built with and installs what is missing, saying so first. Costs nothing when all is there.
#   bootstrap.sh [--no-torch] [--aarch64]
# SLMC_TORCH=DIR        a LibTorch, or the `torch` folder of a Python installation, to use
# SLMC_TORCH_INDEX=URL  package index to take torch from (the CPU-only build is far smaller)
# SLMC_CACHE=DIR        where the virtual environment goes (default: ~/.cache/slmc)
set -euo pipefail
cd "$(dirname "$0")/.."
want_torch=1 want_aarch64=0
for option in "$@"; do
  case $option in
    --no-torch) want_torch=0 ;;
    --aarch64) want_aarch64=1 ;;
    *) echo "bootstrap.sh: unknown option $option" >&2; exit 2 ;;
  esac
done

fail() { echo "slmc setup: $*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else fail "installing packages needs root; run as root, install sudo, or install these yourself: ${missing[*]}"; fi
}

apt_install() {
  command -v apt-get >/dev/null || fail "this is not Debian or Ubuntu; please install the equivalents of: $*"
  echo "slmc setup: installing from the distribution: $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# --- compilers and libraries: probed by use, so whatever provides them is fine -------------------------------------------------
missing=()
need_program() { command -v "$1" >/dev/null || missing+=("$2"); }
need_program cmake cmake
need_program ninja ninja-build
need_program pkg-config pkg-config
need_program g++ g++
need_program git git
need_header() {
  local header=$1 package=$2 flags=${3:-}
  # shellcheck disable=SC2086
  if ! command -v g++ >/dev/null || ! echo "#include <$header>" | g++ -std=c++20 $flags -E -x c++ - -o /dev/null 2>/dev/null; then
    missing+=("$package")
  fi
}
need_header Eigen/Core libeigen3-dev "-I/usr/include/eigen3 -I/usr/local/include/eigen3"
need_header CLI/CLI.hpp libcli11-dev
need_header fmt/format.h libfmt-dev
need_header gtest/gtest.h libgtest-dev
need_header nlohmann/json.hpp nlohmann-json3-dev
need_header yaml-cpp/yaml.h libyaml-cpp-dev
need_header pcre2.h libpcre2-dev "-DPCRE2_CODE_UNIT_WIDTH=8"
need_header xxhash.h libxxhash-dev
[ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"

# --- cross compiling: Arm's own packages of the libraries, unpacked in our cache folder, because Debian cannot install them beside the
# machine's own (and so that nothing of the system changes). Uses the machine's package sources, so Debian only: Ubuntu keeps Arm elsewhere.
cache=${SLMC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slmc}
if [ "$want_aarch64" = 1 ]; then
  missing=()
  need_program aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
  need_program qemu-aarch64-static qemu-user-static
  [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
  root=$cache/aarch64
  if [ ! -f "$root/complete" ]; then
    echo "slmc setup: unpacking Arm's libraries into $root"
    rm -rf "$root" && mkdir -p "$root/apt/lists/partial" "$root/apt/archives/partial"
    : > "$root/apt/status"
    arm=(-o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o "Dir::State=$root/apt" -o "Dir::State::status=$root/apt/status"
      -o "Dir::Cache=$root/apt" -o Debug::NoLocking=1 -o "APT::Sandbox::User=$(id -un)")
    libraries=(libeigen3-dev libcli11-dev libfmt-dev nlohmann-json3-dev libyaml-cpp-dev libpcre2-dev libxxhash-dev googletest libgtest-dev)
    apt-get -qq "${arm[@]}" update
    mapfile -t shared < <(apt-cache "${arm[@]}" depends "${libraries[@]}" | sed -n 's/^  Depends: \(lib\(yaml-cpp\|pcre2-8\|xxhash\|fmt\)[0-9.-]*\)$/\1/p')
    (cd "$root/apt" && apt-get -qq "${arm[@]}" download "${libraries[@]}" "${shared[@]}")
    for package in "$root"/apt/*.deb; do dpkg-deb -x "$package" "$root"; done
    rm -rf "$root/apt" && touch "$root/complete"
  fi
fi

# --- LibTorch: a folder that was named, an importable torch, ours from before, or pip ------------------------------------------
[ "$want_torch" = 1 ] || exit 0
usable() { [ -n "$1" ] && [ -f "$1/lib/libtorch_cpu.so" ] && [ -d "$1/include/ATen" ]; }
importable() {
  command -v "$1" >/dev/null && "$1" - 2>/dev/null <<'PY'
import importlib.util, os
spec = importlib.util.find_spec("torch")
print(os.path.dirname(spec.origin) if spec and spec.origin else "")
PY
}
torch=""
if [ -n "${SLMC_TORCH:-}" ]; then
  usable "$SLMC_TORCH" || fail "SLMC_TORCH=$SLMC_TORCH has no lib/libtorch_cpu.so and include/ATen; name the folder of a LibTorch or of a Python 'torch' package"
  torch=$SLMC_TORCH
fi
[ -n "$torch" ] || { found=$(importable python3 || true); usable "$found" && torch=$found; } || true
[ -n "$torch" ] || { found=$(importable "$cache/venv/bin/python3" || true); usable "$found" && torch=$found; } || true
if [ -z "$torch" ]; then
  if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    missing=(python3 python3-venv)
    apt_install "${missing[@]}"
  fi
  echo "slmc setup: installing torch 2.13.0 into $cache/venv (only its headers and libraries are used)${SLMC_TORCH_INDEX:+ from $SLMC_TORCH_INDEX}"
  mkdir -p "$cache"
  python3 -m venv "$cache/venv"
  "$cache/venv/bin/pip" install -q --disable-pip-version-check ${SLMC_TORCH_INDEX:+--index-url "$SLMC_TORCH_INDEX"} torch==2.13.0
  torch=$(importable "$cache/venv/bin/python3")
  usable "$torch" || fail "torch was installed but $torch has no headers or libraries"
fi
mkdir -p build
if [ "$(cat build/torch.path 2>/dev/null || true)" != "$torch" ]; then
  echo "slmc setup: LibTorch is $torch"
  printf '%s' "$torch" > build/torch.path
fi
