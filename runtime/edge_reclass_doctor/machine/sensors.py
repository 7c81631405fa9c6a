"""What changes while a program runs, read often and cheaply: temperatures, clocks, power.

Files are found once; a reading reads about 20 small ones (under a millisecond on a server) and asks NVML where
there is a discrete GPU. No process is started.
"""

from __future__ import annotations

import time
from types import TracebackType

from edge_reclass_doctor.machine.cpu import CPUFREQ
from edge_reclass_doctor.machine.host import Host
from edge_reclass_doctor.machine.jetson import gpu_clock_files
from edge_reclass_doctor.machine.nvml import open_nvml
from edge_reclass_doctor.machine.power import (
    find_rails,
    find_zones,
    overcurrent_counters,
    overcurrent_events,
    total_rail,
)
from edge_reclass_doctor.machine.reading import read_int, scaled, subfolders
from edge_reclass_doctor.machine.records import NvmlReading, Reading

__all__ = ["Sensors"]


class Sensors:
    """Call it for a :class:`Reading`. Not safe for several threads at a time; close it when done."""

    def __init__(self, host: Host) -> None:
        """Find what there is to read."""
        root = host.root
        # A zone that gives nothing now may do so later: an idle GPU has its power taken away.
        self._zones = find_zones(root)
        self._rails = find_rails(root)
        self._total = total_rail([rail.name for rail in self._rails])
        cpus = (folder / "scaling_cur_freq" for folder in subfolders(root / CPUFREQ, "policy*"))
        self._cpus = [file for file in cpus if read_int(file) is not None]
        self._gpus = gpu_clock_files(root)
        self._counters = overcurrent_counters(root)
        self._nvml = open_nvml(host.load)

    def __call__(self) -> Reading:
        """Read everything now; what cannot be read this time is left out or None."""
        temperatures = {zone.name: zone.read() for zone in self._zones}
        rails = {rail.name: rail.read() for rail in self._rails}
        clocks = (scaled(file, 1e-3) for file in self._cpus)
        gpu = next((clock for file in self._gpus if (clock := scaled(file, 1e-6)) is not None), None)
        nvml = NvmlReading() if self._nvml is None else self._nvml.read()
        zone = temperatures.get("gpu-thermal")
        used = None
        if nvml.memory_total_bytes is not None and nvml.memory_free_bytes is not None:
            used = nvml.memory_total_bytes - nvml.memory_free_bytes
        return Reading(
            seconds=time.perf_counter(),
            temperatures_celsius={name: celsius for name, celsius in temperatures.items() if celsius is not None},
            cpu_mhz=tuple(clock for clock in clocks if clock is not None),
            gpu_mhz=nvml.sm_mhz if gpu is None else gpu,
            gpu_temperature_celsius=nvml.temperature_celsius if zone is None else zone,
            rails_watts={name: watts for name, watts in rails.items() if watts is not None},
            total_watts=rails[self._total] if self._total is not None else None,
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
