"""What is wrong with the software that the devices need, for ``edge-reclass doctor``."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_reclass.backends import CUDA_BINDINGS, CUDA_MEMORY_VARIABLE, CUDA_PROVIDER, TENSORRT_MODULES
from edge_reclass.engines import Flavour
from edge_reclass.installing import install_command, pip_command, provision_command, provisioned
from edge_reclass_doctor.machine import ONNXRUNTIMES, Machine, Run
from edge_reclass_doctor.report import ALL_DEVICES, Problem

_LOAD_SECONDS = 60.0
_OPEN_TENSORRT = (
    "from edge_reclass.backends.tensorrt.api import open_library\n"
    "library = open_library()\n"
    "print('loaded', library.flavour, library.version)"
)


@dataclass(frozen=True)
class Loads:
    """Whether libraries that bring native code can really be imported: in a process of its own, which may crash.

    ``tensorrt`` is the flavour and version that the runtime would take, by which engines are keyed.
    """

    tensorrt: tuple[Flavour, str] | None = None
    tensorrt_error: str | None = None
    binding_error: str | None = None


def check_loads(machine: Machine, run: Run) -> Loads:
    """Import TensorRT and the CUDA binding as the runtime does, where there is a GPU to use them on."""
    if machine.gpu is None:
        return Loads()
    tensorrt = error = binding = None
    if machine.tensorrt is not None:
        said, error = _import(run, _OPEN_TENSORRT)
        tensorrt = next(((flavour, said[1]) for flavour in TENSORRT_MODULES if said and said[0] == flavour), None)
    if machine.cuda.binding is not None:
        binding = _import(run, f"import {CUDA_BINDINGS[machine.cuda.binding]}; print('loaded', 0, 0)")[1]
    return Loads(tensorrt, error, binding)


def _import(run: Run, program: str) -> tuple[tuple[str, str] | None, str | None]:
    """The two words that the program says to have loaded, or None and why it has not."""
    result = run((sys.executable, "-c", program), _LOAD_SECONDS)
    said = re.search(r"^loaded (\S+) (\S+)$", result.stdout, re.MULTILINE)
    if said and result.status == 0:
        return (said[1], said[2]), None
    if result.failure is not None:
        return None, result.failure
    if result.status is not None and result.status < 0:
        return None, f"importing it killed Python with signal {-result.status}"
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    return None, lines[-1] if lines else f"importing it ended with status {result.status}"


def software_problems(machine: Machine, loads: Loads) -> list[Problem]:
    """What is missing, broken or in each other's way, and the command that fixes it."""
    found = [*_onnxruntime(machine)]
    if machine.gpu is None:
        fix = (
            "sudo usermod -aG video,render $USER   (the groups that may use the GPU; then log in again)"
            if machine.jetson
            else "nvidia-smi   (has to list the GPU: install its driver; or use --device cpu)"
        )
        found.append(Problem("gpu-absent", machine.reasons.get("gpu", "no NVIDIA GPU"), fix, ("tensorrt", "cuda")))
    return [*found, *_tensorrt(machine, loads), *_binding(machine, loads)]


def _onnxruntime(machine: Machine) -> Iterator[Problem]:
    runtime = machine.onnxruntime
    # PyPI's onnxruntime-gpu has no code for a Jetson's GPU.
    extra = "gpu" if machine.gpu is not None and machine.jetson is None else "cpu"
    installed = [name for name in ONNXRUNTIMES if machine.libraries.get(name)]
    anew = _instead_of(installed, extra)
    if runtime is None:
        reason = machine.reasons.get("onnxruntime", "no ONNX Runtime")
        yield Problem("onnxruntime-missing", f"{reason}; on every device it computes the heads", anew, ALL_DEVICES)
    elif CUDA_PROVIDER not in runtime.providers:
        message = f"ONNX Runtime {runtime.version} was built without CUDA (it has {', '.join(runtime.providers)})"
        fix = _instead_of(["onnxruntime"], "gpu")
        if machine.jetson is not None:
            fix = "use --device tensorrt: PyPI's onnxruntime-gpu has no code for Orin's GPU"
        yield Problem("cuda-provider-missing", message, fix, ("cuda",))
    if len(installed) > 1:
        message = f"{' and '.join(installed)} are both installed and overwrite each other's files"
        yield Problem("onnxruntime-twice", message, anew)


def _instead_of(installed: list[str], extra: str) -> str:
    """Installs the extra instead of what is ``installed``; the environment of an appliance is made anew as a whole."""
    if not installed or provisioned():
        return install_command(extra)
    return f"{pip_command()} uninstall -y {' '.join(installed)} && {install_command(extra)}"


def _pip(what: str) -> str:
    return provision_command() if provisioned() else f"{pip_command()} install {what}"


def _tensorrt(machine: Machine, loads: Loads) -> Iterator[Problem]:
    found = machine.tensorrt
    if found is not None:
        if loads.tensorrt_error is not None:
            message = f"{found.module} in {found.path} cannot be imported: {loads.tensorrt_error}"
            fix = (
                "sudo apt-get install --reinstall libnvinfer10 python3-libnvinfer"
                if machine.jetson
                else install_command("tensorrt-rtx", options=" --force-reinstall")
            )
            yield Problem("tensorrt-broken", message, fix, ("tensorrt",))
        return
    reason = machine.reasons.get("tensorrt", "TensorRT is not installed")
    other = re.search(r"installed for Python (\d+\.\d+)", reason)
    folder = machine.python.virtual_environment
    if other:
        fix = f"python{other[1]} -m venv --system-site-packages {shlex.quote(folder or '.venv')}   (and install again)"
    elif "does not see" in reason and folder is not None:
        # What `python -m venv --system-site-packages` writes; the environment keeps what is installed in it.
        config = shlex.quote(str(Path(folder) / "pyvenv.cfg"))
        fix = f"sed -i 's/^\\(include-system-site-packages\\) *=.*/\\1 = true/' {config}"
    elif "does not search" in reason:
        fix = f"use the system's Python: /usr/bin/python3 -m venv --system-site-packages {folder or '.venv'}"
    elif machine.jetson is not None:
        fix = "sudo apt-get install python3-libnvinfer"
    else:
        fix = install_command("tensorrt-rtx")
    yield Problem("tensorrt-missing", reason, fix, ("tensorrt",))


def _binding(machine: Machine, loads: Loads) -> Iterator[Problem]:
    name, version = machine.cuda.binding, machine.cuda.binding_version
    if name is None:
        forced = machine.reasons.get("cuda.binding")
        message = f"{forced or 'neither cuda-bindings nor pycuda is installed'}: TensorRT's buffers need one"
        fix = (
            f"unset {CUDA_MEMORY_VARIABLE}   (and doctor again: it takes what is installed)"
            if forced
            else install_command("tensorrt")
        )
        yield Problem("binding-missing", message, fix, ("tensorrt",))
        return
    if loads.binding_error is not None:
        message = f"{name} {version} cannot be imported: {loads.binding_error}"
        yield Problem("binding-broken", message, _pip(f"--force-reinstall {name}"), ("tensorrt",))
    # A driver serves programs made for its own CUDA and older ones.
    serves = machine.gpu.cuda_driver_version if machine.gpu is not None else None
    mine, most = (version or "").split(".")[0], (serves or "").split(".")[0]
    if name == "cuda-bindings" and mine.isdigit() and most.isdigit() and int(mine) > int(most):
        message = f"cuda-bindings {version} is made for CUDA {mine}, and the driver serves CUDA up to {serves}"
        yield Problem("binding-newer", message, _pip(f"'cuda-bindings=={most}.*'"))
