"""Installs what was carried, and says what is here. Standard library only: nothing else may be there yet."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import lzma
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

SUMS = "SHA256SUMS"
NEEDED = ("numpy", "soundfile", "soxr", "msgspec", "yaml", "typer", "rich", "onnx", "onnxruntime", "torch")
LOOKED_AT = (
    *("numpy", "msgspec", "soundfile", "soxr", "onnx", "onnxruntime", "onnxruntime-gpu", "torch", "transformers"),
    *("triton", "tensorrt", "tensorrt-rtx-cu13-bindings", "cuda-bindings", "nvidia-cudnn-cu13"),
)


class SetupError(Exception):
    """Nothing can be run here; the message says why."""


def install(folders: Sequence[Path], site: Path) -> None:
    """Install the wheels of each carried folder into ``site``, once, and put that on the path of all processes.

    Raises:
        SetupError: a file is missing or altered, or pip fails.
    """
    for folder in folders:
        wheels = _checked(folder)
        done = site / f".{hashlib.sha256(str(wheels).encode()).hexdigest()[:16]}"
        if wheels and not done.exists():
            site.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=site.parent) as scratch:
                _pip([_unpacked(folder / name, Path(scratch)) for name in wheels], site)
            done.touch()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH", ""))))
    sys.path.insert(0, str(site))


def _checked(folder: Path) -> dict[str, str]:
    """The wheels of a folder with their sums; other files are compared too."""
    try:
        lines = (folder / SUMS).read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise SetupError(f"{folder / SUMS} cannot be read ({error}); make_carry.sh makes it") from error
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name, digest in sums.items():
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest() if (folder / name).is_file() else "nothing"
        if found != digest:
            raise SetupError(f"{folder / name}: expected sha256 {digest}, got {found}; carry it again")
    return {name: digest for name, digest in sums.items() if ".whl" in name}


def _unpacked(path: Path, scratch: Path) -> Path:
    if path.suffix != ".xz":
        return path
    target = scratch / path.name.removesuffix(".xz")
    with lzma.open(path) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    return target


def _pip(wheels: Sequence[Path], site: Path) -> None:
    options = ("--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", "-q", *options, "--target", str(site), *map(str, wheels)]
    # The target may be on this process's path: pip would take what lies there for installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise SetupError(f"pip failed with exit code {done.returncode}: {done.stderr.strip()[-1500:]}")


def machine(device: str, state: Path) -> dict[str, str]:
    """What is here.

    Raises:
        SetupError: there is no GPU where one is wanted, or a package is missing.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise SetupError(
            f"missing: {', '.join(missing)}; carry the small packages (benchmarks/carry/make_carry.sh), torch and onnx "
            "have to be on the machine"
        )
    found = {"python": platform.python_version(), "cpus": str(len(os.sched_getaffinity(0)))}
    if device == "cuda":
        found |= _gpu()
    state.mkdir(parents=True, exist_ok=True)
    found["disk"] = f"{shutil.disk_usage(state).free / 2**30:.0f} GiB free at {state}"
    for name in LOOKED_AT:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not here"
    return found


def _gpu() -> dict[str, str]:
    test = "--device cpu --tiny tries this script without one"
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise SetupError(f"no NVIDIA GPU: the CUDA driver cannot be loaded ({error}); {test}") from error
    count = ctypes.c_int()
    status = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value < 1:
        raise SetupError(f"no NVIDIA GPU: the CUDA driver gives error {status}, {count.value} GPUs; {test}")
    fields = "name,compute_cap,driver_version,memory.total,clocks.sm,clocks.mem,power.limit,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        said = done.stdout.strip() or done.stderr.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        said = f"does not answer: {error}"
    return {"gpus": str(count.value), f"nvidia-smi ({fields})": said}
