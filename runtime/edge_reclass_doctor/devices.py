"""Which devices could run the bundle, and what keeps the others from it, for ``edge-reclass doctor``.

Nothing is opened here: no session, no CUDA context. What can be seen beforehand is seen; that a device really computes
the right numbers is for ``edge-reclass verify`` to show.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_reclass.bundle import Bundle
from edge_reclass.engines import RECORD, Flavour
from edge_reclass_doctor.machine import Machine, Run
from edge_reclass_doctor.report import BundleState, DeviceState, EnginesState, EngineState, Problem

__all__ = ["Finding", "Loads", "check_loads", "judge_devices"]

DEVICE, BUNDLE = 5, 4
_CUDA_PROVIDER = "CUDAExecutionProvider"
_LOAD_SECONDS = 60.0
_FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx")
_OPEN_TENSORRT = (
    "from edge_reclass.backends.tensorrt.api import open_library\n"
    "library = open_library()\n"
    "print('loaded', library.flavour, library.version)"
)

DeviceName = Literal["cpu", "cuda", "tensorrt"]


@dataclass(frozen=True)
class Loads:
    """Whether libraries that bring native code can really be imported: in a process of its own, which may crash.

    ``tensorrt`` is the flavour and version that the runtime would take, by which engines are keyed.
    """

    tensorrt: tuple[Flavour, str] | None = None
    tensorrt_error: str | None = None
    binding_error: str | None = None


@dataclass(frozen=True)
class Finding:
    """A problem, and the devices that it blocks (with which exit code)."""

    problem: Problem
    blocks: tuple[DeviceName, ...] = ()
    exit_code: int = 0


def check_loads(machine: Machine, run: Run) -> Loads:
    """Import TensorRT and the CUDA binding as the runtime does, where there is a GPU to use them on."""
    if machine.gpu is None:
        return Loads()
    tensorrt = error = binding = None
    if machine.tensorrt is not None:
        said, error = _import(run, _OPEN_TENSORRT)
        tensorrt = next(((flavour, said[1]) for flavour in _FLAVOURS if said and said[0] == flavour), None)
    if machine.cuda.binding is not None:
        module = "pycuda.driver" if machine.cuda.binding == "pycuda" else "cuda.bindings.runtime"
        binding = _import(run, f"import {module}; print('loaded', 0, 0)")[1]
    return Loads(tensorrt, error, binding)


def _import(run: Run, program: str) -> tuple[tuple[str, str] | None, str | None]:
    """The two words that the program says to have loaded, or None and why it has not."""
    result = run((sys.executable, "-c", program), _LOAD_SECONDS, None)
    said = re.search(r"^loaded (\S+) (\S+)$", result.stdout, re.MULTILINE)
    if said and result.status == 0:
        return (said[1], said[2]), None
    if result.failure is not None:
        return None, result.failure
    if result.status is not None and result.status < 0:
        return None, f"importing it killed Python with signal {-result.status}"
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    return None, lines[-1] if lines else f"importing it ended with status {result.status}"


def judge_devices(
    machine: Machine,
    bundle: Bundle | None,
    state: BundleState,
    engines: EnginesState,
    loads: Loads,
    build: Callable[[Sequence[str]], str],
) -> tuple[list[DeviceState], list[Finding]]:
    """Each device's state, and everything that keeps one from running the bundle.

    Args:
        build: gives the command that builds engines, with more arguments.
    """
    findings = [*_bundle(state), *_software(machine, loads), *_engines(engines, state, build)]
    if bundle is not None:
        findings += _precisions(bundle, state)
    devices = []
    names: tuple[DeviceName, ...] = ("tensorrt", "cuda", "cpu")
    for name in names:
        mine = [finding for finding in findings if name in finding.blocks]
        codes = [finding.exit_code for finding in mine]
        # A bundle that cannot be used ends every run before a device is looked at.
        exit_code = (BUNDLE if state.faults else DEVICE if DEVICE in codes else BUNDLE) if codes else 0
        notes = _notes(name, machine, engines)
        devices.append(
            DeviceState(name, not mine, exit_code, tuple(finding.problem.message for finding in mine), notes)
        )
    return devices, findings


def _found(code: str, message: str, mend: str, blocks: tuple[DeviceName, ...] = (), exit_code: int = DEVICE) -> Finding:
    return Finding(Problem(code, "advice", message, mend), blocks, exit_code if blocks else 0)


def _bundle(state: BundleState) -> list[Finding]:
    return [
        _found(
            "bundle-invalid",
            fault,
            "restore the bundle from its source, or export it again: edge-reclass export --help",
            ("tensorrt", "cuda", "cpu"),
            BUNDLE,
        )
        for fault in state.faults
    ]


def _precisions(bundle: Bundle, state: BundleState) -> list[Finding]:
    """GPUs run fp16 and fp32 files; int8 is made for the CPU."""
    findings = []
    for name in state.stages:
        encoder = bundle.manifest.stage(name).encoder
        if encoder.graph_files and not {"fp16", "fp32"} & set(encoder.graph_files):
            findings.append(
                _found(
                    "precision-missing",
                    f"stage {name} has a file in {', '.join(encoder.graph_files)} only, and GPUs run fp16 and fp32",
                    "export the encoder in fp16 or fp32: edge-reclass export --help",
                    ("tensorrt", "cuda"),
                    BUNDLE,
                )
            )
    return findings


def _software(machine: Machine, loads: Loads) -> list[Finding]:
    findings = []
    runtime = machine.onnxruntime
    if runtime is None:
        findings.append(
            _found(
                "onnxruntime-missing",
                f"{machine.reasons.get('onnxruntime', 'no ONNX Runtime')}; on every device it computes the heads",
                "pip install 'edge-reclass[cpu]'",
                ("tensorrt", "cuda", "cpu"),
            )
        )
    elif _CUDA_PROVIDER not in runtime.providers:
        findings.append(_no_cuda_provider(machine))
    if runtime is not None and len(runtime.distributions) > 1:
        findings.append(
            _found(
                "onnxruntime-twice",
                f"{' and '.join(runtime.distributions)} are installed side by side and overwrite each other's files",
                "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'edge-reclass[gpu]'",
            )
        )
    if machine.gpu is None:
        findings.append(
            _found(
                "gpu-absent",
                machine.reasons.get("gpu", "no NVIDIA GPU"),
                "sudo usermod -aG video,render $USER   (the groups that may use the GPU; then log in again)"
                if machine.jetson
                else "nvidia-smi   (has to list the GPU: install its driver; or use --device cpu)",
                ("tensorrt", "cuda"),
            )
        )
    findings += _tensorrt(machine, loads)
    if machine.cuda.binding is None:
        findings.append(
            _found(
                "binding-missing",
                machine.reasons.get("cuda.binding", "neither cuda-bindings nor pycuda is installed")
                + ": TensorRT's buffers need one",
                "unset EDGE_RECLASS_CUDA_MEMORY   (and doctor again: it takes what is installed)"
                if "cuda.binding" in machine.reasons
                else "pip install 'edge-reclass[tensorrt]'",
                ("tensorrt",),
            )
        )
    elif loads.binding_error is not None:
        findings.append(
            _found(
                "binding-broken",
                f"{machine.cuda.binding} {machine.cuda.binding_version} cannot be imported: {loads.binding_error}",
                f"pip install --force-reinstall {machine.cuda.binding}",
                ("tensorrt",),
            )
        )
    findings += _binding_version(machine)
    return findings


def _binding_version(machine: Machine) -> list[Finding]:
    """A driver serves programs made for its own CUDA and older ones."""
    serves = machine.gpu.cuda_driver_version if machine.gpu is not None else None
    version = machine.cuda.binding_version
    if machine.cuda.binding != "cuda-bindings" or serves is None or version is None:
        return []
    mine, most = version.split(".")[0], serves.split(".")[0]
    if not (mine.isdigit() and most.isdigit() and int(mine) > int(most)):
        return []
    return [
        _found(
            "binding-newer",
            f"cuda-bindings {version} is made for CUDA {mine}, and the driver serves CUDA up to {serves}",
            f"pip install 'cuda-bindings=={most}.*'",
        )
    ]


def _no_cuda_provider(machine: Machine) -> Finding:
    providers = ", ".join(machine.onnxruntime.providers) if machine.onnxruntime else ""
    version = machine.onnxruntime.version if machine.onnxruntime else ""
    message = f"ONNX Runtime {version} was built without CUDA (it has {providers})"
    if machine.jetson is not None:
        mend = "use --device tensorrt: PyPI's onnxruntime-gpu has no code for Orin's GPU"
    else:
        mend = "pip uninstall -y onnxruntime && pip install 'edge-reclass[gpu]'"
    return _found("cuda-provider-missing", message, mend, ("cuda",))


def _tensorrt(machine: Machine, loads: Loads) -> list[Finding]:
    if machine.tensorrt is not None:
        if loads.tensorrt_error is None:
            return []
        return [
            _found(
                "tensorrt-broken",
                f"{machine.tensorrt.module} in {machine.tensorrt.path} cannot be imported: {loads.tensorrt_error}",
                "sudo apt-get install --reinstall libnvinfer10 python3-libnvinfer"
                if machine.jetson
                else "pip install --force-reinstall 'edge-reclass[tensorrt-rtx]'",
                ("tensorrt",),
            )
        ]
    reason = machine.reasons.get("tensorrt", "TensorRT is not installed")
    other = re.search(r"installed for Python (\d+\.\d+)", reason)
    folder = machine.python.virtual_environment
    if other:
        mend = f"python{other[1]} -m venv --system-site-packages {shlex.quote(folder or '.venv')}   (and install again)"
    elif "does not see" in reason and folder is not None:
        # What `python -m venv --system-site-packages` writes; the environment keeps what is installed in it.
        config = shlex.quote(str(Path(folder) / "pyvenv.cfg"))
        mend = f"sed -i 's/^\\(include-system-site-packages\\) *=.*/\\1 = true/' {config}"
    elif "does not search" in reason:
        mend = f"use the system's Python: /usr/bin/python3 -m venv --system-site-packages {folder or '.venv'}"
    elif machine.jetson is not None:
        mend = "sudo apt-get install python3-libnvinfer"
    else:
        mend = "pip install 'edge-reclass[tensorrt-rtx]'"
    return [_found("tensorrt-missing", reason, mend, ("tensorrt",))]


def _engines(engines: EnginesState, state: BundleState, build: Callable[[Sequence[str]], str]) -> list[Finding]:
    findings = []
    blocks: tuple[DeviceName, ...] = () if engines.readable else ("tensorrt",)
    for fault in engines.unreadable:
        folder = fault.partition(f"/{RECORD}: ")[0]  # of the engine whose record this is
        mend = f"rm -r {shlex.quote(folder)} && {build(())}"
        if not engines.readable:
            mend = f"ls -ld {shlex.quote(engines.folder)}   (it has to be a folder that this user may read)"
        findings.append(_found("engines-unreadable", fault, mend, blocks, BUNDLE))
    by_stage: dict[str, list[EngineState]] = {}
    for engine in engines.engines:
        by_stage.setdefault(engine.stage, []).append(engine)
    for stage, states in by_stage.items():
        findings += _stage(stage, states, engines, stage in state.stages, build(("--stage", stage)))
    return findings


def _stage(stage: str, states: list[EngineState], engines: EnginesState, runs: bool, command: str) -> list[Finding]:
    """Damage is always told; the rest only where a GPU and TensorRT are here that could use an engine."""
    findings = [
        _found("engine-damaged", f"engine of {stage} {one.precision}: {one.reason}", command)
        for one in states
        if one.status == "damaged"
    ]
    if engines.target is None:
        return findings
    used = next((one for one in states if one.used), None)
    if used is not None:
        if not used.verified:
            findings.append(
                _found(
                    "engine-unverified",
                    f"engine of {stage} {used.precision}: {used.reason}",
                    command.replace("edge-reclass build", "edge-reclass verify", 1) + " --device tensorrt",
                )
            )
        return findings
    rejected = [one for one in states if one.status == "rejected"]
    if rejected and len(rejected) == len(states):
        reasons = "; ".join(f"{one.precision}: {one.reason}" for one in rejected)
        findings.append(
            _found(
                "engine-rejected",
                f"stage {stage} runs on the CPU: no engine of it gave the right numbers here ({reasons})",
                f"{command} --rebuild",
            )
        )
        return findings
    blocks: tuple[DeviceName, ...] = ("tensorrt",) if runs else ()
    if findings and blocks:  # the damage is what blocks
        return [Finding(one.problem, blocks, BUNDLE) for one in findings]
    # The one that came nearest to fitting says most.
    first = min((one for one in states if one.status != "rejected"), key=lambda one: one.status != "stale")
    message = f"stage {stage} has no engine for this device"
    if first.status != "missing":
        message += f"; its {first.precision} engine is {first.status}: {first.reason}"
    findings.append(_found(f"engine-{first.status}", message, command, blocks, BUNDLE))
    return findings


def _notes(device: DeviceName, machine: Machine, engines: EnginesState) -> tuple[str, ...]:
    if device == "cpu" and machine.onnxruntime is not None:
        return (f"ONNX Runtime {machine.onnxruntime.version}",)
    if device == "cuda" and machine.onnxruntime is not None and _CUDA_PROVIDER in machine.onnxruntime.providers:
        notes = [f"ONNX Runtime {machine.onnxruntime.version}"]
        if machine.gpu is not None and machine.gpu.sm == "8.7":
            notes.append("PyPI's onnxruntime-gpu has no code for SM 8.7 (Orin); NVIDIA's own wheel for Jetson has")
        if machine.cuda.cudnn is None:
            notes.append("no cuDNN was found, which it needs")
        return tuple(notes)
    if device == "tensorrt":
        stages: dict[str, list[str]] = {}
        for one in engines.engines:
            stages.setdefault(one.stage, []).append(one.status)
        cpu = [stage for stage, found in stages.items() if set(found) == {"rejected"}]
        return tuple(f"stage {stage} runs on the CPU" for stage in cpu)
    return ()
