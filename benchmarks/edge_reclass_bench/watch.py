"""What else happened while something ran: processor time, other load, memory peaks, throttling.

Everything is read from outside the timed regions or by a thread that wakes twice a second; nothing is set.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_reclass_bench.clocks import Clock, perf_counter
from edge_reclass_bench.record import Run
from edge_reclass_doctor.machine import Reading

Sensors = Callable[[], Reading]
"""One reading of the machine's sensors, such as ``edge_reclass_doctor.machine.sensors()``."""

INTERVAL = 0.5
"""Seconds between readings."""


def reset_peak(root: Path = Path("/")) -> bool:
    """Set the kernel's peak of this process's resident set to what it is now; False where the kernel refuses."""
    try:
        (root / "proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_bytes(root: Path = Path("/")) -> int | None:
    """Largest resident set of this process since :func:`reset_peak`; None where the kernel does not say.

    Not ``ru_maxrss``: a child inherits its parent's there.
    """
    try:
        for line in (root / "proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def busy_seconds(root: Path = Path("/")) -> float | None:
    """Processor time that the whole machine has used since it started, stolen time included; None where unknown."""
    try:
        first = (root / "proc/stat").read_text().split("\n", 1)[0].split()
        # user, nice, system, idle, iowait, irq, softirq, steal
        numbers = [int(word) for word in first[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    if first[0] != "cpu" or len(numbers) < 8:
        return None
    return (sum(numbers) - numbers[3] - numbers[4]) / os.sysconf("SC_CLK_TCK")


def _own() -> tuple[float, int]:
    """Processor time and involuntary switches of this process and the children it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usages), sum(u.ru_nivcsw for u in usages)


@dataclass
class Watch:
    """Adds up what happened over all times that it was entered, and gives it as a :class:`Run`.

    Attributes:
        sensors: None reads none.
        clock, busy, own, root: for tests.
    """

    sensors: Sensors | None = None
    clock: Clock = perf_counter
    busy: Callable[[], float | None] = busy_seconds
    own: Callable[[], tuple[float, int]] = _own
    interval: float = INTERVAL
    root: Path = Path("/")
    wall: float = 0.0
    cpu: float = 0.0
    switches: int = 0
    other: float | None = 0.0
    peak: int | None = None
    readings: list[list[Reading]] = field(default_factory=list)
    _before: tuple[float, float, int, float | None] = (0.0, 0.0, 0, None)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _can_reset: bool = False

    def __enter__(self) -> Watch:
        self._can_reset = reset_peak(self.root)
        self._stop.clear()
        if self.sensors is not None:
            self.readings.append([self.sensors()])
            self._thread = threading.Thread(target=self._look, name="bench-sensors", daemon=True)
            self._thread.start()
        cpu, switches = self.own()
        self._before = (self.clock(), cpu, switches, self.busy())
        return self

    def __exit__(self, *_: object) -> None:
        began, cpu_before, switches_before, busy_before = self._before
        wall, busy = self.clock() - began, self.busy()
        cpu, switches = self.own()
        self.wall += wall
        self.cpu += cpu - cpu_before
        self.switches += switches - switches_before
        if self.other is None or busy is None or busy_before is None:
            self.other = None
        else:
            self.other += max(0.0, busy - busy_before - (cpu - cpu_before))
        if self.sensors is not None and self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
            self.readings[-1].append(self.sensors())
        if self._can_reset and (peak := peak_bytes(self.root)) is not None:
            self.peak = max(self.peak or 0, peak)

    def _look(self) -> None:
        while self.sensors is not None and not self._stop.wait(self.interval):
            self.readings[-1].append(self.sensors())

    def run(
        self,
        scenario: str,
        subject: str,
        *,
        warm_up: int,
        passes: int,
        count: int,
        failed: int = 0,
        notes: list[str] | None = None,
        host_peak: int | None = None,
        memory: bool = True,
    ) -> Run:
        """What was seen, as the record keeps it.

        ``host_peak`` replaces this process's, where children did the work. ``memory`` is False where what was held is
        not what the cascade needs.
        """
        every = [reading for span in self.readings for reading in span]
        used = [r.gpu_memory_used_bytes for r in every if r.gpu_memory_used_bytes is not None]
        return Run(
            scenario=scenario,
            subject=subject,
            wall_seconds=self.wall,
            warm_up=warm_up,
            passes=passes,
            count=count,
            failed=failed,
            cpu_seconds=self.cpu,
            other_cpu=None if self.other is None or self.wall <= 0 else self.other / self.wall,
            involuntary_switches=self.switches,
            host_peak_bytes=(self.peak if host_peak is None else host_peak) if memory else None,
            device_peak_bytes=max(used) if used and memory else None,
            throttled=sorted({reason for r in every for reason in r.throttled_by} | self._overcurrent()),
            notes=notes or [],
        )

    def _overcurrent(self) -> set[str]:
        for span in self.readings:
            first, last = span[0].overcurrent_events, span[-1].overcurrent_events
            if first is not None and last is not None and last > first:
                return {"over-current: the supply was too weak"}
        return set()
