#!/usr/bin/env bash
# Makes what a bare GPU machine without a network has to be brought for one call: wheels that it lacks, for its Python,
# the large ones pruned to its GPU, and graphs without weights. To be run with a network, 1 GB of disk, and for the graphs
# torch and the export's packages.
#
#   benchmarks/carry/make_carry.sh FOLDER [main|rtx]…        makes FOLDER/main and FOLDER/rtx
#
# What may be set: SM (90), PYTHON_VERSION (3.12), LIMIT_MIB (64: of a call, the checkout included), PYTHON.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
export PYTHONPATH="$root/runtime:$root/export:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
python="${PYTHON:-python3}"
folder="${1:?usage: make_carry.sh FOLDER [main|rtx]…}"
shift
[ "$#" -gt 0 ] || set -- main rtx
mkdir -p "$folder"
folder="$(cd "$folder" && pwd)"

# Each without its own needs: all are named here. What the machine has (docs/gpu-check.md) is not carried.
small=(msgspec==0.22.0 soundfile==0.14.0 cffi pycparser soxr==1.1.0)
platforms=()
for glibc in 39 35 34 31 28 27 24 17 12 5; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64)

[ -f "$folder/graphs/mert-330m.tar.xz" ] || "$python" "$root/benchmarks/carry/graphs.py" "$folder/graphs"
for set in "$@"; do
  case "$set" in
    main)
      wheels=("${small[@]}" onnxruntime-gpu==1.30.0)
      # The C library (Python's extension module has it inside), the TensorRT provider, and what trains and converts.
      without=('onnxruntime/capi/libonnxruntime.so.*' '*_providers_tensorrt.so' 'onnxruntime/transformers/*'
        'onnxruntime/tools/*' 'onnxruntime/quantization/*')
      ;;
    rtx)
      wheels=("${small[@]}" tensorrt-rtx-cu13-libs==1.7.1.116 tensorrt-rtx-cu13-bindings==1.7.1.116)
      without=()
      ;;
    *)
      echo "no set '$set': expected main or rtx" >&2
      exit 2
      ;;
  esac
  # Emptied first: two versions of one package would stop the whole installation over there.
  rm -rf "$folder/downloads/$set"
  mkdir -p "$folder/downloads/$set"
  "$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
    --python-version "${PYTHON_VERSION:-3.12}" "${platforms[@]}" -d "$folder/downloads/$set" "${wheels[@]}"
  "$python" "$root/benchmarks/carry/pack.py" "$folder/downloads/$set" "$folder/$set" --graphs "$folder/graphs" \
    --keep "${SM:-90}" --limit "${LIMIT_MIB:-64}" "${without[@]/#/--without=}"
done
