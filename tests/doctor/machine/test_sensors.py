"""Repeated readings of an emulated Jetson."""

from __future__ import annotations

from pathlib import Path

from doctor.machine.emulator import Emulated, fake_root, libraries
from edge_reclass_doctor import machine


def test_readings_follow_the_files(tmp_path: Path) -> None:
    root = fake_root(tmp_path, "orin-nano-6.2")
    with machine.sensors(Emulated(root, load=libraries())) as sensors:
        first = sensors()
        (root / "sys/class/devfreq/17000000.gpu/cur_freq").write_text("918000000\n")
        (root / "sys/class/thermal/thermal_zone1/temp").write_text("71250\n")
        (root / "sys/class/hwmon/hwmon1/curr1_input").write_text("3000\n")
        (root / "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq").write_text("1344000\n")
        (root / "sys/class/hwmon/hwmon2/oc2_event_cnt").write_text("4\n")
        second = sensors()
    assert first.gpu_mhz == 306.0
    assert first.temperatures_celsius["gpu-thermal"] == first.gpu_temperature_celsius == 49.625
    assert "cv0-thermal" not in first.temperatures_celsius
    assert first.total_watts == 5.23776
    assert (first.cpu_mhz, first.overcurrent_events) == ((960.0, 960.0), 0)
    assert (second.gpu_mhz, second.gpu_temperature_celsius, second.total_watts) == (918.0, 71.25, 14.88)
    assert (second.cpu_mhz, second.overcurrent_events) == ((960.0, 1344.0), 4)
    assert (second.gpu_watts, second.gpu_energy_joules, second.throttled_by) == (None, None, ())


def test_a_part_that_loses_its_power_and_gets_it_back(tmp_path: Path) -> None:
    root = fake_root(tmp_path, "thor-7.2")
    zone = root / "sys/class/thermal/thermal_zone1/temp"
    zone.unlink()
    clock = root / "sys/class/devfreq/gpu-gpc-0/cur_freq"
    sensors = machine.sensors(Emulated(root, load=libraries()))
    idle = sensors()
    assert (idle.gpu_temperature_celsius, idle.gpu_mhz) == (None, 314.0)
    zone.write_text("38875\n")
    clock.unlink()
    busy = sensors()
    assert (busy.gpu_temperature_celsius, busy.gpu_mhz) == (38.875, None)
    assert busy.total_watts == 20.986
