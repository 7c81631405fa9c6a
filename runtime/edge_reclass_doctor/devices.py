"""Which devices could run the bundle, by all that can be seen without opening one, for ``edge-reclass doctor``."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edge_reclass.backends import CUDA_PROVIDER
from edge_reclass_doctor.machine import Machine
from edge_reclass_doctor.report import ALL_DEVICES, DeviceState, EnginesState, Problem

_DAMAGE = ("bundle-invalid", "engine-damaged", "engines-unreadable")


def judge_devices(machine: Machine, problems: Sequence[Problem], engines: EnginesState) -> list[DeviceState]:
    """Each device's state, in the order in which ``auto`` tries them."""
    devices = []
    for name in ALL_DEVICES:
        mine = [problem for problem in problems if name in problem.blocks]
        codes = {problem.exit_code for problem in mine}
        # A bundle that cannot be used ends every run before a device is looked at.
        invalid = any(problem.code == "bundle-invalid" for problem in mine)
        exit_code = 0 if not mine else 4 if invalid else max(codes)
        notes = tuple(_notes(name, machine, engines))
        devices.append(DeviceState(name, not mine, exit_code, tuple(problem.message for problem in mine), notes))
    return devices


def _notes(device: str, machine: Machine, engines: EnginesState) -> list[str]:
    runtime = machine.onnxruntime
    if device == "tensorrt":
        return [f"stage {stage} runs on the CPU" for stage in engines.on_cpu]
    if runtime is None or (device == "cuda" and CUDA_PROVIDER not in runtime.providers):
        return []
    notes = [f"ONNX Runtime {runtime.version}"]
    if device == "cuda":
        if machine.gpu is not None and machine.gpu.sm == "8.7":
            notes.append("PyPI's onnxruntime-gpu has no code for SM 8.7 (Orin); NVIDIA's own wheel for Jetson has")
        if machine.cuda.cudnn is None:
            notes.append("no cuDNN was found, which it needs")
    return notes


def relevant_problems(
    wanted: str, chosen: str | None, decisive: str, machine: Machine, problems: Sequence[Problem]
) -> list[Problem]:
    """What blocks the wanted device, damage, and with ``auto`` what a better device lacks.

    Args:
        wanted: ``auto`` or a device.
        chosen: the device that is used; None where none can.
        decisive: the device whose exit code is the command's.
        machine: what was found of it.
        problems: everything that was found.
    """
    better: set[str] = set()
    if wanted == "auto" and machine.jetson is not None:  # whose GPU is for TensorRT
        better = {"tensorrt"} - {decisive}
    elif wanted == "auto" and machine.gpu is not None:
        better = set(ALL_DEVICES[: ALL_DEVICES.index(decisive)])
    relevant = []
    for problem in problems:
        if problem.code in _DAMAGE or (chosen is None and decisive in problem.blocks):
            relevant.append(msgspec.structs.replace(problem, severity="problem"))
        elif problem.blocks:
            if better & set(problem.blocks):
                relevant.append(problem)
        elif wanted in ("auto", "tensorrt") or not problem.code.startswith("engine"):
            relevant.append(problem)
    return relevant
