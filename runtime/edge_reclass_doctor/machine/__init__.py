"""A read-only look at the machine: hardware, drivers, libraries, clocks, temperatures and power.

``probe`` gives the whole record once; ``sensors`` what changes, as often as wanted. Nothing is written or set, no GPU
memory is taken, and what is not there is None: a probe does not fail.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edge_reclass.backends import CUDA_MEMORY_VARIABLE
from edge_reclass_doctor.machine.cpu import probe_cpu
from edge_reclass_doctor.machine.gpu import probe_gpu
from edge_reclass_doctor.machine.host import Host, Run, ToolResult, run_tool
from edge_reclass_doctor.machine.jetson import probe_jetson
from edge_reclass_doctor.machine.memory import probe_disks, probe_memory
from edge_reclass_doctor.machine.power import probe_fans, probe_power, probe_thermal
from edge_reclass_doctor.machine.records import ClockRange, Jetson, Machine, Reading
from edge_reclass_doctor.machine.sensors import Sensors
from edge_reclass_doctor.machine.software import (
    LIBRARIES,
    ONNXRUNTIMES,
    probe_cuda,
    probe_onnxruntime,
    probe_tensorrt,
)
from edge_reclass_doctor.machine.system import debian_versions, probe_os

__all__ = [
    "ONNXRUNTIMES",
    "ClockRange",
    "Host",
    "Jetson",
    "Machine",
    "Reading",
    "Run",
    "ToolResult",
    "probe",
    "run_tool",
    "sensors",
]


def probe(host: Host | None = None, *, paths: Iterable[Path] = ()) -> Machine:
    """Everything that can be read of a machine without being root; root sees a little more.

    Args:
        host: the machine; None is this one.
        paths: whose disks to report; they are not below the host's root.
    """
    host = Host() if host is None else host
    root = host.root
    system, python = probe_os(root, host.environ), host.python()
    packages = debian_versions(root)
    cpu = probe_cpu(root, system.architecture)
    gpu, nvml, no_gpu = probe_gpu(host)
    tensorrt, no_tensorrt = probe_tensorrt(host, python)
    onnxruntime, no_onnxruntime = probe_onnxruntime(host)
    jetson, reasons = probe_jetson(host, packages, cpu.policies)
    cuda = probe_cuda(host, packages)
    power = probe_power(root)
    for name, why in (("gpu", no_gpu), ("tensorrt", no_tensorrt), ("onnxruntime", no_onnxruntime)):
        if why is not None:
            reasons[name] = why
    if cuda.binding is None and (forced := host.environ.get(CUDA_MEMORY_VARIABLE)):
        reasons["cuda.binding"] = f"{CUDA_MEMORY_VARIABLE} asks for {forced!r}, which is not installed"
    if power.total_watts is None:
        reasons["power.total_watts"] = (
            "no rail of this board measures the whole input, and its rails are not added up"
            if power.rails
            else "no power monitor"
        )
    return Machine(
        os=system,
        python=python,
        cpu=cpu,
        memory=probe_memory(root),
        disks=probe_disks(paths),
        gpu=gpu,
        nvml=nvml,
        cuda=cuda,
        tensorrt=tensorrt,
        onnxruntime=onnxruntime,
        jetson=jetson,
        thermal=probe_thermal(root),
        power=power,
        fans=probe_fans(root),
        libraries={name: host.version(name) for name in LIBRARIES},
        reasons=reasons,
    )


def sensors(host: Host | None = None) -> Sensors:
    """A callable that reads temperatures, clocks and power; close it when done (it is a context manager)."""
    return Sensors(Host() if host is None else host)
