"""The first NVIDIA GPU of this machine, as its driver tells it."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_reclass.errors import DeviceError

__all__ = ["Gpu", "has_nvidia_gpu", "probe_gpu"]


@dataclass(frozen=True)
class Gpu:
    """The first NVIDIA GPU: its name, compute capability such as ``8.7``, and driver or L4T release."""

    name: str
    sm: str
    driver: str


_TRACES = ("proc/driver/nvidia", "etc/nv_tegra_release", "dev/nvidiactl", "dev/nvhost-gpu", "dev/nvgpu")
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h


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

    ask("cuInit", 0)
    device, count = ctypes.c_int(), ctypes.c_int()
    ask("cuDeviceGetCount", ctypes.byref(count))
    if count.value < 1:
        raise DeviceError("no NVIDIA GPU: the CUDA driver counts none (is CUDA_VISIBLE_DEVICES empty?)")
    ask("cuDeviceGet", ctypes.byref(device), 0)
    major, minor, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    ask("cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, device)
    ask("cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, device)
    ask("cuDriverGetVersion", ctypes.byref(version))
    name = ctypes.create_string_buffer(256)
    ask("cuDeviceGetName", name, len(name), device)
    driver = _release(root) or f"cuda-{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}", driver)


def _release(root: Path) -> str | None:
    """The L4T release of a Jetson, else the version of the NVIDIA kernel module."""
    patterns = {
        "etc/nv_tegra_release": (r"# R(\d+) \(release\), REVISION: ([\d.]+)", "l4t-{0}.{1}"),
        "proc/driver/nvidia/version": (r"NVRM version:.*?\s(\d{3,}\.[\d.]+)\s", "driver-{0}"),
    }
    for file, (pattern, form) in patterns.items():
        try:
            text = (root / file).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if match := re.search(pattern, text):
            return form.format(*match.groups())
    return None


def has_nvidia_gpu(root: Path = Path("/")) -> bool:
    """True where there is NVIDIA hardware or its kernel driver, whether or not it can be used."""
    if any((root / trace).exists() for trace in _TRACES):
        return True
    for device in (root / "sys/bus/pci/devices").glob("*"):
        if _read(device / "vendor") == "0x10de" and (_read(device / "class") or "").startswith("0x03"):
            return True
    return False


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
