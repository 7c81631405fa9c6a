"""The environment of a run, for its record: machine, libraries, load, checkout. Read-only; absent values are None."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from edge_reclass import __version__
from edge_reclass_bench.record import Environment
from edge_reclass_doctor import machine

__all__ = ["commit", "environment", "libraries", "load_average", "machine_line", "probe"]

_LIBRARIES = ("numpy", "scipy", "soundfile", "soxr", "msgspec", "onnxruntime", "onnxruntime-gpu", "tensorrt", "av")
_PEERS = ("librosa", "torch", "transformers", "numba")
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "CUDA_VISIBLE_DEVICES",
)


def probe(paths: Sequence[Path] = ()) -> dict[str, Any]:
    """``machine.probe()`` as JSON would give it back."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(machine.probe(paths=paths)))
    return plain


def machine_line(probed: Mapping[str, Any]) -> str:
    """Processor, cores and GPU: what two records must share for their times to be comparable."""
    cpu, gpu, jetson = probed["cpu"], probed["gpu"], probed["jetson"]
    parts = [f"{cpu['model'] or cpu['architecture']}, {cpu['cores_usable']} cores"]
    if jetson is not None:
        mode = jetson["power_mode"]
        parts.append(jetson["model"] + (f" in mode {mode['name']}" if mode is not None else ""))
    if gpu is not None:
        parts.append(gpu["name"])
    return "; ".join(parts)


def load_average() -> list[float] | None:
    """Load over 1, 5 and 15 minutes; None where the system has none."""
    try:
        return list(os.getloadavg())
    except (OSError, AttributeError):
        return None


def libraries() -> dict[str, str]:
    """Versions of what is installed of what is measured and compared with."""
    found = {}
    for name in (*_LIBRARIES, *_PEERS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit(folder: Path) -> str | None:
    """Git commit of the checkout that ``folder`` lies in, with ``+`` where tracked files differ; None outside."""
    try:
        head = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    # Optional locks off: a read-only look must not disturb somebody who works there.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, timeout=10, env=environment
    )
    return done.stdout.strip()


def environment(
    *,
    before: dict[str, Any],
    load_before: list[float] | None,
    notes: Sequence[str],
    command: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    paths: Sequence[Path] = (),
) -> Environment:
    """The environment at the end of a run; ``before`` and ``load_before`` were taken at its beginning."""
    return Environment(
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        command=list(sys.argv if command is None else command),
        version=__version__,
        python=platform.python_version(),
        libraries=libraries(),
        thread_variables={name: environ[name] for name in _THREADS if name in environ},
        machine_before=before,
        machine_after=probe(paths),
        load_before=load_before,
        load_after=load_average(),
        commit=commit(Path(__file__).parent),
        notes=list(notes),
    )
