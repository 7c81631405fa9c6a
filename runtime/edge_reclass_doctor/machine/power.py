"""Temperatures, power rails and fans, from /sys/class/thermal and /sys/class/hwmon.

Jetsons measure their supply lines with INA3221 chips (Orin: voltage and current of three lines) and INA238 chips
(Thor: the input's power). Where the whole board is behind one input rail, that rail is the total, and the other rails
are parts of it. AGX Orin has none such; there the total stays unknown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from edge_reclass.host import read_text
from edge_reclass_doctor.machine.reading import read_int, scaled, subfolders
from edge_reclass_doctor.machine.records import Fan, PowerRail, PowerRecord, ThermalZone

_INPUT_RAILS = ("VDD_IN", "VIN")
"""Rails that feed the whole board: Orin Nano and Orin NX, Thor."""

_POWERED_OFF = -200.0
"""Sensors of parts without power read −256 °C."""

_INA3221_LINES = 3

_CPU_CHIPS = ("coretemp", "k10temp", "zenpower")


def probe_thermal(root: Path) -> tuple[ThermalZone, ...]:
    """All temperatures, with the trip points of the thermal zones."""
    found = []
    for name, file in find_zones(root):
        slow = []
        for kind in subfolders(file.parent, "trip_point_*_type"):
            trip = scaled(kind.with_name(kind.name.replace("_type", "_temp")), 1e-3)
            if trip is not None and trip > 0 and read_text(kind) == "passive":
                slow.append(trip)
        found.append(ThermalZone(name, read_celsius(file), min(slow, default=None)))
    return tuple(found)


def find_zones(root: Path) -> list[tuple[str, Path]]:
    """Name and file of each thermal zone, and of the CPU's own sensor where only a hwmon chip shows it."""
    zones = [
        (read_text(folder / "type") or folder.name, folder / "temp")
        for folder in subfolders(root / "sys/class/thermal", "thermal_zone*")
    ]
    for chip, name in _chips(root):
        if name in _CPU_CHIPS:
            for file in subfolders(chip, "temp*_input"):
                label = read_text(chip / file.name.replace("_input", "_label"))
                zones.append((f"{name} {label}" if label else name, file))
    return zones


def read_celsius(file: Path) -> float | None:
    """The temperature in a zone's file; None while its part has no power."""
    celsius = scaled(file, 1e-3)
    return None if celsius is None or celsius <= _POWERED_OFF else celsius


def probe_power(root: Path) -> PowerRecord:
    """All rails, and the total where one rail is the input of the whole board."""
    rails = tuple(PowerRail(name, read_watts(chip, number)) for name, chip, number in find_rails(root))
    whole = total_rail([rail.name for rail in rails])
    return PowerRecord(rails, whole, next((rail.watts for rail in rails if rail.name == whole), None))


def find_rails(root: Path) -> list[tuple[str, Path, int]]:
    """Name, chip and number of each channel of the power monitors that is connected to something."""
    rails = []
    for chip, name in _chips(root):
        if not name.startswith("ina"):
            continue
        files = [*subfolders(chip, "curr*_input"), *subfolders(chip, "power*_input")]
        for number in sorted({int("".join(filter(str.isdigit, file.name))) for file in files}):
            label = read_text(chip / f"in{number}_label") or read_text(chip / "label")
            if label == "NC" or (name == "ina3221" and (number > _INA3221_LINES or label is None)):
                continue  # not connected; the chip's fourth current is the sum of the others
            rails.append((label or f"{name} {chip.name} {number}", chip, number))
    return rails


def read_watts(chip: Path, number: int) -> float | None:
    """Power of a channel: measured, else the product of its voltage and current."""
    watts = scaled(chip / f"power{number}_input", 1e-6)
    if watts is not None:
        return watts
    millivolts, milliamperes = read_int(chip / f"in{number}_input"), read_int(chip / f"curr{number}_input")
    return None if millivolts is None or milliamperes is None else round(millivolts * milliamperes * 1e-6, 6)


def total_rail(names: Collection[str]) -> str | None:
    """The rail that feeds all others, if there is one."""
    return next((name for name in _INPUT_RAILS if name in names), None)


def probe_fans(root: Path) -> tuple[Fan, ...]:
    """Fans driven by pulse width, or that count their turns."""
    fans = []
    for chip, name in _chips(root):
        duty = scaled(chip / "pwm1", 100 / 255)
        rpm = read_int(chip / "fan1_input")
        if rpm is None:
            rpm = read_int(chip / "rpm")
        if duty is not None or rpm is not None:
            fans.append(Fan(name, None if duty is None else round(duty, 1), rpm))
    return tuple(fans)


def overcurrent_counters(root: Path) -> list[Path]:
    """The counters of the over-current alarms of a Jetson."""
    return [file for chip, name in _chips(root) if name == "soctherm_oc" for file in subfolders(chip, "oc*_event_cnt")]


def overcurrent_events(counters: list[Path]) -> int | None:
    """Their sum; None where none can be read."""
    numbers = [number for number in map(read_int, counters) if number is not None]
    return sum(numbers) if numbers else None


def _chips(root: Path) -> Iterator[tuple[Path, str]]:
    for chip in subfolders(root / "sys/class/hwmon", "hwmon*"):
        name = read_text(chip / "name")
        if name:
            yield chip, name
