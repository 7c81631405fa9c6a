"""Emulated machines: a root folder with /sys, /proc, /etc, /usr and /var of a Jetson, and the tools that it carries.

Values and formats are as JetPack 6.2 (L4T 36.4.3, 36.4.4) and JetPack 7.2 (L4T 39.2.0) print them on an Orin Nano, an
AGX Orin and a Thor, taken from public logs. ``fake_root`` writes such a root; the tools in it are real executables, so
``machine.probe`` can run them. ``FakeCuda`` and ``FakeNvml`` stand for the driver's libraries.
"""

from __future__ import annotations

import ctypes
import dataclasses
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_reclass_doctor.machine import Host
from edge_reclass_doctor.machine.records import Python


@dataclass(frozen=True)
class Board:
    """One emulated Jetson."""

    model: str
    soc: str
    release: str
    """First line of /etc/nv_tegra_release."""
    l4t_core: str
    os: str
    kernel: str
    python: str
    tensorrt: str
    cuda: str
    cudnn: str
    part: str
    """Part of the CPU in /proc/cpuinfo."""
    cpus: tuple[int, ...]
    """CPUs of each cpufreq policy."""
    cpu_khz: tuple[int, int, int]
    """Smallest, largest, now."""
    memory_kb: int
    gpu: str
    """Folder in /sys/class/devfreq."""
    gpu_hz: tuple[int, int, int]
    mode: tuple[int, str]
    modes: tuple[tuple[int, str], ...]
    temperatures: Mapping[str, int]
    """Zone → millidegrees."""
    rails: Mapping[str, tuple[int, int]]
    """INA3221 label → mV, mA."""
    more_rails: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Of a second INA3221."""
    input_microwatts: int | None = None
    """Of an INA238 on the input."""
    cuda_name: str = "Orin"
    sm: tuple[int, int] = (8, 7)
    driver_cuda: int = 12_060


_NANO = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
_NANO_MODES = ((0, "15W"), (1, "25W"), (2, "MAXN_SUPER"))
_ORIN_ZONES = {
    "cpu-thermal": 48562,
    "gpu-thermal": 49625,
    "soc0-thermal": 48625,
    "soc1-thermal": 47937,
    "soc2-thermal": 46593,
    "tj-thermal": 49625,
}

NANO_62 = Board(
    model=_NANO,
    soc="tegra234",
    release="# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025",
    l4t_core="36.4.3-20250107174145",
    os="Ubuntu 22.04.5 LTS",
    kernel="5.15.148-tegra",
    python="3.10",
    tensorrt="10.3.0",
    cuda="12.6.11",
    cudnn="9.3.0.75-1",
    part="0xd42",
    cpus=(4, 2),
    cpu_khz=(729600, 1344000, 960000),
    memory_kb=7802884,
    gpu="17000000.gpu",
    gpu_hz=(306000000, 918000000, 306000000),
    mode=(1, "25W"),
    modes=_NANO_MODES,
    temperatures=_ORIN_ZONES,
    rails={"VDD_IN": (4960, 1056), "VDD_CPU_GPU_CV": (4952, 104), "VDD_SOC": (4952, 548)},
)

NANO_621 = dataclasses.replace(
    NANO_62,
    release="# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic, EABI: aarch64, "
    "DATE: Mon Jun 16 16:07:13 UTC 2025",
    l4t_core="36.4.4-20250616085344",
    mode=(2, "MAXN_SUPER"),
)

NANO_72 = dataclasses.replace(
    NANO_62,
    release="# R39 (release), REVISION: 2.0, GCID: 45755727, BOARD: generic, EABI: aarch64, "
    "DATE: Mon Jun  1 09:28:48 PM UTC 2026",
    l4t_core="39.2.0-20260601141650",
    os="Ubuntu 24.04.4 LTS",
    kernel="6.8.12-1021-tegra",
    python="3.12",
    tensorrt="10.16.2.10",
    cuda="13.2.2",
    cudnn="9.20.0.46-1",
    cpu_khz=(1344000, 1344000, 1344000),
    memory_kb=7665664,
    gpu_hz=(918000000, 918000000, 918000000),
    rails={"VDD_IN": (4960, 698), "VDD_CPU_GPU_CV": (4952, 90), "VDD_SOC": (4952, 228)},
    driver_cuda=13_020,
)

AGX_72 = dataclasses.replace(
    NANO_72,
    model="NVIDIA Jetson AGX Orin Developer Kit",
    cpus=(4, 4, 4),
    memory_kb=64321000,
    mode=(0, "MAXN"),
    modes=((0, "MAXN"), (1, "15W"), (2, "30W"), (3, "50W")),
    rails={"VDD_GPU_SOC": (4900, 492), "VDD_CPU_CV": (4900, 328), "VIN_SYS_5V0": (5000, 941)},
    more_rails={"NC": (0, 0), "VDDQ_VDD2_1V8AO": (1800, 167)},
)

THOR_72 = Board(
    model="NVIDIA Jetson AGX Thor Developer Kit",
    soc="tegra264",
    release="# R39 (release), REVISION: 2.0, GCID: 45755727, BOARD: generic, EABI: aarch64, "
    "DATE: Mon Jun  1 09:28:48 PM UTC 2026",
    l4t_core="39.2.0-20260601141650",
    os="Ubuntu 24.04.4 LTS",
    kernel="6.8.12-1021-tegra",
    python="3.12",
    tensorrt="10.16.2.10",
    cuda="13.2.2",
    cudnn="9.20.0.46-1",
    part="0xd83",
    cpus=(2,) * 7,
    cpu_khz=(972000, 2601000, 972000),
    memory_kb=128793088,
    gpu="gpu-gpc-0",
    gpu_hz=(315000000, 1575000000, 314000000),
    mode=(1, "120W"),
    modes=((0, "MAXN"), (1, "120W"), (2, "90W"), (3, "70W")),
    temperatures={"cpu-thermal": 37343, "gpu-thermal": 38875, "soc012-thermal": 37468, "tj-thermal": 38875},
    rails={"VDD_GPU": (19864, 99), "VDD_CPU_SOC_MSS": (19856, 300), "VIN_SYS_5V0": (5000, 1127)},
    input_microwatts=20_986_000,
    cuda_name="NVIDIA Thor",
    sm=(11, 0),
    driver_cuda=13_020,
)

BOARDS: Mapping[str, Board] = {
    "orin-nano-6.2": NANO_62,
    "orin-nano-6.2.1": NANO_621,
    "orin-nano-7.2": NANO_72,
    "agx-orin-7.2": AGX_72,
    "thor-7.2": THOR_72,
}


def fake_root(root: Path, board: str, *, tensorrt: bool = True) -> Path:
    """Write the root folder of an emulated Jetson and return it.

    Args:
        board: a name of :data:`BOARDS`.
        tensorrt: JetPack's TensorRT is installed for the system's Python.
    """
    one = BOARDS[board]
    write = _Writer(root)
    _write_system(write, one, tensorrt)
    _write_cpus(write, one)
    _write_sensors(write, one)
    replace_tool(root, "usr/sbin/nvpmodel", f"NV Power Mode: {one.mode[1]}\n{one.mode[0]}\n")
    return root


class _Writer:
    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, file: str, text: object) -> None:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="utf-8")


def _write_system(write: _Writer, board: Board, tensorrt: bool) -> None:
    write("etc/nv_tegra_release", board.release + "\n# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia")
    write("etc/os-release", f'NAME="Ubuntu"\nPRETTY_NAME="{board.os}"\nID=ubuntu')
    write("etc/nvpmodel.conf", "\n".join(f"< POWER_MODEL ID={i} NAME={name} >" for i, name in board.modes))
    write("proc/device-tree/model", board.model + "\0")
    write("proc/device-tree/compatible", f"nvidia,p3768-0000+p3767-0005-super\0nvidia,{board.soc}\0")
    write("proc/sys/kernel/osrelease", board.kernel)
    write("proc/sys/kernel/arch", "aarch64")
    write("usr/local/cuda/version.json", f'{{"cuda": {{"name": "CUDA SDK", "version": "{board.cuda}"}}}}')
    packages = {
        "nvidia-l4t-core": board.l4t_core,
        f"libcudnn9-cuda-{board.cuda.split('.')[0]}": board.cudnn,
        "bash": "5.1-6",
    }
    if tensorrt:
        packages |= {"libnvinfer10": f"{board.tensorrt}-1", "python3-libnvinfer": f"{board.tensorrt}-1"}
        folder = f"usr/lib/python{board.python}/dist-packages/tensorrt"
        write(f"{folder}/__init__.py", f'from .tensorrt import *\n\n__version__ = "{board.tensorrt}"')
    entries = [
        f"Package: {name}\nStatus: install ok installed\nPriority: optional\nVersion: {version}\n"
        for name, version in packages.items()
    ]
    write("var/lib/dpkg/status", "\n".join([*entries, "Package: nvidia-old\nStatus: deinstall ok config-files\n"]))


def _write_cpus(write: _Writer, board: Board) -> None:
    count = sum(board.cpus)
    write("sys/devices/system/cpu/present", f"0-{count - 1}")
    first = 0
    low, high, now = board.cpu_khz
    for cpus in board.cpus:
        policy = f"sys/devices/system/cpu/cpufreq/policy{first}"
        write(f"{policy}/scaling_governor", "schedutil")
        write(f"{policy}/scaling_min_freq", low)
        write(f"{policy}/scaling_max_freq", high)
        write(f"{policy}/scaling_cur_freq", now)
        first += cpus
    one = f"BogoMIPS\t: 62.50\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: {board.part}\n"
    write(
        "proc/cpuinfo",
        "\n".join(f"processor\t: {i}\nmodel name\t: ARMv8 Processor rev 1 (v8l)\n{one}" for i in range(count)),
    )
    kb = board.memory_kb
    write(
        "proc/meminfo",
        f"MemTotal:       {kb} kB\nMemFree:  {kb // 4} kB\nMemAvailable:   {kb * 3 // 5} kB\n"
        f"SwapTotal:      {kb // 2} kB\nSwapFree:       {kb // 2 - 4096} kB",
    )
    folder = f"sys/class/devfreq/{board.gpu}"
    for name, value in zip(("min_freq", "max_freq", "cur_freq"), board.gpu_hz, strict=True):
        write(f"{folder}/{name}", value)
    write(f"{folder}/governor", "nvhost_podgov")
    write("sys/class/devfreq/15340000.vic/cur_freq", 115200000)


def _write_sensors(write: _Writer, board: Board) -> None:
    for i, (name, millidegrees) in enumerate(board.temperatures.items()):
        zone = f"sys/class/thermal/thermal_zone{i}"
        write(f"{zone}/type", name)
        write(f"{zone}/temp", millidegrees)
        for j, (kind, at) in enumerate((("critical", 104500), ("active", 51000), ("passive", 99000))):
            write(f"{zone}/trip_point_{j}_type", kind)
            write(f"{zone}/trip_point_{j}_temp", at)
    # The zone of a part without power cannot be read (EAGAIN); a folder in the file's place fails too.
    off = len(board.temperatures)
    write(f"sys/class/thermal/thermal_zone{off}/type", "cv0-thermal")
    (write.root / f"sys/class/thermal/thermal_zone{off}/temp").mkdir()
    write("sys/class/hwmon/hwmon0/name", "pwmfan")
    write("sys/class/hwmon/hwmon0/pwm1", 65)
    for hwmon, rails in (("hwmon1", board.rails), ("hwmon5", board.more_rails)):
        if rails:
            _write_ina3221(write, f"sys/class/hwmon/{hwmon}", rails)
    write("sys/class/hwmon/hwmon2/name", "soctherm_oc")
    for i in (1, 2, 3):
        write(f"sys/class/hwmon/hwmon2/oc{i}_event_cnt", 0)
    write("sys/class/hwmon/hwmon3/name", "pwm_tach")
    write("sys/class/hwmon/hwmon3/rpm", 1786)
    if board.input_microwatts is not None:
        write("sys/class/hwmon/hwmon4/name", "ina238")
        write("sys/class/hwmon/hwmon4/label", "VIN")
        write("sys/class/hwmon/hwmon4/power1_input", board.input_microwatts)


def _write_ina3221(write: _Writer, chip: str, rails: Mapping[str, tuple[int, int]]) -> None:
    write(f"{chip}/name", "ina3221")
    for i, (label, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
        write(f"{chip}/in{i}_label", label)
        write(f"{chip}/in{i}_input", millivolts)
        write(f"{chip}/curr{i}_input", milliamperes)
    # The voltages over the shunts stand as in4 to in6, the sum of the currents as curr4; neither is a rail.
    write(f"{chip}/in4_input", 12)
    write(f"{chip}/curr4_input", sum(milliamperes for _, milliamperes in rails.values()))
    write(f"{chip}/in7_label", "sum of shunt voltages")
    write(f"{chip}/in7_input", 680)


def replace_tool(root: Path, file: str, stdout: str, *, status: int = 0, then: str | None = None) -> Path:
    """Write an executable that prints ``stdout``, then runs ``then`` (shell), or ends with ``status``."""
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nprintf '%s' {shlex.quote(stdout)}\n{then or f'exit {status}'}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def python_of(board: str, *, sees_system_packages: bool = True) -> Python:
    """The Python of a virtual environment on that board."""
    one = BOARDS[board]
    folder = "/opt/edge-reclass/venv"
    return Python(f"{one.python}.12", f"{folder}/bin/python", folder, sees_system_packages)


def system_modules(root: Path, board: str) -> Callable[[str], Path | None]:
    """Finds packages as an environment made with --system-site-packages does on that board."""
    one = BOARDS[board]

    def find(name: str) -> Path | None:
        folder = root / f"usr/lib/python{one.python}/dist-packages" / name
        return folder if folder.is_dir() else None

    return find


class FakeLibrary:
    """A library's functions, by ctypes' conventions: each fills what its arguments point to and returns a status.

    Args:
        functions: what they do.
        statuses: makes some of them fail.
    """

    def __init__(self, functions: Mapping[str, Callable[..., object]], statuses: Mapping[str, int]) -> None:
        self.functions = functions
        self.called: list[str] = []
        self._statuses = statuses

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name.startswith("_") or name not in self.functions:
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.called.append(name)
            status = self._statuses.get(name, 0)
            if status == 0:
                self.functions[name](*arguments)
            return status

        return call


def _put(value: object) -> Callable[..., object]:
    """Writes ``value`` to the last argument, which is passed by reference."""
    return lambda *arguments: setattr(arguments[-1]._obj, "value", value)


class FakeCuda(FakeLibrary):
    """libcuda's functions that a probe calls, with one GPU."""

    def __init__(
        self,
        name: str = "Orin",
        sm: tuple[int, int] = (8, 7),
        *,
        devices: int = 1,
        memory: int = 7_802_884 * 1024,
        integrated: bool = True,
        version: int = 12_060,
        bus: str = "0000:01:00.0",
        statuses: Mapping[str, int] | None = None,
    ) -> None:
        attributes = {75: sm[0], 76: sm[1], 18: int(integrated)}
        functions: dict[str, Callable[..., object]] = {
            "cuInit": lambda flags: None,
            "cuDeviceGetCount": _put(devices),
            "cuDeviceGet": lambda device, ordinal: setattr(device._obj, "value", ordinal),
            "cuDeviceGetAttribute": lambda value, which, device: setattr(value._obj, "value", attributes[which]),
            "cuDriverGetVersion": _put(version),
            "cuDeviceGetName": lambda buffer, size, device: setattr(buffer, "value", name.encode()),
            "cuDeviceTotalMem_v2": lambda size, device: setattr(size._obj, "value", memory),
            "cuDeviceGetPCIBusId": lambda buffer, size, device: setattr(buffer, "value", bus.encode()),
        }
        super().__init__(functions, statuses or {})


NOT_SUPPORTED = 3


class FakeNvml(FakeLibrary):
    """libnvidia-ml's functions that a probe calls; those in ``unsupported`` answer "not supported", as on Orin."""

    def __init__(self, *, unsupported: tuple[str, ...] = (), throttle: int = 0) -> None:
        self.power_milliwatts = 31_500
        self.open = 0

        def memory(device: object, out: Any) -> None:
            out._obj.total, out._obj.free, out._obj.used = 8 << 30, 6 << 30, 2 << 30

        clocks = {1: 2505}
        functions: dict[str, Callable[..., object]] = {
            "nvmlInit_v2": lambda: setattr(self, "open", self.open + 1),
            "nvmlShutdown": lambda: setattr(self, "open", self.open - 1),
            "nvmlDeviceGetHandleByIndex_v2": _put(1),
            "nvmlDeviceGetHandleByPciBusId_v2": _put(1),
            "nvmlDeviceGetEnforcedPowerLimit": _put(115_000),
            "nvmlDeviceGetPowerUsage": lambda device, out: setattr(out._obj, "value", self.power_milliwatts),
            "nvmlDeviceGetTotalEnergyConsumption": _put(1_234_500),
            "nvmlDeviceGetTemperature": _put(54),
            "nvmlDeviceGetClockInfo": lambda device, which, out: setattr(out._obj, "value", clocks[which]),
            "nvmlDeviceGetMaxClockInfo": lambda device, which, out: setattr(out._obj, "value", clocks[which] + 600),
            "nvmlDeviceGetMemoryInfo": memory,
            "nvmlDeviceGetCurrentClocksThrottleReasons": _put(throttle),
        }
        super().__init__(functions, dict.fromkeys(unsupported, NOT_SUPPORTED))


def libraries(cuda: FakeCuda | None = None, nvml: FakeNvml | None = None) -> Callable[[str], Any]:
    """What opens shared libraries on an emulated machine: these and no others."""
    there = {"libcuda.so.1": cuda, "libnvidia-ml.so.1": nvml}

    def load(name: str) -> Any:
        if there.get(name) is None:
            return ctypes.CDLL(f"no-such-{name}")
        return there[name]

    return load


@dataclass(frozen=True)
class Emulated(Host):
    """A host whose libraries, distributions, packages and interpreter are made up."""

    environ: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of distributions that are installed."""
    packages: Callable[[str], Path | None] = lambda name: None
    modules: Mapping[str, Any] = field(default_factory=dict)
    """What can be imported; an exception is raised."""
    interpreter: Python | None = None

    def version(self, distribution: str) -> str | None:
        return self.versions.get(distribution)

    def package(self, name: str) -> Path | None:
        return self.packages(name)

    def import_module(self, name: str) -> Any:
        if name not in self.modules:
            raise ModuleNotFoundError(name)
        if isinstance(self.modules[name], Exception):
            raise self.modules[name]
        return self.modules[name]

    def python(self) -> Python:
        return super().python() if self.interpreter is None else self.interpreter


def emulated(root: Path, board: str, **options: Any) -> Emulated:
    """A Jetson of :data:`BOARDS` whose root folder :func:`fake_root` has written."""
    one = BOARDS[board]
    return Emulated(
        root,
        **{
            "load": libraries(FakeCuda(one.cuda_name, one.sm, version=one.driver_cuda)),
            "interpreter": python_of(board),
            "packages": system_modules(root, board),
            **options,
        },
    )
