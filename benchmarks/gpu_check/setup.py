"""Stage ``setup``: installs what was carried, and says what is here and what is missing. Standard library only."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import json
import lzma
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from gpu_check.journal import Journal, NotHere
from gpu_check.settings import Settings

__all__ = ["NEEDED", "install_set", "missing", "run", "versions"]

SUMS = "SHA256SUMS"
PARTS = ".part-"

NEEDED = {
    "numpy": "numpy",
    "scipy": "scipy",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "msgspec": "msgspec",
    "yaml": "pyyaml",
    "typer": "typer",
    "rich": "rich",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "onnxruntime": "onnxruntime",
    "torch": "torch",
    "transformers": "transformers",
    "safetensors": "safetensors",
}
"""Module → distribution of what no stage can do without."""

LOOKED_AT = (
    *("onnxruntime-gpu", "tensorrt", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs", "cuda-bindings"),
    *("pycuda", "triton", "pytest", "hypothesis", "nvidia-cudnn-cu13"),
)
"""Distributions whose presence decides what can be measured; their absence is no fault."""


def run(settings: Settings, journal: Journal) -> None:
    """See the module."""
    if settings.device == "cuda":
        journal.items.pop("driver", None)
        if journal.do("driver", driver) is None:
            return
    for folder in settings.carry:
        digest = hashlib.sha256((folder / SUMS).read_bytes()).hexdigest()[:12] if (folder / SUMS).is_file() else "none"
        journal.do(f"carried {folder.name} {digest}", partial(install_set, folder, settings.site), expect=60.0)
    journal.items.pop("packages", None)
    journal.do("packages", lambda: _packages(settings))
    if journal.result("packages") is not None:
        journal.items.pop("machine", None)  # a later call may be on another machine
        journal.do("machine", lambda: _machine(settings))
    for name in ("packages", "machine"):
        for key, value in (journal.result(name) or {}).items():
            if key != "probe":
                print(f"  {key}: {value}")


def driver() -> dict[str, Any]:
    """How many GPUs the CUDA driver counts. Raises ``RuntimeError`` where there is no driver or no GPU."""
    test = "--device cpu --tiny tests this script without one"
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise RuntimeError(f"no NVIDIA GPU: the CUDA driver cannot be loaded ({error}); {test}") from error
    count = ctypes.c_int()
    for status in (cuda.cuInit(0), cuda.cuDeviceGetCount(ctypes.byref(count))):
        if status != 0:
            raise RuntimeError(f"no NVIDIA GPU can be used: the CUDA driver gives error {status}; {test}")
    if count.value < 1:
        raise RuntimeError(f"no NVIDIA GPU: the CUDA driver counts none; {test}")
    return {"gpus": count.value}


def install_set(folder: Path, site: Path) -> dict[str, Any]:
    """Check the set's sums, unpack its wheels and install them into ``site``, without a network.

    A wheel may be compressed (``.whl.xz``) and cut into parts (``.whl.xz.part-0``, …); parts that lie in several sets
    are put together once all are there.

    Raises:
        ValueError: a file is missing or altered, or there is no list of sums.
        NotHere: parts of a wheel are still to come, in another set.
    """
    sums = folder / SUMS
    if not sums.is_file():
        raise ValueError(f"{sums} is missing: make the set with benchmarks/carry/make_carry.sh")
    names = {}
    for line in sums.read_text(encoding="ascii").splitlines():
        digest, _, name = line.partition("  ")
        names[name] = digest
    for name, digest in names.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path} is missing; {sums} names it")
        if (found := _sha256(path)) != digest:
            raise ValueError(f"{path}: expected sha256 {digest}, got {found}; carry it again")
    kept = site.parent / "parts"
    with tempfile.TemporaryDirectory(dir=_made(site.parent)) as scratch:
        wheels, cut = [], set()
        for name in sorted(names):
            if PARTS in name:
                shutil.copyfile(folder / name, _made(kept) / name)
                cut.add(name.partition(PARTS)[0])
            else:
                wheels.append(_unpacked(folder / name, Path(scratch)))
        waiting = []
        for name in sorted(cut):
            parts = sorted(kept.glob(f"{name}{PARTS}*"))
            count = int(parts[0].name.rpartition("-of-")[2])
            if len(parts) < count:
                waiting.append(f"{name}: {len(parts)} of {count} parts are here, the others are still to come")
                continue
            wheels.append(_unpacked(_joined(parts, Path(scratch) / name), Path(scratch)))
        if wheels:
            _pip(wheels, site)
        if waiting:
            raise NotHere("; ".join(waiting))
    return {"installed": sorted(wheel.name for wheel in wheels)}


def _joined(parts: list[Path], target: Path) -> Path:
    """The parts as one file; they are not needed any more."""
    with target.open("wb") as file:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file)
    for part in parts:
        part.unlink()
    return target


def _unpacked(path: Path, scratch: Path) -> Path:
    if path.suffix != ".xz":
        return path
    target = scratch / path.name.removesuffix(".xz")
    with lzma.open(path) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    return target


def _pip(wheels: list[Path], site: Path) -> None:
    options = ("--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", "-q", *options, "--target", str(site), *map(str, wheels)]
    # The target is on this process's path: pip would take what lies there for installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"pip failed with exit code {done.returncode}: {done.stderr.strip()[-1500:]}")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """Versions of the distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = str(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def missing(modules: dict[str, str]) -> list[str]:
    """Distributions of the modules that cannot be imported, each with the reason; asked in a process of its own."""
    script = (
        "import importlib, json, sys\n"
        "wrong = {}\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except Exception as error:\n"
        "        wrong[name] = f'{type(error).__name__}: {error}'\n"
        "print('\\n' + json.dumps(wrong))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(list(modules))], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return [f"the imports ended with exit code {done.returncode}: {done.stderr.strip()[-500:]}"]
    wrong: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return [f"{modules[name]} ({reason})" for name, reason in wrong.items()]


def _packages(settings: Settings) -> dict[str, Any]:
    os.environ["PYTHONPATH"] = f"{settings.site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    sys.path.insert(0, str(settings.site))
    if absent := missing(NEEDED):
        raise RuntimeError(
            f"missing: {'; '.join(absent)}. Carry the set 'base' (benchmarks/carry/make_carry.sh) and name it with"
            " --carry; torch, transformers, onnx, onnxscript and safetensors have to be on the machine"
        )
    return {
        "python": platform.python_version(),
        **versions((*NEEDED.values(), *LOOKED_AT)),
        "absent": ", ".join(name for name in LOOKED_AT if not versions((name,))) or "nothing",
    }


def _machine(settings: Settings) -> dict[str, Any]:
    import msgspec
    import torch

    from edge_reclass_doctor.machine import probe

    cudnn: Any = torch.backends.cudnn
    found: dict[str, Any] = {
        "cpus": len(os.sched_getaffinity(0)),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "disk": f"{shutil.disk_usage(settings.state).free / 2**30:.0f} GiB free at {settings.state}",
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn.version()}",
    }
    if settings.device == "cuda":
        if not torch.cuda.is_available():
            raise RuntimeError(
                "the driver has a GPU that torch does not see: this torch was built without CUDA, or for another"
            )
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = (
            f"{properties.name}, SM {properties.major}.{properties.minor}, {properties.multi_processor_count}"
            f" multiprocessors, {properties.total_memory / 2**30:.0f} GiB"
        )
        found["nvidia-smi"] = _nvidia_smi()
    found["probe"] = msgspec.to_builtins(probe())
    return found


def _nvidia_smi() -> str:
    fields = "name,driver_version,memory.used,clocks.sm,clocks.mem,power.limit,temperature.gpu,persistence_mode"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not answer: {error}"
    return done.stdout.strip() or done.stderr.strip()
