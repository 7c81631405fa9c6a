"""What only a Jetson has: its model, L4T and JetPack, power mode, clocks of GPU and memory, over-current alarms.

Formats as printed by JetPack 6.2 and 7.2. Clocks come from /sys; only the memory's wants root.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from edge_reclass.host import l4t_release, read_text
from edge_reclass_appliance.releases import release_of
from edge_reclass_doctor.machine.host import Host
from edge_reclass_doctor.machine.power import overcurrent_counters, overcurrent_events
from edge_reclass_doctor.machine.reading import scaled, subfolders
from edge_reclass_doctor.machine.records import ClockRange, Jetson, PowerMode

_EMC = "sys/kernel/debug/bpmp/debug/clk/emc/rate"


def probe_jetson(
    host: Host, packages: Mapping[str, str], policies: tuple[ClockRange, ...]
) -> tuple[Jetson | None, dict[str, str]]:
    """The Jetson and why some of its values are None; None where this is none.

    Args:
        host: the machine.
        packages: versions of Debian packages.
        policies: the CPU's clocks.
    """
    root = host.root
    model = read_text(root / "proc/device-tree/model") or read_text(root / "sys/firmware/devicetree/base/model")
    soc = re.search(r"nvidia,(tegra\d+)\b", read_text(root / "proc/device-tree/compatible") or "")
    has_release = bool(read_text(root / "etc/nv_tegra_release"))
    core = packages.get("nvidia-l4t-core")
    if soc is None and not has_release and core is None:
        return None, {"jetson": "no Jetson: no NVIDIA Tegra in the device tree and no L4T release"}
    reasons: dict[str, str] = {}
    package = re.match(r"\d+\.\d+\.\d+", core or "")
    l4t = l4t_release(root) or (package[0] if package else None)
    if l4t is None:
        reasons["jetson.l4t"] = "/etc/nv_tegra_release and the package nvidia-l4t-core give no release"
    elif release_of(l4t) is None:
        reasons["jetson.jetpack"] = f"L4T {l4t} is not in this version's list of JetPack releases"
    release = release_of(l4t or "")
    output, why = host.ask("nvpmodel", "-q")
    mode = parse_power_mode(output)
    if mode is None:
        reasons["jetson.power_mode"] = why or f"nvpmodel -q printed no mode: {output[:120]!r}"
    emc = scaled(root / _EMC, 1e-6)
    if emc is None:
        reasons["jetson.emc_mhz"] = "the clock of the memory can be read by root only"
    gpus = tuple(map(_gpu_clock, gpu_folders(root)))
    known = [clock.locked for clock in (*gpus, *policies) if clock.locked is not None]
    return Jetson(
        model=model or "NVIDIA Jetson",
        soc=soc[1] if soc else None,
        l4t=l4t,
        jetpack=release.jetpack if release else None,
        power_mode=mode,
        power_modes=parse_power_modes(read_text(root / "etc/nvpmodel.conf") or ""),
        gpu_clocks=gpus,
        emc_mhz=emc,
        clocks_locked=all(known) if known and gpus else None,
        overcurrent_events=overcurrent_events(overcurrent_counters(root)),
    ), reasons


def parse_power_mode(text: str) -> PowerMode | None:
    """Of ``nvpmodel -q``: a line ``NV Power Mode: 25W`` and then its number."""
    match = re.search(r"^NV Power Mode: *(\S.*?)\s*\n\s*(\d+)\s*$", text, re.MULTILINE)
    return PowerMode(int(match[2]), match[1]) if match else None


def parse_power_modes(text: str) -> tuple[PowerMode, ...]:
    """The modes that /etc/nvpmodel.conf declares: ``< POWER_MODEL ID=0 NAME=15W >``."""
    found = re.findall(r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", text, re.MULTILINE)
    return tuple(PowerMode(int(number), name) for number, name in found)


def gpu_folders(root: Path) -> list[Path]:
    """The GPU's devfreq folders: ``17000000.gpu`` (Orin; ``17000000.ga10b`` before) and ``gpu-gpc-0`` (Thor)."""
    return [
        folder
        for folder in subfolders(root / "sys/class/devfreq")
        if re.fullmatch(r"[0-9a-f]+\.(gpu|ga10b|gv11b)|gpu-gpc-\d+", folder.name)
    ]


def _gpu_clock(folder: Path) -> ClockRange:
    return ClockRange(
        name=folder.name,
        current_mhz=scaled(folder / "cur_freq", 1e-6),
        min_mhz=scaled(folder / "min_freq", 1e-6),
        max_mhz=scaled(folder / "max_freq", 1e-6),
        governor=read_text(folder / "governor"),
    )
