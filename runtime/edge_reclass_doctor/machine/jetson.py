"""What only a Jetson has: its model, L4T and JetPack, power mode, clocks of GPU and memory, over-current alarms.

Formats as printed by JetPack 6.2 and 7.2. ``jetson_clocks --show`` wants root even to read; the clocks of CPU and GPU
are read from /sys as well, which does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from edge_reclass_doctor.machine import tegrastats
from edge_reclass_doctor.machine.power import overcurrent_counters, overcurrent_events
from edge_reclass_doctor.machine.reading import TOOL_SECONDS, Run, find_tool, read_int, read_text, scaled, subfolders
from edge_reclass_doctor.machine.records import ClockRange, CpuPolicy, Jetson, JetsonClocks, PowerMode, Tegrastats

__all__ = [
    "gpu_clock_files",
    "jetpack_of",
    "parse_jetson_clocks",
    "parse_power_mode",
    "parse_power_modes",
    "probe_jetson",
]

_JETPACKS = {
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5.0": "6.2.2",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
}
_EMC = "sys/kernel/debug/bpmp/debug/clk/emc/rate"


def jetpack_of(l4t: str | None) -> str | None:
    """JetPack of an L4T release (NVIDIA's release notes); None for one that is not known here."""
    return _JETPACKS.get(l4t or "")


def probe_jetson(
    root: Path,
    *,
    run: Run,
    environ: Mapping[str, str],
    packages: Mapping[str, str],
    policies: tuple[CpuPolicy, ...],
    tools: bool = True,
) -> tuple[Jetson | None, dict[str, str]]:
    """The Jetson and why some of its values are None; None where this is none.

    Args:
        packages: versions of Debian packages.
        policies: the CPU's clocks.
        tools: also ask nvpmodel, jetson_clocks and tegrastats, which takes up to some seconds.
    """
    model = read_text(root / "proc/device-tree/model") or read_text(root / "sys/firmware/devicetree/base/model")
    compatible = read_text(root / "proc/device-tree/compatible") or ""
    release = read_text(root / "etc/nv_tegra_release") or ""
    soc = re.search(r"nvidia,(tegra\d+)\b", compatible)
    if soc is None and not release and "nvidia-l4t-core" not in packages:
        return None, {"jetson": "no Jetson: no NVIDIA Tegra in the device tree and no L4T release"}
    reasons: dict[str, str] = {}
    l4t = _l4t(release, packages)
    if l4t is None:
        reasons["jetson.l4t"] = "/etc/nv_tegra_release and the package nvidia-l4t-core give no release"
    elif jetpack_of(l4t) is None:
        reasons["jetson.jetpack"] = f"L4T {l4t} is not in this version's list of JetPack releases"
    gpus = tuple(_gpu_clock(folder) for folder in _gpu_folders(root))
    mode, clocks, line = None, None, None
    if tools:
        mode, why = _power_mode(root, run, environ)
        reasons |= {"jetson.power_mode": why} if why else {}
        clocks, why = _jetson_clocks(root, run, environ)
        reasons |= {"jetson.jetson_clocks": why} if why else {}
        line, why = _tegrastats(root, run, environ)
        reasons |= {"jetson.tegrastats": why} if why else {}
    else:
        reasons |= {f"jetson.{name}": "not asked" for name in ("power_mode", "jetson_clocks", "tegrastats")}
    emc = scaled(root / _EMC, 1e-6)
    if emc is None:
        emc = clocks.emc.current_mhz if clocks and clocks.emc else (line.emc_mhz if line else None)
    if emc is None:
        reasons["jetson.emc_mhz"] = "the clock of the memory can be read by root only"
    return Jetson(
        model=model or "NVIDIA Jetson",
        soc=soc[1] if soc else None,
        l4t=l4t,
        jetpack=jetpack_of(l4t),
        jetpack_package=packages.get("nvidia-jetpack"),
        power_mode=mode,
        power_modes=parse_power_modes(read_text(root / "etc/nvpmodel.conf") or ""),
        gpu_clocks=gpus,
        emc_mhz=emc,
        clocks_locked=_locked(gpus, policies),
        jetson_clocks=clocks,
        tegrastats=line,
        overcurrent_events=overcurrent_events(overcurrent_counters(root)),
    ), reasons


def _l4t(release: str, packages: Mapping[str, str]) -> str | None:
    if match := re.search(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", release):
        return f"{match[1]}.{match[2]}"
    core = re.match(r"(\d+\.\d+\.\d+)", packages.get("nvidia-l4t-core", ""))
    return core[1] if core else None


def _power_mode(root: Path, run: Run, environ: Mapping[str, str]) -> tuple[PowerMode | None, str | None]:
    output, why = _tool("nvpmodel", ("-q",), root, run, environ)
    mode = parse_power_mode(output)
    if mode is None and why is None:
        why = f"nvpmodel -q printed no mode: {_first_line(output)!r}"
    return mode, why if mode is None else None


def parse_power_mode(text: str) -> PowerMode | None:
    """Of ``nvpmodel -q``: a line ``NV Power Mode: 25W`` and then its number."""
    match = re.search(r"^NV Power Mode: *(\S.*?)\s*\n\s*(\d+)\s*$", text, re.MULTILINE)
    return PowerMode(int(match[2]), match[1]) if match else None


def parse_power_modes(text: str) -> tuple[PowerMode, ...]:
    """The modes that /etc/nvpmodel.conf declares: ``< POWER_MODEL ID=0 NAME=15W >``."""
    found = re.findall(r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", text, re.MULTILINE)
    return tuple(PowerMode(int(number), name) for number, name in found)


def _jetson_clocks(root: Path, run: Run, environ: Mapping[str, str]) -> tuple[JetsonClocks | None, str | None]:
    output, why = _tool("jetson_clocks", ("--show",), root, run, environ)
    clocks = parse_jetson_clocks(output)
    if clocks is not None:
        return clocks, None
    if "as a root user" in output:
        return None, "jetson_clocks --show wants root"
    return None, why or f"jetson_clocks --show printed nothing known: {_first_line(output)!r}"


def parse_jetson_clocks(text: str) -> JetsonClocks | None:
    """Of ``jetson_clocks --show``: CPU clocks there are in kHz, all others in Hz."""
    cpus, gpus, emc = [], [], None
    for line in text.splitlines():
        clock = re.match(r"\s*(cpu\d+|GPU|gpu-\w+-\d+|EMC):? .*?MinFreq=(\d+) MaxFreq=(\d+) CurrentFreq=(\d+)", line)
        if clock is None:
            continue
        name = clock[1]
        unit = 1e-3 if name.startswith("cpu") else 1e-6
        low, high, now = (int(clock[i]) * unit for i in (2, 3, 4))
        governor = re.search(r"\bGovernor=(\S+)", line)
        one = ClockRange(name, now, low, high, governor[1] if governor else None)
        if name.startswith("cpu"):
            cpus.append(one)
        elif name == "EMC":
            emc = one
        else:
            gpus.append(one)
    if not cpus and not gpus:
        return None
    head = re.search(r"SOC family:(\S+)\s+Machine:(.*?)\s*$", text, re.MULTILINE)
    fan = re.search(r"^\s*FAN Dynamic Speed Control=(\S+)", text, re.MULTILINE)
    mode = re.search(r"^\s*NV Power Mode: *(\S.*?)\s*$", text, re.MULTILINE)
    return JetsonClocks(
        soc=head[1] if head else None,
        machine=head[2] if head else None,
        cpus=tuple(sorted(cpus, key=lambda clock: int(clock.name[3:]))),
        gpus=tuple(gpus),
        emc=emc,
        fan_control=fan[1] if fan else None,
        power_mode=mode[1] if mode else None,
    )


def _tegrastats(root: Path, run: Run, environ: Mapping[str, str]) -> tuple[Tegrastats | None, str | None]:
    output, why = _tool("tegrastats", ("--interval", "100"), root, run, environ, lines=1)
    line = tegrastats.parse(output)
    if line is None and why is None:
        why = f"tegrastats printed nothing known: {_first_line(output)!r}"
    return line, why if line is None else None


def _tool(
    name: str, arguments: tuple[str, ...], root: Path, run: Run, environ: Mapping[str, str], lines: int | None = None
) -> tuple[str, str | None]:
    """What a tool printed on both streams, and why that is not to be relied on."""
    path = find_tool(root, name, environ)
    if path is None:
        return "", f"{name} is not installed"
    result = run((str(path), *arguments), TOOL_SECONDS, lines)
    output = "\n".join(part for part in (result.stdout, result.stderr) if part)
    if result.failure is not None:
        return output, result.failure
    if result.status:
        return output, f"{name} failed with status {result.status}: {_first_line(output)}"
    return output, None


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:120]


def _gpu_folders(root: Path) -> list[Path]:
    """The GPU's devfreq folders: ``17000000.gpu`` (Orin; ``17000000.ga10b`` before) and ``gpu-gpc-0`` (Thor)."""
    return [
        folder
        for folder in subfolders(root / "sys/class/devfreq")
        if re.fullmatch(r"[0-9a-f]+\.(gpu|ga10b|gv11b)|gpu-gpc-\d+", folder.name)
    ]


def gpu_clock_files(root: Path) -> list[Path]:
    """Files that hold the GPU's clock of the moment, in Hz."""
    return [folder / "cur_freq" for folder in _gpu_folders(root) if read_int(folder / "cur_freq") is not None]


def _gpu_clock(folder: Path) -> ClockRange:
    return ClockRange(
        folder.name,
        scaled(folder / "cur_freq", 1e-6),
        scaled(folder / "min_freq", 1e-6),
        scaled(folder / "max_freq", 1e-6),
        read_text(folder / "governor"),
    )


def _locked(gpus: tuple[ClockRange, ...], policies: tuple[CpuPolicy, ...]) -> bool | None:
    cpus = [ClockRange(policy.name, None, policy.min_mhz, policy.max_mhz) for policy in policies]
    known = [clock.locked for clock in (*gpus, *cpus) if clock.locked is not None]
    return all(known) if known and gpus else None
