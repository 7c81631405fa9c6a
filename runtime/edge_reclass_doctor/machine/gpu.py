"""The first NVIDIA GPU, and what NVIDIA's management library says of it."""

from __future__ import annotations

from edge_reclass.errors import DeviceError
from edge_reclass.host import Gpu
from edge_reclass.host import probe_gpu as first_gpu
from edge_reclass_doctor.machine.host import Host
from edge_reclass_doctor.machine.nvml import open_nvml
from edge_reclass_doctor.machine.records import NvmlReading

__all__ = ["probe_gpu"]


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
    try:
        return gpu, nvml.read(), None
    finally:
        nvml.close()
