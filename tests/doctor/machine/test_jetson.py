"""Emulated Jetsons with JetPack 6.2 and 7.2, and outputs that are garbage, refused or missing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from doctor.machine.emulator import (
    BOARDS,
    Emulated,
    emulated,
    fake_root,
    libraries,
    python_of,
    replace_tool,
    system_modules,
)
from edge_reclass_doctor import machine
from edge_reclass_doctor.machine import Machine
from edge_reclass_doctor.machine.jetson import parse_power_mode, parse_power_modes
from edge_reclass_doctor.machine.records import Python


def probe(root: Path, board: str, **options: object) -> Machine:
    return machine.probe(emulated(root, board, **options))


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
    assert [fan.duty_percent for fan in found.fans] == [25.5, None]
    assert [fan.rpm for fan in found.fans] == [None, 1786]
    assert msgspec.json.decode(msgspec.json.encode(found), type=Machine) == found


def test_root_sees_the_clock_of_the_memory(tmp_path: Path) -> None:
    root = fake_root(tmp_path, "orin-nano-6.2")
    everybody = probe(root, "orin-nano-6.2")
    assert everybody.jetson is not None
    assert everybody.jetson.emc_mhz is None
    assert "root only" in everybody.reasons["jetson.emc_mhz"]
    rate = root / "sys/kernel/debug/bpmp/debug/clk/emc/rate"
    rate.parent.mkdir(parents=True)
    rate.write_text("2133000000\n")
    jetson = probe(root, "orin-nano-6.2").jetson
    assert jetson is not None
    assert jetson.emc_mhz == 2133


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
    assert by_name["cpu-thermal"].trip_celsius == 99.0
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


def test_power_modes() -> None:
    mode = parse_power_mode("NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN_SUPER\n2\n")
    assert mode is not None
    assert (mode.id, mode.name) == (2, "MAXN_SUPER")
    for text in ("", "NV Power Mode:", "NV Power Mode: 25W", "2\n", "NVPM ERROR: no config\n"):
        assert parse_power_mode(text) is None
    assert parse_power_modes("# < POWER_MODEL ID=9 NAME=NO >\n< PM_CONFIG DEFAULT=1 >") == ()


def test_a_tool_that_is_missing_fails_hangs_or_prints_garbage(tmp_path: Path) -> None:
    root = fake_root(tmp_path, "orin-nano-6.2")

    def why(**options: object) -> str:
        found = probe(root, "orin-nano-6.2", **options)
        assert found.jetson is not None
        assert found.jetson.power_mode is None
        # What does not depend on the tool is there.
        assert found.jetson.jetpack == "6.2"
        assert found.power.total_watts is not None
        return found.reasons["jetson.power_mode"]

    replace_tool(root, "usr/sbin/nvpmodel", "NVPM ERROR: failed to read PARAM\n", status=255)
    assert why() == "nvpmodel failed with status 255: NVPM ERROR: failed to read PARAM"
    replace_tool(root, "usr/sbin/nvpmodel", "\x01garbage\n")
    assert why() == "nvpmodel -q printed no mode: '\\x01garbage\\n'"
    replace_tool(root, "usr/sbin/nvpmodel", "", then="exec sleep 300")
    assert "did not answer within 0.3 s" in why(run=lambda command, seconds: machine.run_tool(command, 0.3))
    (root / "usr/sbin/nvpmodel").unlink()
    assert why() == "nvpmodel is not installed"


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
    assert machine.sensors(Emulated(root, load=libraries()))().temperatures_celsius == {}


def test_an_empty_root_is_no_jetson(tmp_path: Path) -> None:
    found = machine.probe(Emulated(tmp_path, load=libraries()))
    assert found.jetson is None
    assert "no Jetson" in found.reasons["jetson"]
    assert (found.cpu.model, found.cpu.policies, found.thermal, found.fans) == (None, (), (), ())


def test_tensorrt_that_is_there_but_not_for_this_python(tmp_path: Path) -> None:
    root = fake_root(tmp_path, "orin-nano-6.2")

    def reason(python: Python) -> str:
        found = probe(root, "orin-nano-6.2", interpreter=python, packages=lambda name: None)
        assert found.tensorrt is None
        return found.reasons["tensorrt"]

    closed = python_of("orin-nano-6.2", sees_system_packages=False)
    assert "made without --system-site-packages" in reason(closed)
    assert "installed for Python 3.10" in reason(msgspec.structs.replace(closed, version="3.12.3"))
    plain = msgspec.structs.replace(closed, virtual_environment=None, sees_system_packages=None)
    assert "does not search" in reason(plain)
    bare = fake_root(tmp_path / "bare", "orin-nano-6.2", tensorrt=False)
    none = probe(bare, "orin-nano-6.2", packages=system_modules(bare, "orin-nano-6.2"))
    assert none.reasons["tensorrt"] == "TensorRT is not installed"
