"""What the gate says of its CPU, and that the environments of its second pass take effect."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CPU = Path(__file__).parents[1] / ".ci/cpu.py"


def said(*options: str, **environment: str) -> list[str]:
    done = subprocess.run(
        # An error of every warning: numpy warns of features that it cannot disable.
        [sys.executable, "-W", "error", str(CPU), *options],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_it_names_the_cpu_and_what_numpy_found() -> None:
    (line,) = said()
    assert f"numpy {np.__version__} with " in line


def test_each_limit_leaves_numpy_less_and_openblas_other_kernels() -> None:
    limits = said("--limits")
    if not limits:
        pytest.skip("this CPU has nothing that numpy could be told to leave alone")
    seen = said()
    for limit in limits:
        environment = dict(word.split("=", 1) for word in limit.split())
        (line,) = said(**environment)
        assert line not in seen
        if "threadpoolctl is not installed" not in line:
            assert environment["OPENBLAS_CORETYPE"] in line
        seen.append(line)
    # Nothing is left to be taken away after the last.
    assert said("--limits", **environment) == []
