"""The first NVIDIA GPU of this machine, as its driver reports it."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_reclass.errors import DeviceError
from edge_reclass.host.files import read_text


@dataclass(frozen=True)
class Gpu:
    """The first NVIDIA GPU; what follows ``driver`` is None where the driver does not say.

    Attributes:
        sm: compute capability, such as ``8.7``.
        driver: as in an engine's key: ``l4t-36.4.3``, ``driver-580.95.05``, ``cuda-12.6``.
        cuda_driver_version: the newest CUDA that the driver serves, such as ``12.6``.
        integrated: whether its memory is the CPU's.
        pci_bus: such as ``0000:01:00.0``.
    """

    name: str
    sm: str
    driver: str
    # What no engine depends on, and so no comparison.
    cuda_driver_version: str | None = field(default=None, compare=False)
    memory_bytes: int | None = field(default=None, compare=False)
    integrated: bool | None = field(default=None, compare=False)
    pci_bus: str | None = field(default=None, compare=False)


_TRACES = ("proc/driver/nvidia", "etc/nv_tegra_release", "dev/nvidiactl", "dev/nvhost-gpu", "dev/nvgpu")
# Of cuda.h's CUdevice_attribute: INTEGRATED, COMPUTE_CAPABILITY_MAJOR and _MINOR.
_INTEGRATED, _MAJOR, _MINOR = 18, 75, 76


def probe_gpu(root: Path = Path("/"), load: Callable[[str], Any] = ctypes.CDLL) -> Gpu:
    """Ask the CUDA driver for its first GPU. Reads only; makes no context and takes no GPU memory.

    Args:
        root: where ``etc`` and ``proc`` are looked for.
        load: opens a shared library by name.

    Raises:
        DeviceError: there is no driver or no GPU.
    """
    try:
        cuda = load("libcuda.so.1")
    except OSError as error:
        raise DeviceError(f"no NVIDIA GPU: the CUDA driver cannot be loaded ({error})") from error

    def ask(function: str, *arguments: Any) -> None:
        status = getattr(cuda, function)(*arguments)
        if status != 0:
            raise DeviceError(f"no NVIDIA GPU can be used: {function} gives CUDA error {status}")

    def answers(function: str, *arguments: Any) -> bool:
        try:
            ask(function, *arguments)
        except (AttributeError, DeviceError):  # an older driver
            return False
        return True

    ask("cuInit", 0)
    device, count = ctypes.c_int(), ctypes.c_int()
    ask("cuDeviceGetCount", ctypes.byref(count))
    if count.value < 1:
        raise DeviceError("no NVIDIA GPU: the CUDA driver counts none (is CUDA_VISIBLE_DEVICES empty?)")
    ask("cuDeviceGet", ctypes.byref(device), 0)
    major, minor, version, integrated = (ctypes.c_int() for _ in range(4))
    ask("cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, device)
    ask("cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, device)
    ask("cuDriverGetVersion", ctypes.byref(version))
    name, bus, memory = ctypes.create_string_buffer(256), ctypes.create_string_buffer(32), ctypes.c_size_t()
    ask("cuDeviceGetName", name, len(name), device)
    cuda_version = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(
        name=name.value.decode(errors="replace"),
        sm=f"{major.value}.{minor.value}",
        driver=_release(root) or f"cuda-{cuda_version}",
        cuda_driver_version=cuda_version,
        memory_bytes=memory.value if answers("cuDeviceTotalMem_v2", ctypes.byref(memory), device) else None,
        integrated=(
            bool(integrated.value)
            if answers("cuDeviceGetAttribute", ctypes.byref(integrated), _INTEGRATED, device)
            else None
        ),
        pci_bus=bus.value.decode(errors="replace") if answers("cuDeviceGetPCIBusId", bus, len(bus), device) else None,
    )


def l4t_release(root: Path = Path("/")) -> str | None:
    """The L4T release of a Jetson, such as ``36.4.3``; None elsewhere. ``root`` is where ``etc`` is looked for."""
    match = re.search(
        r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", read_text(root / "etc/nv_tegra_release") or ""
    )
    return f"{match[1]}.{match[2]}" if match else None


def _release(root: Path) -> str | None:
    """The L4T release of a Jetson, else the version of the NVIDIA kernel module."""
    if l4t := l4t_release(root):
        return f"l4t-{l4t}"
    match = re.search(r"NVRM version:.*?\s(\d{3,}\.[\d.]+)(?!\S)", read_text(root / "proc/driver/nvidia/version") or "")
    return f"driver-{match[1]}" if match else None


def has_nvidia_gpu(root: Path = Path("/")) -> bool:
    """True where there is NVIDIA hardware or its kernel driver, whether or not it can be used."""
    if any((root / trace).exists() for trace in _TRACES):
        return True
    for device in (root / "sys/bus/pci/devices").glob("*"):
        if read_text(device / "vendor") == "0x10de" and (read_text(device / "class") or "").startswith("0x03"):
            return True
    return False
