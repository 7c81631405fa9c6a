"""Emulated Jetsons with JetPack 6.2 and 7.2, and outputs that are garbage, refused or missing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edge_reclass_doctor import machine
from edge_reclass_doctor.machine import Machine, tegrastats
from edge_reclass_doctor.machine.jetson import jetpack_of, parse_jetson_clocks, parse_power_mode, parse_power_modes
from machine.emulator import (
    BOARDS,
    NOT_ROOT,
    FakeCuda,
    fake_root,
    libraries,
    python_of,
    replace_tool,
    system_modules,
)

NO_VERSION = {}.get


def probe(root: Path, board: str, **options: object) -> Machine:
    one = BOARDS[board]
    return machine.probe(
        root,
        **{
            "environ": {},
            "load": libraries(FakeCuda(one.cuda_name, one.sm, version=one.driver_cuda)),
            "python": python_of(board),
            "modules": system_modules(root, board),
            "version": NO_VERSION,
            **options,
        },
    )


@pytest.mark.parametrize(
    ("board", "l4t", "jetpack", "mode", "cpu", "gpu", "cores", "trt", "locked"),
    [
        ("orin-nano-6.2", "36.4.3", "6.2", "25W", "Cortex-A78AE", "17000000.gpu", 6, "10.3.0", False),
        ("orin-nano-6.2.1", "36.4.4", "6.2.1", "MAXN_SUPER", "Cortex-A78AE", "17000000.gpu", 6, "10.3.0", False),
        ("orin-nano-7.2", "39.2.0", "7.2", "25W", "Cortex-A78AE", "17000000.gpu", 6, "10.16.2.10", True),
        ("agx-orin-7.2", "39.2.0", "7.2", "MAXN", "Cortex-A78AE", "17000000.gpu", 12, "10.16.2.10", True),
        ("thor-7.2", "39.2.0", "7.2", "120W", "Neoverse-V3AE", "gpu-gpc-0", 14, "10.16.2.10", False),
    ],
)
def test_boards(
    board: str,
    l4t: str,
    jetpack: str,
    mode: str,
    cpu: str,
    gpu: str,
    cores: int,
    trt: str,
    locked: bool,
    tmp_path: Path,
) -> None:
    found = probe(fake_root(tmp_path, board), board)
    jetson, one = found.jetson, BOARDS[board]
    assert jetson is not None
    assert (jetson.model, jetson.soc, jetson.l4t, jetson.jetpack) == (one.model, one.soc, l4t, jetpack)
    assert jetson.jetpack_package == one.jetpack
    assert jetson.power_mode is not None
    assert (jetson.power_mode.id, jetson.power_mode.name) == one.mode
    assert jetson.power_mode.name == mode
    assert [(each.id, each.name) for each in jetson.power_modes] == list(one.modes)
    assert [clock.name for clock in jetson.gpu_clocks] == [gpu]
    assert jetson.gpu_clocks[0].max_mhz == one.gpu_hz[1] / 1e6
    assert jetson.clocks_locked is locked
    assert jetson.overcurrent_events == 0
    assert (found.cpu.model, found.cpu.cores_total, found.cpu.architecture) == (cpu, cores, "aarch64")
    assert found.cpu.policies[0].max_mhz == one.cpu_khz[1] / 1e3
    assert found.cuda.toolkit == one.cuda
    assert found.cuda.cudnn == one.cudnn.split("-")[0]
    assert found.tensorrt is not None
    assert (found.tensorrt.flavour, found.tensorrt.version, found.tensorrt.module) == ("tensorrt", trt, "tensorrt")
    assert found.gpu is not None
    assert (found.gpu.driver, found.gpu.integrated, found.gpu.sm) == (f"l4t-{l4t}", True, f"{one.sm[0]}.{one.sm[1]}")
    assert found.memory.total_bytes == one.memory_kb * 1024
    assert found.os.name == one.os
    # As another user than root, jetson_clocks refuses; what /sys says stands all the same.
    assert jetson.jetson_clocks is None
    assert found.reasons["jetson.jetson_clocks"] == "jetson_clocks --show wants root"
    assert msgspec.json.decode(msgspec.json.encode(found), type=Machine) == found


@pytest.mark.parametrize(("board", "emc", "fan"), [("orin-nano-6.2", 2133, 25.5), ("thor-7.2", 2750, 25.5)])
def test_root_sees_the_clocks_of_jetson_clocks(board: str, emc: float, fan: float, tmp_path: Path) -> None:
    found = probe(fake_root(tmp_path, board, as_root=True), board)
    one = BOARDS[board]
    assert found.jetson is not None
    clocks = found.jetson.jetson_clocks
    assert clocks is not None
    assert (clocks.soc, clocks.machine, clocks.power_mode) == (one.soc, one.model, one.mode[1])
    assert len(clocks.cpus) == sum(one.cpus)
    assert [clock.name for clock in clocks.cpus] == [f"cpu{i}" for i in range(sum(one.cpus))]
    assert clocks.cpus[0].max_mhz == one.cpu_khz[1] / 1e3
    assert clocks.cpus[0].governor == "schedutil"
    assert clocks.gpus[0].max_mhz == one.gpu_hz[1] / 1e6
    assert clocks.emc is not None
    assert clocks.emc.current_mhz == found.jetson.emc_mhz == emc
    assert clocks.fan_control == "nvfancontrol"
    assert "jetson.jetson_clocks" not in found.reasons
    assert [fan.duty_percent for fan in found.fans] == [25.5, None]
    assert [fan.rpm for fan in found.fans] == [None, 1786]


def test_the_input_rail_is_the_total_and_is_never_added(tmp_path: Path) -> None:
    nano = probe(fake_root(tmp_path / "nano", "orin-nano-6.2"), "orin-nano-6.2").power
    assert nano.total_rail == "VDD_IN"
    assert nano.total_watts == pytest.approx(4.960 * 1.056)
    assert [rail.name for rail in nano.rails] == ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"]
    thor = probe(fake_root(tmp_path / "thor", "thor-7.2"), "thor-7.2").power
    assert (thor.total_rail, thor.total_watts) == ("VIN", 20.986)
    # AGX Orin has no rail for its whole input: the total is not known, and not made up from the others.
    agx = probe(fake_root(tmp_path / "agx", "agx-orin-7.2"), "agx-orin-7.2")
    assert (agx.power.total_rail, agx.power.total_watts) == (None, None)
    assert "not added up" in agx.reasons["power.total_watts"]
    assert {rail.name: rail.watts for rail in agx.power.rails} == pytest.approx(
        {"VDD_GPU_SOC": 2.4108, "VDD_CPU_CV": 1.6072, "VIN_SYS_5V0": 4.705, "VDDQ_VDD2_1V8AO": 0.3006}
    )


def test_temperatures(tmp_path: Path) -> None:
    zones = probe(fake_root(tmp_path, "orin-nano-6.2"), "orin-nano-6.2").thermal
    by_name = {zone.name: zone for zone in zones}
    assert by_name["cpu-thermal"].celsius == 48.562
    assert (by_name["cpu-thermal"].trip_celsius, by_name["cpu-thermal"].critical_celsius) == (99.0, 104.5)
    assert by_name["cv0-thermal"].celsius is None
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_text("-256000\n")
    again = probe(tmp_path, "orin-nano-6.2").thermal
    assert again[0].celsius is None


def test_overcurrent_alarms_are_added_up(tmp_path: Path) -> None:
    root = fake_root(tmp_path, "orin-nano-6.2")
    (root / "sys/class/hwmon/hwmon2/oc3_event_cnt").write_text("17\n")
    (root / "sys/class/hwmon/hwmon2/oc1_event_cnt").write_text("2\n")
    found = probe(root, "orin-nano-6.2").jetson
    assert found is not None
    assert found.overcurrent_events == 19


def test_tegrastats_of_jetpack_6() -> None:
    line = tegrastats.parse(BOARDS["orin-nano-6.2"].tegrastats)
    assert line is not None
    assert (line.ram_used_bytes, line.ram_total_bytes) == (1343 << 20, 7620 << 20)
    assert (line.swap_used_bytes, line.swap_total_bytes) == (165 << 20, 3810 << 20)
    assert line.cpu_percent == (0, 12, None, 0, 0, 0)
    assert line.cpu_mhz == (1497, 729, None, 729, 729, 729)
    assert (line.gpu_percent, line.gpu_mhz) == (7, (305.0,))
    assert (line.emc_percent, line.emc_mhz) == (15, 2133)
    assert line.temperatures_celsius == {
        "cpu": 48.562,
        "soc2": 46.593,
        "soc0": 48.625,
        "gpu": 49.625,
        "tj": 49.312,
        "soc1": 47.937,
    }
    assert line.rails_watts == {"VDD_IN": 5.251, "VDD_CPU_GPU_CV": 0.512, "VDD_SOC": 2.72}
    assert line.total_watts == 5.251


def test_tegrastats_of_jetpack_7() -> None:
    orin = tegrastats.parse("nothing\n" + BOARDS["orin-nano-7.2"].tegrastats + "\nRAM 1/2MB\n")
    assert orin is not None
    assert (orin.swap_used_bytes, orin.gpu_percent, orin.gpu_mhz, orin.emc_mhz) == (None, 0, (305.0,), 665)
    assert orin.temperatures_celsius["tj"] == 46.843
    assert (orin.rails_watts["VDD_IN"], orin.total_watts) == (3.462, 3.462)
    thor = tegrastats.parse(BOARDS["thor-7.2"].tegrastats)
    assert thor is not None
    assert (len(thor.cpu_percent), thor.gpu_percent, thor.gpu_mhz, thor.emc_mhz) == (14, None, (), None)
    assert thor.temperatures_celsius["soc345"] == 63.281
    assert thor.rails_watts == {"VDD_GPU": 37.528, "VDD_CPU_SOC_MSS": 18.961, "VIN_SYS_5V0": 18.331, "VIN": 87.426}
    assert thor.total_watts == 87.426


def test_other_forms_of_tegrastats() -> None:
    three = tegrastats.parse(
        "RAM 1/2MB CPU [0%,off]@972 EMC_FREQ 0%@2750 GR3D_FREQ @[314,315,316] VDD_GPU 1962mW/1962mW"
    )
    assert three is not None
    assert (three.cpu_percent, three.cpu_mhz) == ((0, None), (972, None))
    assert (three.gpu_percent, three.gpu_mhz, three.total_watts) == (None, (314, 315, 316), None)
    old = tegrastats.parse("RAM 2/3MB (lfb 1x4MB) CPU [1%@345] GPU@-256C PMIC@50C VDD_IN 2763/2846 VDD_SOC 650/711")
    assert old is not None
    assert old.temperatures_celsius == {"PMIC": 50.0}
    assert old.rails_watts == {"VDD_IN": 2.763, "VDD_SOC": 0.65}


@pytest.mark.parametrize("text", ["", "\n\n", "Segmentation fault", "RAM", "RAM a/bMB", "\ufffd" * 100])
def test_what_is_no_tegrastats(text: str) -> None:
    assert tegrastats.parse(text) is None


def test_power_modes() -> None:
    mode = parse_power_mode("NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN_SUPER\n2\n")
    assert mode is not None
    assert (mode.id, mode.name) == (2, "MAXN_SUPER")
    for text in ("", "NV Power Mode:", "NV Power Mode: 25W", "2\n", "NVPM ERROR: no config\n"):
        assert parse_power_mode(text) is None
    assert parse_power_modes("# < POWER_MODEL ID=9 NAME=NO >\n< PM_CONFIG DEFAULT=1 >") == ()


def test_clocks_that_are_none() -> None:
    for text in ("", NOT_ROOT, "SOC family:tegra234  Machine:x\n", "cpu0: MinFreq=x MaxFreq=1 CurrentFreq=1"):
        assert parse_jetson_clocks(text) is None


def test_tools_that_are_missing_hang_or_print_garbage(tmp_path: Path) -> None:
    root = fake_root(tmp_path, "orin-nano-6.2")
    (root / "usr/bin/tegrastats").unlink()
    replace_tool(root, "usr/sbin/nvpmodel", "NVPM ERROR: failed to read PARAM\n", status=255)
    replace_tool(root, "usr/bin/jetson_clocks", "\x00\x01garbage\n")
    found = probe(root, "orin-nano-6.2")
    assert found.jetson is not None
    assert (found.jetson.power_mode, found.jetson.jetson_clocks, found.jetson.tegrastats) == (None, None, None)
    assert found.reasons["jetson.tegrastats"] == "tegrastats is not installed"
    assert found.reasons["jetson.power_mode"] == ("nvpmodel failed with status 255: NVPM ERROR: failed to read PARAM")
    assert "printed nothing known" in found.reasons["jetson.jetson_clocks"]
    assert found.jetson.emc_mhz is None
    assert "root only" in found.reasons["jetson.emc_mhz"]
    # What does not depend on tools is there.
    assert found.jetson.jetpack == "6.2"
    assert found.power.total_watts is not None

    replace_tool(root, "usr/sbin/nvpmodel", "", then="exec sleep 300")
    slow = probe(root, "orin-nano-6.2", run=lambda command, seconds, lines: machine.run_tool(command, 0.3, lines))
    assert "did not answer within 0.3 s" in slow.reasons["jetson.power_mode"]


def test_tools_are_not_run_when_not_asked_for(tmp_path: Path) -> None:
    def run(command: object, seconds: float, lines: int | None) -> machine.ToolResult:
        raise AssertionError(command)

    found = probe(fake_root(tmp_path, "thor-7.2"), "thor-7.2", run=run, tools=False)
    assert found.jetson is not None
    assert found.jetson.power_mode is None
    assert found.reasons["jetson.power_mode"] == "not asked"


def test_l4t_from_the_package_and_unknown_releases(tmp_path: Path) -> None:
    root = fake_root(tmp_path, "orin-nano-6.2")
    (root / "etc/nv_tegra_release").unlink()
    found = probe(root, "orin-nano-6.2").jetson
    assert found is not None
    assert (found.l4t, found.jetpack) == ("36.4.3", "6.2")
    (root / "etc/nv_tegra_release").write_text("# R40 (release), REVISION: 1.0, GCID: 1\n")
    newer = probe(root, "orin-nano-6.2")
    assert newer.jetson is not None
    assert (newer.jetson.l4t, newer.jetson.jetpack) == ("40.1.0", None)
    assert "not in this version's list" in newer.reasons["jetson.jetpack"]
    (root / "etc/nv_tegra_release").write_text("garbage\n")
    (root / "var/lib/dpkg/status").write_bytes(b"\xff\xfe\0garbage")
    none = probe(root, "orin-nano-6.2")
    assert none.jetson is not None
    assert none.jetson.l4t is None
    assert "give no release" in none.reasons["jetson.l4t"]


@pytest.mark.parametrize(
    ("l4t", "jetpack"),
    [
        ("36.4.0", "6.1"),
        ("36.4.3", "6.2"),
        ("36.4.4", "6.2.1"),
        ("36.4.7", "6.2.1"),
        ("36.5.0", "6.2.2"),
        ("38.2.0", "7.0"),
        ("38.4.0", "7.1"),
        ("39.2.0", "7.2"),
        ("39.9.9", None),
        (None, None),
    ],
)
def test_the_matrix(l4t: str | None, jetpack: str | None) -> None:
    assert jetpack_of(l4t) == jetpack


@pytest.mark.parametrize("damage", ["empty", "binary", "folders", "words"])
def test_every_file_may_be_unreadable_or_garbage(damage: str, tmp_path: Path) -> None:
    root = fake_root(tmp_path, "thor-7.2")
    for path in [path for path in root.rglob("*") if path.is_file() and "bin" not in path.parts[-2]]:
        path.unlink()
        if damage == "folders":
            path.mkdir()
        else:
            path.write_bytes({"empty": b"", "binary": bytes(range(256)) * 4, "words": b"not supported\n"}[damage])
    found = probe(root, "thor-7.2")
    assert found.memory.total_bytes is None
    assert found.power.total_watts is None
    assert all(zone.celsius is None for zone in found.thermal)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Machine) == found
    assert machine.sensors(root, load=libraries())().temperatures_celsius == {}


def test_an_empty_root_is_no_jetson(tmp_path: Path) -> None:
    found = machine.probe(tmp_path, environ={}, load=libraries(), version=NO_VERSION, modules=lambda name: None)
    assert found.jetson is None
    assert "no Jetson" in found.reasons["jetson"]
    assert (found.cpu.model, found.cpu.policies, found.thermal, found.fans) == (None, (), (), ())


def test_tensorrt_that_is_there_but_not_for_this_python(tmp_path: Path) -> None:
    root = fake_root(tmp_path, "orin-nano-6.2")

    def reason(python: machine.Python) -> str:
        found = probe(root, "orin-nano-6.2", python=python, modules=lambda name: None)
        assert found.tensorrt is None
        return found.reasons["tensorrt"]

    closed = python_of("orin-nano-6.2", sees_system_packages=False)
    assert "made without --system-site-packages" in reason(closed)
    assert "installed for Python 3.10" in reason(msgspec.structs.replace(closed, version="3.12.3"))
    plain = msgspec.structs.replace(closed, virtual_environment=None, sees_system_packages=None)
    assert "does not search" in reason(plain)
    bare = fake_root(tmp_path / "bare", "orin-nano-6.2", tensorrt=False)
    none = probe(bare, "orin-nano-6.2", modules=system_modules(bare, "orin-nano-6.2"))
    assert none.reasons["tensorrt"] == "TensorRT is not installed"
