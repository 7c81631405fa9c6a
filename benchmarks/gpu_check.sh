#!/usr/bin/env bash
# One script for a bare machine with an NVIDIA GPU and PyTorch: does edge-reclass give the right numbers there, and how
# fast is it beside torch and beside what the machine can do at most? See docs/gpu-check.md.
#
#   benchmarks/gpu_check.sh [STAGE…] --state DIR --out DIR [--carry DIR]… [--device cuda|cpu] [--tiny] …
#
# Stages: setup ceilings export build verify encoders cascade tests (default: all, in this order). What is done is kept
# in --state and not done again. PYTHON names another interpreter than python3.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$root/runtime:$root/export:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
exec "${PYTHON:-python3}" -m gpu_check "$@"
