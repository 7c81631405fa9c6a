"""What changes while a program runs, read often and cheaply: temperatures, clocks, power.

Files are found once; a reading reads about 20 small ones (under a millisecond on a server) and asks NVML where
there is a discrete GPU. No process is started.
"""

from __future__ import annotations

import time
from types import TracebackType

from edge_reclass_doctor.machine.cpu import clock_folders
from edge_reclass_doctor.machine.gpu import open_nvml
from edge_reclass_doctor.machine.host import Host
from edge_reclass_doctor.machine.jetson import gpu_folders
from edge_reclass_doctor.machine.power import (
    find_rails,
    find_zones,
    overcurrent_counters,
    overcurrent_events,
    read_celsius,
    read_watts,
    total_rail,
)
from edge_reclass_doctor.machine.reading import scaled
from edge_reclass_doctor.machine.records import NvmlReading, Reading


class Sensors:
    """Call it for a :class:`Reading`. Not safe for several threads at a time; close it when done."""

    def __init__(self, host: Host) -> None:
        # A zone that gives nothing now may do so later: an idle GPU has its power taken away.
        self._zones = find_zones(host.root)
        rails = {name: (chip, number) for name, chip, number in find_rails(host.root)}
        self._total = rails.get(total_rail(rails) or "")
        self._cpus = [folder / "scaling_cur_freq" for folder in clock_folders(host.root)]
        self._gpus = [folder / "cur_freq" for folder in gpu_folders(host.root)]
        self._counters = overcurrent_counters(host.root)
        self._nvml = open_nvml(host.load)

    def __call__(self) -> Reading:
        """Read everything now; what cannot be read this time is left out or None."""
        celsius = {name: value for name, file in self._zones if (value := read_celsius(file)) is not None}
        cpus = tuple(mhz for file in self._cpus if (mhz := scaled(file, 1e-3)) is not None)
        gpu = next((mhz for file in self._gpus if (mhz := scaled(file, 1e-6)) is not None), None)
        nvml = NvmlReading() if self._nvml is None else self._nvml.read()
        used = None
        if nvml.memory_total_bytes is not None and nvml.memory_free_bytes is not None:
            used = nvml.memory_total_bytes - nvml.memory_free_bytes
        return Reading(
            seconds=time.perf_counter(),
            temperatures_celsius=celsius,
            cpu_mhz=cpus,
            gpu_mhz=nvml.sm_mhz if gpu is None else gpu,
            gpu_temperature_celsius=celsius.get("gpu-thermal", nvml.temperature_celsius),
            total_watts=None if self._total is None else read_watts(*self._total),
            gpu_watts=nvml.power_watts,
            gpu_energy_joules=nvml.energy_joules,
            gpu_memory_used_bytes=used,
            throttled_by=nvml.throttled_by,
            overcurrent_events=overcurrent_events(self._counters),
        )

    def close(self) -> None:
        """Release NVML; closing twice is allowed, and readings go on without it."""
        if self._nvml is not None:
            self._nvml.close()
            self._nvml = None

    def __enter__(self) -> Sensors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
