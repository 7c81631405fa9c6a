"""A read-only look at the machine: hardware, drivers, libraries, clocks, temperatures and power.

``probe`` gives the whole record once; ``sensors`` what changes, as often as wanted. Nothing is written or set, no GPU
memory is taken, and what is not there is None: a probe does not fail.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from edge_reclass_doctor.machine.cpu import probe_cpu
from edge_reclass_doctor.machine.gpu import probe_gpu
from edge_reclass_doctor.machine.jetson import jetpack_of, probe_jetson
from edge_reclass_doctor.machine.memory import probe_disks, probe_memory
from edge_reclass_doctor.machine.power import probe_fans, probe_power, probe_thermal
from edge_reclass_doctor.machine.reading import Run, ToolResult, run_tool
from edge_reclass_doctor.machine.records import (
    ClockRange,
    Cpu,
    CpuPolicy,
    CudaSoftware,
    Disk,
    Fan,
    GpuRecord,
    Jetson,
    JetsonClocks,
    Machine,
    Memory,
    NvmlReading,
    OnnxRuntime,
    OperatingSystem,
    PowerMode,
    PowerRail,
    PowerRecord,
    Python,
    Reading,
    Tegrastats,
    TensorRt,
    ThermalZone,
)
from edge_reclass_doctor.machine.sensors import Sensors
from edge_reclass_doctor.machine.software import (
    CUDA_MEMORY_VARIABLE,
    installed_modules,
    installed_version,
    probe_cuda,
    probe_libraries,
    probe_onnxruntime,
    probe_tensorrt,
)
from edge_reclass_doctor.machine.system import debian_versions, probe_os, probe_python

__all__ = [
    "ClockRange",
    "Cpu",
    "CpuPolicy",
    "CudaSoftware",
    "Disk",
    "Fan",
    "GpuRecord",
    "Jetson",
    "JetsonClocks",
    "Machine",
    "Memory",
    "NvmlReading",
    "OnnxRuntime",
    "OperatingSystem",
    "PowerMode",
    "PowerRail",
    "PowerRecord",
    "Python",
    "Reading",
    "Run",
    "Sensors",
    "Tegrastats",
    "TensorRt",
    "ThermalZone",
    "ToolResult",
    "jetpack_of",
    "probe",
    "run_tool",
    "sensors",
]


def probe(
    root: Path = Path("/"),
    *,
    paths: Iterable[Path] = (),
    tools: bool = True,
    run: Run = run_tool,
    environ: Mapping[str, str] = os.environ,
    load: Callable[[str], Any] = ctypes.CDLL,
    version: Callable[[str], str | None] = installed_version,
    modules: Callable[[str], Path | None] = installed_modules,
    load_module: Callable[[str], Any] = import_module,
    python: Python | None = None,
) -> Machine:
    """Everything that can be read of this machine without being root; root sees a little more.

    Args:
        root: where ``/sys``, ``/proc``, ``/etc``, ``/usr`` and ``/var`` are looked for.
        paths: whose disks to report; they are not below ``root``.
        tools: on a Jetson, also ask nvpmodel, jetson_clocks and tegrastats (about a second).
        run, environ, load, version, modules, load_module, python: how to run a program; variables; how to open a
            shared library; versions of distributions; packages that could be imported; how to import ONNX Runtime;
            the interpreter. For tests.
    """
    reasons: dict[str, str] = {}
    os_record = probe_os(root, environ)
    here = probe_python() if python is None else python
    packages = debian_versions(root)
    cpu = probe_cpu(root, os_record.architecture)
    gpu, why = probe_gpu(root, load)
    reasons |= {"gpu": why} if why else {}
    tensorrt, why = probe_tensorrt(root, here, modules, version)
    reasons |= {"tensorrt": why} if why else {}
    onnxruntime, why = probe_onnxruntime(version, load_module)
    reasons |= {"onnxruntime": why} if why else {}
    jetson, why_not = probe_jetson(
        root, run=run, environ=environ, packages=packages, policies=cpu.policies, tools=tools
    )
    cuda = probe_cuda(root, packages, version, environ)
    if cuda.binding is None and (forced := environ.get(CUDA_MEMORY_VARIABLE)):
        reasons["cuda.binding"] = f"{CUDA_MEMORY_VARIABLE} asks for {forced!r}, which is not installed"
    power = probe_power(root)
    if power.total_watts is None:
        reasons["power.total_watts"] = (
            "no rail of this board measures the whole input, and its rails are not added up"
            if power.rails
            else "no power monitor"
        )
    return Machine(
        os=os_record,
        python=here,
        cpu=cpu,
        memory=probe_memory(root),
        disks=probe_disks(paths),
        gpu=gpu,
        cuda=cuda,
        tensorrt=tensorrt,
        onnxruntime=onnxruntime,
        jetson=jetson,
        thermal=probe_thermal(root),
        power=power,
        fans=probe_fans(root),
        libraries=probe_libraries(version),
        reasons=reasons | why_not,
    )


def sensors(root: Path = Path("/"), *, load: Callable[[str], Any] = ctypes.CDLL, pci_bus: str | None = None) -> Sensors:
    """A callable that reads temperatures, clocks and power; close it when done (it is a context manager)."""
    return Sensors(root, load=load, pci_bus=pci_bus)
