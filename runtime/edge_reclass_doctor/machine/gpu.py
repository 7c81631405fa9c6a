"""The first NVIDIA GPU, and what NVIDIA's management library says of it: clocks, temperature, power and memory.

Jetsons have that library from JetPack 7 on, and on Orin nearly all of its functions answer "not supported": every
value is optional on its own. Names and constants are those of nvml.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import closing
from typing import Any

from edge_reclass.errors import DeviceError
from edge_reclass.host import Gpu
from edge_reclass.host import probe_gpu as first_gpu
from edge_reclass_doctor.machine.host import Host
from edge_reclass_doctor.machine.records import NvmlReading

_LIBRARY = "libnvidia-ml.so.1"
_CLOCK_SM = 1
_TEMPERATURE_GPU = 0

# nvmlClocksThrottleReasons that slow a busy GPU down; an idle GPU and clocks set by hand are none.
_THROTTLES = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


def probe_gpu(host: Host) -> tuple[Gpu | None, NvmlReading | None, str | None]:
    """The GPU and NVML's values, or None and why there is no GPU."""
    try:
        gpu = first_gpu(host.root, host.load)
    except DeviceError as error:
        return None, None, str(error)
    except Exception as error:  # a library of that name that is no CUDA driver
        return None, None, f"no NVIDIA GPU can be used: libcuda.so.1 is not what was expected ({error})"
    # An integrated GPU is on no bus that NVML would know, and the only one.
    nvml = open_nvml(host.load, None if gpu.integrated else gpu.pci_bus)
    if nvml is None:
        return gpu, None, None
    with closing(nvml):
        return gpu, nvml.read(), None


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Nvml:
    """The library, initialised, with the handle of one GPU. Made by :func:`open_nvml`."""

    def __init__(self, library: Any, device: ctypes.c_void_p) -> None:
        self._library = library
        self._device = device

    def read(self) -> NvmlReading:
        """All values of this moment."""
        memory = _Memory()
        has_memory = _succeeds(self._library, "nvmlDeviceGetMemoryInfo", self._device, ctypes.byref(memory))
        return NvmlReading(
            temperature_celsius=self._number("nvmlDeviceGetTemperature", ctypes.c_uint, _TEMPERATURE_GPU),
            power_watts=self._number("nvmlDeviceGetPowerUsage", ctypes.c_uint, factor=1e-3),
            power_limit_watts=self._number("nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint, factor=1e-3),
            energy_joules=self._number("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong, factor=1e-3),
            sm_mhz=self._number("nvmlDeviceGetClockInfo", ctypes.c_uint, _CLOCK_SM),
            sm_max_mhz=self._number("nvmlDeviceGetMaxClockInfo", ctypes.c_uint, _CLOCK_SM),
            memory_total_bytes=memory.total if has_memory else None,
            memory_free_bytes=memory.free if has_memory else None,
            throttled_by=self._throttles(),
        )

    def close(self) -> None:
        """Release the library; closing twice is allowed."""
        if self._library is not None:
            _succeeds(self._library, "nvmlShutdown")
            self._library = None

    def _throttles(self) -> tuple[str, ...]:
        bits = ctypes.c_ulonglong()
        if not _succeeds(self._library, "nvmlDeviceGetCurrentClocksThrottleReasons", self._device, ctypes.byref(bits)):
            return ()
        return tuple(name for bit, name in _THROTTLES.items() if bits.value & bit)

    def _number(self, function: str, kind: Any, *between: Any, factor: float = 1.0) -> float | None:
        value = kind()
        if not _succeeds(self._library, function, self._device, *between, ctypes.byref(value)):
            return None
        return float(value.value) * factor


def open_nvml(load: Callable[[str], Any], pci_bus: str | None = None) -> Nvml | None:
    """The library with the GPU at ``pci_bus`` (CUDA and NVML number GPUs differently), else its first one.

    None where the library is not there or does not know the GPU.
    """
    try:
        library = load(_LIBRARY)
    except OSError:
        return None
    if not _succeeds(library, "nvmlInit_v2"):
        return None
    device = ctypes.c_void_p()
    found = pci_bus is not None and _succeeds(
        library, "nvmlDeviceGetHandleByPciBusId_v2", pci_bus.encode(), ctypes.byref(device)
    )
    # Without a bus there is one GPU at most that could be meant: the integrated one.
    if not found and pci_bus is None:
        found = _succeeds(library, "nvmlDeviceGetHandleByIndex_v2", 0, ctypes.byref(device))
    if not found:
        _succeeds(library, "nvmlShutdown")
        return None
    return Nvml(library, device)


def _succeeds(library: Any, function: str, *arguments: Any) -> bool:
    try:
        return bool(getattr(library, function)(*arguments) == 0)
    except (AttributeError, KeyError):  # an older library without it
        return False
