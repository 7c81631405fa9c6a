#!/usr/bin/env bash
# One call on a machine with an NVIDIA GPU and PyTorch: does edge-reclass give the right numbers there, and how fast is
# it beside torch and beside what the machine can do at most? See docs/gpu-check.md.
#
#   benchmarks/gpu_check.sh --out DIR [--carry DIR]… [--rtx] [--device cpu --tiny] …      PYTHON names another python3
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$root/runtime:$root/export:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
exec "${PYTHON:-python3}" -m gpu_check.cli "$@"
