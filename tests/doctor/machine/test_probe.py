"""This machine for real, an emulated RTX box, and the installed software."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pytest

from doctor.machine.emulator import Emulated, FakeCuda, FakeNvml, libraries
from edge_reclass.host.cpus import usable_cpus
from edge_reclass_doctor import machine
from edge_reclass_doctor.machine import Host, Machine
from edge_reclass_doctor.machine.memory import probe_disks
from edge_reclass_doctor.machine.records import CudaSoftware, NvmlReading
from edge_reclass_doctor.machine.software import probe_cuda, probe_onnxruntime, probe_tensorrt
from edge_reclass_doctor.machine.system import probe_os


def test_this_machine() -> None:
    found = machine.probe(paths=[Path.cwd(), Path.cwd() / "not/yet/there"])
    assert found.os.architecture == os.uname().machine
    assert found.os.kernel == os.uname().release
    assert found.python.executable == sys.executable
    assert found.python.version == sys.version.split()[0]
    assert found.cpu.cores_usable == usable_cpus()
    assert found.memory.total_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found.memory.available_bytes is not None
    assert 0 < found.memory.available_bytes <= found.memory.total_bytes
    assert found.libraries["numpy"] == numpy.__version__
    assert [disk.looked_at for disk in found.disks] == [str(Path.cwd())] * 2
    assert all(0 <= disk.free_bytes <= disk.total_bytes for disk in found.disks)
    for name in ("gpu", "tensorrt", "onnxruntime", "jetson"):
        assert (getattr(found, name) is None) == (name in found.reasons)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Machine) == found


def test_nothing_heavy_is_imported() -> None:
    program = (
        "import sys, edge_reclass_doctor.machine as m; before = set(sys.modules)\n"
        "import edge_reclass_doctor as doctor\n"
        "heavy = {'torch', 'tensorrt', 'tensorrt_rtx', 'tensorrt_rtx_bindings', 'onnxruntime', 'pycuda', 'cuda'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "m.probe(); print(sorted((heavy - {'onnxruntime'}) & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr


NVIDIA = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Sun May 12 19:39:15 UTC 2025\n"


def rtx_root(root: Path) -> Path:
    files = {
        "proc/driver/nvidia/version": NVIDIA,
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD Ryzen 7 7700 8-Core Processor\n",
        "proc/sys/kernel/arch": "x86_64\n",
        "proc/meminfo": "MemTotal: 32000000 kB\nMemAvailable: 20000000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
        "etc/os-release": "NAME='Debian'\nPRETTY_NAME='Debian GNU/Linux 13 (trixie)'\n",
        "usr/local/cuda-12.8/version.json": '{"cuda": {"version": "12.8.1"}}',
        "usr/local/cuda-13.0/version.json": '{"cuda": {"version": "13.0.2"}}',
        "usr/lib/x86_64-linux-gnu/libcudnn.so.9.12.0": "",
        "sys/class/hwmon/hwmon3/name": "k10temp\n",
        "sys/class/hwmon/hwmon3/temp1_input": "61250\n",
        "sys/class/hwmon/hwmon3/temp1_label": "Tctl\n",
        "sys/fs/cgroup/memory.max": "8589934592\n",
        "sys/fs/cgroup/cpu.max": "400000 100000\n",
    }
    for file, text in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    return root


def rtx() -> FakeCuda:
    return FakeCuda("NVIDIA GeForce RTX 4060", (8, 9), memory=8 << 30, integrated=False, version=13_000)


def test_an_rtx_box(tmp_path: Path) -> None:
    cuda, nvml = rtx(), FakeNvml(throttle=0x04 | 0x01 | 0x40)
    host = Emulated(rtx_root(tmp_path), load=libraries(cuda, nvml), versions={"cuda-bindings": "13.0.1"})
    found = machine.probe(host)
    gpu = found.gpu
    assert gpu is not None
    assert (gpu.name, gpu.sm, gpu.driver) == ("NVIDIA GeForce RTX 4060", "8.9", "driver-580.95.05")
    assert (gpu.memory_bytes, gpu.integrated, gpu.cuda_driver_version) == (8 << 30, False, "13.0")
    assert gpu.pci_bus == "0000:01:00.0"
    reading = found.nvml
    assert reading is not None
    assert reading.temperature_celsius == 54
    assert (reading.power_watts, reading.power_limit_watts, reading.energy_joules) == (31.5, 115.0, 1234.5)
    assert (reading.sm_mhz, reading.sm_max_mhz, reading.memory_free_bytes) == (2505, 3105, 6 << 30)
    assert reading.throttled_by == ("power cap", "hardware thermal slowdown")
    assert nvml.open == 0
    # No context is made and no memory taken: only questions were asked.
    assert set(cuda.called) <= {
        "cuInit",
        "cuDeviceGetCount",
        "cuDeviceGet",
        "cuDeviceGetAttribute",
        "cuDriverGetVersion",
        "cuDeviceGetName",
        "cuDeviceTotalMem_v2",
        "cuDeviceGetPCIBusId",
    }
    assert (found.cuda.toolkit, found.cuda.cudnn) == ("13.0.2", "9.12.0")
    assert (found.cuda.binding, found.cuda.binding_version) == ("cuda-bindings", "13.0.1")
    assert found.jetson is None
    assert found.cpu.model == "AMD Ryzen 7 7700 8-Core Processor"
    assert (found.cpu.quota_cores, found.memory.limit_bytes) == (4.0, 8 << 30)
    assert [(zone.name, zone.celsius) for zone in found.thermal] == [("k10temp Tctl", 61.25)]
    assert found.os.name == "Debian GNU/Linux 13 (trixie)"


def test_a_gpu_that_cannot_be_asked_has_a_reason(tmp_path: Path) -> None:
    def reason(load: Any) -> str:
        found = machine.probe(Emulated(tmp_path, load=load))
        assert found.gpu is None
        return found.reasons["gpu"]

    assert "cannot be loaded" in reason(libraries())
    # A library of that name without the functions (a stub).
    assert "not what was expected" in reason(lambda name: ctypes.CDLL(None))


def test_nvml_that_answers_little(tmp_path: Path) -> None:
    """As on Orin with JetPack 7.2: the library is there and supports nearly nothing."""
    unsupported = tuple(
        name for name in FakeNvml().functions if name.startswith("nvmlDeviceGet") and "Handle" not in name
    )
    nvml = FakeNvml(unsupported=unsupported)
    found = machine.probe(Emulated(tmp_path, load=libraries(FakeCuda(), nvml)))
    assert found.gpu is not None
    assert found.nvml == NvmlReading()
    failing = FakeNvml(unsupported=("nvmlDeviceGetHandleByPciBusId_v2", "nvmlDeviceGetHandleByIndex_v2"))
    other = machine.probe(Emulated(tmp_path, load=libraries(FakeCuda(integrated=False), failing)))
    assert other.gpu is not None
    assert other.nvml is None
    assert failing.open == 0


def test_the_sensors_of_an_rtx_box_and_their_end(tmp_path: Path) -> None:
    nvml = FakeNvml()
    with machine.sensors(Emulated(rtx_root(tmp_path), load=libraries(nvml=nvml))) as sensors:
        first = sensors()
        nvml.power_milliwatts = 99_000
        second = sensors()
        assert nvml.open == 1
    assert nvml.open == 0
    assert (first.gpu_watts, second.gpu_watts, first.total_watts) == (31.5, 99.0, None)
    assert (first.gpu_mhz, first.gpu_temperature_celsius, first.gpu_memory_used_bytes) == (2505, 54, 2 << 30)
    assert first.temperatures_celsius == {"k10temp Tctl": 61.25}
    assert first.gpu_energy_joules == 1234.5
    assert second.seconds > first.seconds
    sensors.close()
    assert sensors().gpu_watts is None


def test_containers(tmp_path: Path) -> None:
    assert probe_os(tmp_path, {}).container is None
    assert probe_os(tmp_path, {"container": "lxc"}).container == "lxc"
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/cgroup").write_text("0::/system.slice/docker-0123.scope\n")
    assert probe_os(tmp_path, {}).container == "docker"
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.containerenv").write_text("")
    assert probe_os(tmp_path, {}).container == "podman"


@pytest.mark.parametrize(
    ("text", "sees"),
    [("include-system-site-packages = true\n", True), ("include-system-site-packages=false\n", False), ("", None)],
)
def test_virtual_environments(text: str, sees: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\n" + text)
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    found = Host().python()
    assert (found.virtual_environment, found.sees_system_packages) == (str(tmp_path), sees)
    monkeypatch.setattr(sys, "prefix", "/usr")
    assert Host().python().virtual_environment is None


def test_tensorrt_is_found_and_not_imported(tmp_path: Path) -> None:
    def found(versions: dict[str, str], **texts: str) -> Any:
        for name, text in texts.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "__init__.py").write_text(text)
        host = Emulated(tmp_path, versions=versions, packages=lambda name: tmp_path / name if name in texts else None)
        return probe_tensorrt(host, host.python())

    raising = 'raise ImportError("libnvinfer.so.10")\n__version__ = "10.13.3"\n'
    first, _ = found({}, tensorrt=raising)
    assert (first.flavour, first.version) == ("tensorrt", "10.13.3")
    # TensorRT goes before TensorRT-RTX, as in `build`.
    rtx = '__version__ = "1.7.1.116"\n'
    first, _ = found({"tensorrt-cu12-bindings": "10.3.0"}, tensorrt_bindings="", tensorrt_rtx=rtx)
    assert (first.flavour, first.module, first.version) == ("tensorrt", "tensorrt_bindings", "10.3.0")
    first, _ = found({}, tensorrt_rtx=rtx)
    assert (first.flavour, first.version) == ("tensorrt-rtx", "1.7.1.116")
    first, _ = found({}, tensorrt="")
    assert first.version is None
    assert found({}) == (None, "TensorRT is not installed")


def test_onnxruntime_with_and_without(tmp_path: Path) -> None:
    library = types.SimpleNamespace(
        __version__="1.26.0", get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    found, _ = probe_onnxruntime(Emulated(tmp_path, modules={"onnxruntime": library}))
    assert found is not None
    assert (found.version, found.providers) == ("1.26.0", ("CUDAExecutionProvider", "CPUExecutionProvider"))
    assert probe_onnxruntime(Emulated(tmp_path)) == (None, "ONNX Runtime is not installed")
    broken = Emulated(tmp_path, modules={"onnxruntime": ImportError("libpython is too old")})
    reason = probe_onnxruntime(broken)[1] or ""
    assert "cannot be imported (ImportError: libpython is too old)" in reason
    versions = {"onnxruntime": "1.26.0", "onnxruntime-gpu": "1.26.0"}
    both = machine.probe(Emulated(tmp_path, load=libraries(), versions=versions)).libraries
    assert (both["onnxruntime"], both["onnxruntime-gpu"], both["av"]) == ("1.26.0", "1.26.0", None)


def test_bindings(tmp_path: Path) -> None:
    def found(
        versions: dict[str, str], packages: dict[str, str] | None = None, forced: str | None = None
    ) -> CudaSoftware:
        environ = {} if forced is None else {"EDGE_RECLASS_CUDA_MEMORY": forced}
        return probe_cuda(Emulated(tmp_path, versions=versions, environ=environ), packages or {})

    both = {"pycuda": "2026.1", "cuda-bindings": "12.9.4"}
    assert found(both).binding == "pycuda"
    assert found({"cuda-bindings": "12.9.4"}).binding_version == "12.9.4"
    assert found(both, forced="cuda-bindings").binding == "cuda-bindings"
    assert found({"pycuda": "1"}, forced="cuda-bindings").binding is None
    none = found({})
    assert (none.binding, none.binding_version, none.toolkit, none.cudnn) == (None, None, None, None)
    by_package = found({}, {"cuda-cudart-12-6": "12.6.68-1", "libcudnn9-cuda-12": "9.3.0.75-1"})
    assert (by_package.toolkit, by_package.cudnn) == ("12.6.68", "9.3.0.75")
    (tmp_path / "usr/local/cuda").mkdir(parents=True)
    (tmp_path / "usr/local/cuda/version.json").write_text('{"cuda": {}}')
    assert found({"nvidia-cudnn-cu12": "9.1.0.70"}).cudnn == "9.1.0.70"


def test_what_is_installed_here() -> None:
    assert Host().version("numpy") == metadata.version("numpy")
    assert Host().version("no-such-distribution") is None
    assert Host().package("numpy") == Path(numpy.__file__).parent
    assert Host().package("no_such_module") is None
    assert Host().package("types") is None


def test_disks_of_paths_that_are_not_there_yet(tmp_path: Path) -> None:
    (disk,) = probe_disks([tmp_path / "a/b", tmp_path / "a/b"])
    assert (disk.path, disk.looked_at) == (str(tmp_path / "a/b"), str(tmp_path))
    assert probe_disks([]) == ()
