"""The first NVIDIA GPU, asked through the CUDA driver: no context is made and no GPU memory taken."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_reclass.errors import DeviceError
from edge_reclass.host import probe_gpu as first_gpu
from edge_reclass_doctor.machine.nvml import open_nvml
from edge_reclass_doctor.machine.records import GpuRecord

__all__ = ["cuda_version", "probe_gpu"]

# Of cuda.h's CUdevice_attribute.
_MULTIPROCESSOR_COUNT, _INTEGRATED = 16, 18


def probe_gpu(root: Path, load: Callable[[str], Any]) -> tuple[GpuRecord | None, str | None]:
    """The GPU, or None and why there is none."""
    try:
        gpu = first_gpu(root, load)
    except DeviceError as error:
        return None, str(error)
    except Exception as error:  # a library of that name that is no CUDA driver
        return None, f"no NVIDIA GPU can be used: libcuda.so.1 is not what was expected ({error})"
    cuda = load("libcuda.so.1")
    bus = ctypes.create_string_buffer(32)
    has_bus = _ask(cuda, "cuDeviceGetPCIBusId", bus, len(bus), _device(cuda)) is not None
    pci_bus = (bus.value.decode(errors="replace") or None) if has_bus else None
    integrated = _attribute(cuda, _INTEGRATED)
    # An integrated GPU is on no bus that NVML would know, and the only one.
    nvml = open_nvml(load, None if integrated else pci_bus)
    try:
        reading = None if nvml is None else nvml.read()
    finally:
        if nvml is not None:
            nvml.close()
    memory = ctypes.c_size_t()
    total = _ask(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), _device(cuda))
    return GpuRecord(
        name=gpu.name,
        sm=gpu.sm,
        driver=gpu.driver,
        cuda_driver_version=cuda_version(cuda),
        memory_bytes=None if total is None else memory.value,
        integrated=None if integrated is None else bool(integrated),
        multiprocessors=_attribute(cuda, _MULTIPROCESSOR_COUNT),
        pci_bus=pci_bus,
        nvml=reading,
    ), None


def cuda_version(cuda: Any) -> str | None:
    """The newest CUDA that the driver serves, such as ``12.6``."""
    version = ctypes.c_int()
    if _ask(cuda, "cuDriverGetVersion", ctypes.byref(version)) is None or version.value <= 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _device(cuda: Any) -> ctypes.c_int:
    device = ctypes.c_int()
    _ask(cuda, "cuDeviceGet", ctypes.byref(device), 0)
    return device


def _attribute(cuda: Any, attribute: int) -> int | None:
    value = ctypes.c_int()
    done = _ask(cuda, "cuDeviceGetAttribute", ctypes.byref(value), attribute, _device(cuda))
    return None if done is None else value.value


def _ask(cuda: Any, function: str, *arguments: Any) -> int | None:
    """0 where the driver did it; None where it gives an error or knows no such function."""
    try:
        status = getattr(cuda, function)(*arguments)
    except (AttributeError, KeyError):
        return None
    return 0 if status == 0 else None
