"""On which CPU the gate runs, and the environments that limit numpy and OpenBLAS to what older CPUs have.

    python .ci/cpu.py             # one line: model, the features that numpy found, OpenBLAS's kernels
    python .ci/cpu.py --limits    # a line of NAME=VALUE per environment: without AVX-512, then without AVX2 too

Only what this CPU has is taken away, so that no line repeats another; on other CPUs than x86-64 there is none.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np

try:
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
except ImportError:  # numpy before 2.0
    from numpy.core._multiarray_umath import __cpu_dispatch__, __cpu_features__

FOUND = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
"""What numpy uses here beyond its baseline; only this can be disabled."""


def model() -> str:
    """The CPU's name, with family, model and stepping: cloud machines often give no more than the maker's."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    numbers = "/".join(fields.get(key, "?") for key in ("cpu family", "model", "stepping"))
    return f"{fields.get('model name', platform.machine())} (family/model/stepping {numbers})"


def blas() -> str:
    """Each BLAS that numpy and scipy loaded, with the CPU that its kernels are for."""
    import scipy.linalg  # noqa: F401 (loads scipy's own OpenBLAS)

    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "BLAS unknown (threadpoolctl is not installed)"
    found = [
        f"{i['internal_api']} {i['version']} {i.get('architecture', '?')}"
        for i in threadpool_info()
        if i["user_api"] == "blas"
    ]
    return ", ".join(dict.fromkeys(found))


def limits() -> list[str]:
    """NAME=VALUE words, one environment a line."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return []
    wide = [name for name in FOUND if name.startswith("AVX512") or name == "X86_V4"]
    lines = [f"NPY_DISABLE_CPU_FEATURES={','.join(wide)} OPENBLAS_CORETYPE=Haswell"] if wide else []
    if len(FOUND) > len(wide):
        lines.append(f"NPY_DISABLE_CPU_FEATURES={','.join(FOUND)} OPENBLAS_CORETYPE=Nehalem")
    return lines


if __name__ == "__main__":
    if sys.argv[1:] == ["--limits"]:
        for line in limits():
            print(line)
    else:
        print(f"{model()}; numpy {np.__version__} with {' '.join(FOUND) or 'its baseline only'}; {blas()}")
