"""What else is worth fixing on a machine: power, heat, memory, space. For ``edge-reclass doctor``."""

from __future__ import annotations

from collections.abc import Iterator

from edge_reclass_appliance import releases
from edge_reclass_appliance.errors import ApplianceError
from edge_reclass_doctor.engines import Command
from edge_reclass_doctor.machine import Jetson, Machine
from edge_reclass_doctor.report import EnginesState, Problem

GIB = 1 << 30
_LOW_MEMORY = GIB
_LOW_DISK = GIB // 4
_HOT_CELSIUS = 95.0
"""Where the system names no temperature at which it slows down."""

_ENGINE_PER_ONNX = 3
"""Room for a build: the engine beside its temporary copy and the timing cache, by the size of the ONNX files."""


def advise(machine: Machine, engines: EnginesState, builds: bool, command: Command, bench: bool) -> Iterator[Problem]:
    """Yield advice; nothing here keeps a device from running.

    Args:
        machine: what was found of it.
        engines: the engine store.
        builds: whether engines have to be built.
        command: gives the command that builds them.
        bench: also say what makes measurements vary.
    """
    yield from _memory(machine)
    yield from _space(machine, engines, builds, command)
    yield from _heat(machine)
    if machine.jetson is not None:
        yield from _jetson(machine.jetson, builds, bench)


def _memory(machine: Machine) -> Iterator[Problem]:
    available = machine.memory.available_bytes
    if available is not None and available < _LOW_MEMORY:
        fix = "free -h; ps aux --sort=-rss | head"
        if machine.jetson is not None:
            fix = "sudo systemctl isolate multi-user.target   (stops the desktop; set-default keeps it off)"
        message = f"only {available / GIB:.1f} GiB of memory are available: an encoder may not fit"
        yield Problem("memory-low", message, fix)


def _space(machine: Machine, engines: EnginesState, builds: bool, command: Command) -> Iterator[Problem]:
    disk = next((disk for disk in machine.disks if disk.path == engines.folder), None)
    room = max(_LOW_DISK, engines.onnx_bytes * _ENGINE_PER_ONNX if builds else 0)
    if disk is not None and disk.free_bytes < room:
        yield Problem(
            "disk-low",
            f"{disk.free_bytes / GIB:.1f} GiB are free at {disk.looked_at}, and"
            f" {'a build wants about' if builds else 'less than'} {room / GIB:.1f} GiB",
            f"df -h {disk.looked_at}; or keep engines elsewhere: --engines DIR",
        )
    if builds and not engines.writable:
        yield Problem(
            "engines-not-writable",
            f"{engines.folder} cannot be written by this user, so no engine can be built there",
            # An appliance's own command begins with it.
            f"sudo {command('build').removeprefix('sudo ')}   (or name another folder with --engines DIR, for all"
            " commands)",
        )


def _heat(machine: Machine) -> Iterator[Problem]:
    for zone in machine.thermal:
        limit = _HOT_CELSIUS if zone.trip_celsius is None else zone.trip_celsius
        if zone.celsius is not None and zone.celsius >= limit:
            yield Problem(
                "hot",
                f"{zone.name} is at {zone.celsius:.0f} °C and slows down from {limit:.0f} °C on",
                "free the air's way and clean the fan, or choose a lower power mode",
            )
    if machine.nvml is not None and machine.nvml.throttled_by:
        message = f"the GPU slows down now: {', '.join(machine.nvml.throttled_by)}"
        yield Problem("throttled", message, "nvidia-smi -q -d PERFORMANCE")


def _jetson(jetson: Jetson, builds: bool, bench: bool) -> Iterator[Problem]:
    release = None
    try:
        release = releases.supported_release(jetson.l4t or "unknown")
    except ApplianceError as error:
        yield Problem("l4t-untested", str(error), error.fix)
    if release is not None and release.large_allocations_fail and builds:
        yield Problem(
            "large-allocations",
            f"L4T {jetson.l4t}: building an engine may fail with {releases.LARGE_ALLOCATION_FAILED} although enough"
            " memory is free, where it is in pieces",
            releases.LARGE_ALLOCATION_CURE,
        )
    fastest = next((mode for mode in jetson.power_modes if mode.name.startswith("MAXN")), None)
    if bench and jetson.power_mode is not None and fastest is not None and jetson.power_mode.id != fastest.id:
        yield Problem(
            "power-mode",
            f"power mode {jetson.power_mode.name}: {fastest.name} has higher clocks, if supply and cooling allow",
            f"sudo nvpmodel -m {fastest.id}",
        )
    if bench and jetson.clocks_locked is False:
        yield Problem(
            "clocks-vary",
            "clocks follow the load: measurements vary, and the first tracks are slower",
            "sudo jetson_clocks   (until the next start)",
        )
    if jetson.overcurrent_events:
        yield Problem(
            "overcurrent",
            f"{jetson.overcurrent_events} over-current alarms since the start: clocks were lowered for it",
            "use a stronger supply, or a lower mode: sudo nvpmodel -m ID   (nvpmodel -p --verbose lists them)",
        )
