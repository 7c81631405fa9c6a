#!/usr/bin/env bash
# Makes what a bare GPU machine without a network has to be brought: wheels for its Python, the large ones pruned to its
# GPU. To be run on a machine with a network; needs python3 with pip, and about 2 GB of disk.
#
#   benchmarks/carry/make_carry.sh FOLDER [SET…]        sets: base ort rtx (default), pycuda
#
# Makes FOLDER/base, FOLDER/ort, FOLDER/rtx and, where one would be larger than LIMIT_MIB, FOLDER/ort-2 and so on: one or
# two folders for one call. Downloads are kept in FOLDER/downloads. What may be set: SM (90), PYTHON_VERSION (3.12), LIMIT_MIB
# (28: a call carries 64 MiB, the checkout included), PYCUDA_WHEEL (pycuda has none on PyPI: it has to be built).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
folder="${1:?usage: make_carry.sh FOLDER [SET…]}"
shift
sets=("$@")
[ "${#sets[@]}" -gt 0 ] || sets=(base ort rtx)
sm="${SM:-90}"
python_version="${PYTHON_VERSION:-3.12}"
limit="${LIMIT_MIB:-28}"
mkdir -p "$folder"
folder="$(cd "$folder" && pwd)"

# What the runtime, its tests and the CUDA memory adapter need, each without its own needs: all are named here.
base=(
  msgspec==0.22.0 soundfile==0.14.0 cffi pycparser soxr==1.1.0 pyyaml==6.0.3
  typer==0.29.1 rich==15.0.0 shellingham annotated-doc markdown-it-py mdurl pygments
  typing-extensions pytest==9.2.0 pluggy iniconfig packaging hypothesis==6.170.15 sortedcontainers
  cuda-bindings==13.0.3 cuda-pathfinder
)
ort=(onnxruntime-gpu==1.30.0)
pycuda=(pytools siphash24 platformdirs mako markupsafe)
rtx=(tensorrt-rtx-cu13-libs==1.7.1.116 tensorrt-rtx-cu13-bindings==1.7.1.116)

platforms=()
for glibc in 39 35 34 31 28 27 24 17 12 5; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64)

fetch() { # SET WHEEL…
  local set="$1"
  shift
  # Emptied first: two versions of one package would stop the whole installation over there.
  rm -rf "$folder/downloads/$set"
  mkdir -p "$folder/downloads/$set"
  python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
    --python-version "$python_version" "${platforms[@]}" -d "$folder/downloads/$set" "$@"
}

for set in "${sets[@]}"; do
  without=()
  case "$set" in
    base) fetch base "${base[@]}" ;;
    pycuda)
      [ -f "${PYCUDA_WHEEL:-}" ] || { echo "the set pycuda needs PYCUDA_WHEEL, a wheel of it (docs/gpu-check.md)" >&2; exit 2; }
      fetch pycuda "${pycuda[@]}"
      cp "$PYCUDA_WHEEL" "$folder/downloads/pycuda/"
      ;;
    ort)
      fetch ort "${ort[@]}"
      # The C library (Python's extension module has it inside), the TensorRT provider, and what trains and converts.
      without=(--without 'onnxruntime/capi/libonnxruntime.so.*' --without '*_providers_tensorrt.so'
        --without 'onnxruntime/transformers/*' --without 'onnxruntime/tools/*')
      ;;
    rtx) fetch rtx "${rtx[@]}" ;;
    *)
      echo "no set '$set': expected base, ort, rtx or pycuda" >&2
      exit 2
      ;;
  esac
  python3 "$here/pack.py" "$folder/downloads/$set" "$folder/$set" --keep "$sm" --limit "$limit" "${without[@]}"
done
