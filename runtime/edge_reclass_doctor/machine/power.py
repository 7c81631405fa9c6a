"""Temperatures, power rails and fans, from /sys/class/thermal and /sys/class/hwmon.

Jetsons measure their supply lines with INA3221 chips (Orin: voltage and current of three lines) and INA238 chips
(Thor: the input's power). Where the whole board is behind one input rail, that rail is the total, and the other rails
are parts of it. AGX Orin has none such; there the total stays unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_reclass_doctor.machine.reading import read_int, read_text, scaled, subfolders
from edge_reclass_doctor.machine.records import Fan, PowerRail, PowerRecord, ThermalZone

__all__ = [
    "INPUT_RAILS",
    "Rail",
    "Zone",
    "find_rails",
    "find_zones",
    "overcurrent_counters",
    "overcurrent_events",
    "probe_fans",
    "probe_power",
    "probe_thermal",
    "total_rail",
]

INPUT_RAILS = ("VDD_IN", "VIN")
"""Rails that feed the whole board: Orin Nano and Orin NX, Thor."""

_POWERED_OFF = -200.0
"""Sensors of parts without power read −256 °C."""

_INA3221_LINES = 3

_CPU_CHIPS = ("coretemp", "k10temp", "zenpower")


@dataclass(frozen=True)
class Zone:
    """A temperature that can be read again and again."""

    name: str
    file: Path

    def read(self) -> float | None:
        """Degrees Celsius; None while its part has no power."""
        celsius = scaled(self.file, 1e-3)
        return None if celsius is None or celsius <= _POWERED_OFF else celsius


@dataclass(frozen=True)
class Rail:
    """A measured supply line that can be read again and again."""

    name: str
    read: Callable[[], float | None]
    """Watts."""


def find_zones(root: Path) -> list[Zone]:
    """Thermal zones by their type, and the CPU's own sensor on machines that show it only as a hwmon chip."""
    zones = [
        Zone(read_text(folder / "type") or folder.name, folder / "temp")
        for folder in subfolders(root / "sys/class/thermal", "thermal_zone*")
    ]
    for chip, name in _chips(root):
        if name in _CPU_CHIPS:
            for file in subfolders(chip, "temp*_input"):
                label = read_text(chip / file.name.replace("_input", "_label"))
                zones.append(Zone(f"{name} {label}" if label else name, file))
    return zones


def probe_thermal(root: Path) -> tuple[ThermalZone, ...]:
    """All temperatures, with the trip points of the thermal zones."""
    found = []
    for zone in find_zones(root):
        slow = []
        for kind in subfolders(zone.file.parent, "trip_point_*_type"):
            celsius = scaled(kind.with_name(kind.name.replace("_type", "_temp")), 1e-3)
            if celsius is not None and celsius > 0 and read_text(kind) == "passive":
                slow.append(celsius)
        found.append(ThermalZone(zone.name, zone.read(), min(slow, default=None)))
    return tuple(found)


def find_rails(root: Path) -> list[Rail]:
    """Channels of the power monitors that are connected to something."""
    return [rail for chip, name in _chips(root) if name.startswith("ina") for rail in _channels(chip, name)]


def _channels(chip: Path, name: str) -> Iterator[Rail]:
    numbers = sorted(
        {
            int("".join(filter(str.isdigit, file.name)))
            for pattern in ("curr*_input", "power*_input")
            for file in subfolders(chip, pattern)
        }
    )
    for number in numbers:
        label = read_text(chip / f"in{number}_label") or read_text(chip / "label")
        if label == "NC" or (name == "ina3221" and (number > _INA3221_LINES or label is None)):
            continue  # not connected; the chip's fourth current is the sum of the others
        yield Rail(label or f"{name} {chip.name} {number}", _watts(chip, number))


def _watts(chip: Path, number: int) -> Callable[[], float | None]:
    power = chip / f"power{number}_input"
    if read_int(power) is not None:
        return lambda: scaled(power, 1e-6)
    volt, ampere = chip / f"in{number}_input", chip / f"curr{number}_input"

    def product() -> float | None:
        millivolts, milliamperes = read_int(volt), read_int(ampere)
        return None if millivolts is None or milliamperes is None else round(millivolts * milliamperes * 1e-6, 6)

    return product


def total_rail(names: list[str]) -> str | None:
    """The rail that feeds all others, if there is one."""
    return next((name for name in INPUT_RAILS if name in names), None)


def probe_power(root: Path) -> PowerRecord:
    """All rails, and the total where one rail is the input of the whole board."""
    rails = tuple(PowerRail(rail.name, rail.read()) for rail in find_rails(root))
    whole = total_rail([rail.name for rail in rails])
    return PowerRecord(rails, whole, next((rail.watts for rail in rails if rail.name == whole), None))


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
