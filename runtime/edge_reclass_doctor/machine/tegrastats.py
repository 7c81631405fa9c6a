"""One line of tegrastats.

JetPack 6 prints power as now/average and temperatures as one value; JetPack 7.2 prints power as now/average/highest
and temperatures as now/highest. Units stand behind the numbers, in older releases not (mW then). Fields come and go
with the board, and as another user than root some are missing.
"""

from __future__ import annotations

import re

from edge_reclass_doctor.machine.power import total_rail
from edge_reclass_doctor.machine.records import Tegrastats

__all__ = ["parse"]

_SIZES = {"kB": 1024, "MB": 1024**2, "GB": 1024**3}
_POWERED_OFF = -200.0


def parse(text: str) -> Tegrastats | None:
    """The first line that is one of tegrastats; None where there is none."""
    for line in text.splitlines():
        if re.search(r"\bRAM \d+/\d+[kMG]B\b", line):
            return _line(line)
    return None


def _line(line: str) -> Tegrastats:
    ram_used, ram_total = _sizes(line, "RAM")
    swap_used, swap_total = _sizes(line, "SWAP")
    percents, clocks = _cpus(line)
    gpu = re.search(r"\bGR3D(?:_FREQ)? (?:(\d+)%)?(?:@(\[[\d,]*\]|\d+))?", line)
    emc = re.search(r"\bEMC(?:_FREQ)? (\d+)%(?:@(\d+))?", line)
    temperatures = {
        name: float(number)
        for name, number in re.findall(r"(?<![\w\]])([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C\b", line)
        if float(number) > _POWERED_OFF
    }
    rails = {
        name: int(number) / 1000
        for name, number in re.findall(r"\b([A-Z][A-Z0-9_]*_[A-Z0-9_]*|VIN) (-?\d+)(?:mW)?/-?\d+(?:mW)?\b", line)
    }
    whole = total_rail(list(rails))
    return Tegrastats(
        ram_used_bytes=ram_used,
        ram_total_bytes=ram_total,
        swap_used_bytes=swap_used,
        swap_total_bytes=swap_total,
        cpu_percent=percents,
        cpu_mhz=clocks,
        gpu_percent=int(gpu[1]) if gpu and gpu[1] else None,
        gpu_mhz=tuple(map(float, re.findall(r"\d+", gpu[2]))) if gpu and gpu[2] else (),
        emc_percent=int(emc[1]) if emc else None,
        emc_mhz=float(emc[2]) if emc and emc[2] else None,
        temperatures_celsius=temperatures,
        rails_watts=rails,
        total_watts=rails[whole] if whole else None,
    )


def _sizes(line: str, name: str) -> tuple[int | None, int | None]:
    match = re.search(rf"\b{name} (\d+)/(\d+)([kMG]B)\b", line)
    if match is None:
        return None, None
    unit = _SIZES[match[3]]
    return int(match[1]) * unit, int(match[2]) * unit


def _cpus(line: str) -> tuple[tuple[int | None, ...], tuple[float | None, ...]]:
    match = re.search(r"\bCPU \[([^\]]*)\](?:@(\d+))?", line)
    if match is None:
        return (), ()
    percents: list[int | None] = []
    clocks: list[float | None] = []
    for core in match[1].split(","):
        one = re.fullmatch(r"(\d+)%(?:@(\d+))?", core.strip())
        clock = (one[2] or match[2]) if one else None
        percents.append(int(one[1]) if one else None)
        clocks.append(float(clock) if clock else None)
    return tuple(percents), tuple(clocks)
