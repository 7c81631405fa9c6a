"""The CPU: model, cores and clocks."""

from __future__ import annotations

import re
from pathlib import Path

from edge_reclass.host import quota_cpus, read_text, usable_cpus
from edge_reclass_doctor.machine.reading import read_list, scaled, subfolders
from edge_reclass_doctor.machine.records import ClockRange, Cpu

# Implementer and part of MIDR_EL1 (Arm's technical reference manuals), for kernels that name no model.
_ARM_PARTS = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD83): "Neoverse-V3AE",
    (0x41, 0xD84): "Neoverse-V3",
    (0x4E, 0x004): "Carmel",
}


def probe_cpu(root: Path, architecture: str) -> Cpu:
    """Model and cores from /proc and /sys; clocks per cpufreq policy, where the kernel scales them."""
    return Cpu(
        model=_model(read_text(root / "proc/cpuinfo")),
        architecture=architecture,
        cores_usable=usable_cpus(),
        cores_total=read_list(read_text(root / "sys/devices/system/cpu/present")),
        quota_cores=quota_cpus(root),
        policies=tuple(map(_clock, clock_folders(root))),
    )


def _model(cpuinfo: str | None) -> str | None:
    """``model name`` where it tells something; the name of the part on ARM, whose kernels print a number or less."""
    if cpuinfo is None:
        return None
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), value.strip())
    codes = [re.fullmatch(r"0x([0-9a-f]{1,4})", fields.get(key, "")) for key in ("cpu implementer", "cpu part")]
    if codes[0] and codes[1] and (part := _ARM_PARTS.get((int(codes[0][1], 16), int(codes[1][1], 16)))):
        return part
    return fields.get("model name") or None


def clock_folders(root: Path) -> list[Path]:
    """The folder of each cpufreq policy: of CPUs that share a clock."""
    return subfolders(root / "sys/devices/system/cpu/cpufreq", "policy*")


def _clock(folder: Path) -> ClockRange:
    return ClockRange(
        name=folder.name,
        current_mhz=scaled(folder / "scaling_cur_freq", 1e-3),
        min_mhz=scaled(folder / "scaling_min_freq", 1e-3),
        max_mhz=scaled(folder / "scaling_max_freq", 1e-3),
        governor=read_text(folder / "scaling_governor"),
    )
