"""What else happened: added up over spans, absent where nothing says it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.fakes import FakeClock
from edge_reclass_bench import watch as watch_module
from edge_reclass_bench.watch import Watch, busy_seconds, peak_bytes, reset_peak
from edge_reclass_doctor.machine import Reading


def _reading(seconds: float, **changes: Any) -> Reading:
    plain: dict[str, Any] = {
        "seconds": seconds,
        "temperatures_celsius": {},
        "cpu_mhz": (),
        "gpu_mhz": None,
        "gpu_temperature_celsius": None,
        "total_watts": None,
        "gpu_watts": None,
        "gpu_energy_joules": None,
        "gpu_memory_used_bytes": None,
        "throttled_by": (),
        "overcurrent_events": None,
    }
    return Reading(**(plain | changes))


def _watch(readings: list[Reading] | None, clock: FakeClock, root: Path, **changes: Any) -> Watch:
    waiting = iter(readings or [])
    sensors: Callable[[], Reading] | None = None if readings is None else lambda: next(waiting)
    plain: dict[str, Any] = {"busy": lambda: 0.0, "own": lambda: (0.0, 0), "interval": 1e6, "root": root}
    return Watch(sensors, clock, **(plain | changes))


def _run(watch: Watch, clock: FakeClock, spans: int = 1, seconds: float = 10.0) -> Any:
    for _ in range(spans):
        with watch:
            clock.sleep(seconds)
        clock.sleep(100.0)  # what lies between spans does not count
    return watch.run("stage", "x", warm_up=1, passes=spans, count=20)


def test_without_sensors_nothing_is_invented(tmp_path: Path) -> None:
    clock = FakeClock()
    run = _run(_watch(None, clock, tmp_path), clock, spans=2)
    assert run.wall_seconds == pytest.approx(20.0)
    assert (run.power_watts, run.power_source, run.joules_per_track) == (None, None, None)
    assert (run.clocks_mhz, run.temperatures, run.throttled, run.device_peak_bytes) == ({}, {}, [], None)
    assert run.host_peak_bytes is None  # there is no /proc below this root


def test_other_programs_are_what_the_machine_did_less_our_own(tmp_path: Path) -> None:
    clock = FakeClock()
    busy = iter([100.0, 118.0])
    own = iter([(1.0, 3), (9.0, 10)])
    run = _run(_watch(None, clock, tmp_path, busy=lambda: next(busy), own=lambda: next(own)), clock)
    assert run.cpu_seconds == 8.0
    assert run.other_cpu == pytest.approx((18.0 - 8.0) / 10.0)
    assert run.involuntary_switches == 7


def test_an_unknown_load_stays_unknown(tmp_path: Path) -> None:
    clock = FakeClock()
    assert _run(_watch(None, clock, tmp_path, busy=lambda: None), clock, spans=2).other_cpu is None


def test_energy_from_the_counter(tmp_path: Path) -> None:
    clock = FakeClock()
    energies = [(0.0, 50.0), (10.0, 1050.0), (200.0, 9000.0), (210.0, 11000.0)]
    readings = [_reading(s, gpu_energy_joules=joules, gpu_watts=7.0) for s, joules in energies]
    run = _run(_watch(readings, clock, tmp_path), clock, spans=2)
    assert run.joules_per_track == pytest.approx(3000.0 / 20)  # what was used between the spans does not count
    assert run.power_watts.value == pytest.approx(3000.0 / 20.0)
    assert run.power_source == "GPU only, NVML energy counter"


def test_energy_from_the_boards_power(tmp_path: Path) -> None:
    clock = FakeClock()
    readings = [_reading(0.0, total_watts=10.0, gpu_watts=1.0), _reading(10.0, total_watts=20.0, gpu_watts=1.0)]
    run = _run(_watch(readings, clock, tmp_path), clock)
    assert run.power_watts.value == pytest.approx(15.0)
    assert run.joules_per_track == pytest.approx(15.0 * 10.0 / 20)
    assert run.power_source == "board input rail"


def test_energy_from_the_gpus_power(tmp_path: Path) -> None:
    clock = FakeClock()
    run = _run(_watch([_reading(0.0, gpu_watts=30.0), _reading(10.0, gpu_watts=50.0)], clock, tmp_path), clock)
    assert run.joules_per_track == pytest.approx(40.0 * 10.0 / 20)
    assert run.power_source == "GPU only, NVML power"


def test_ranges_throttling_and_memory(tmp_path: Path) -> None:
    clock = FakeClock()
    readings = [
        _reading(0.0, cpu_mhz=(1000.0, 2000.0), gpu_mhz=900.0, temperatures_celsius={"cpu": 50.0}),
        _reading(
            9.0,
            cpu_mhz=(1500.0, 2000.0),
            gpu_mhz=600.0,
            temperatures_celsius={"cpu": 70.0},
            gpu_temperature_celsius=60.0,
            gpu_memory_used_bytes=5,
            throttled_by=("thermal slowdown",),
        ),
    ]
    run = _run(_watch(readings, clock, tmp_path), clock)
    assert run.clocks_mhz == {"cpu0": (1000.0, 1500.0), "cpu1": (2000.0, 2000.0), "gpu": (600.0, 900.0)}
    assert run.temperatures == {"cpu": (50.0, 70.0), "gpu": (60.0, 60.0)}
    assert run.throttled == ["thermal slowdown"]
    assert run.device_peak_bytes == 5


def test_over_current_within_a_span_is_told(tmp_path: Path) -> None:
    clock = FakeClock()
    quiet = [_reading(0.0, overcurrent_events=3), _reading(1.0, overcurrent_events=3)]
    assert _run(_watch(quiet, clock, tmp_path), clock).throttled == []
    weak = [_reading(0.0, overcurrent_events=3), _reading(1.0, overcurrent_events=4)]
    assert "over-current" in _run(_watch(weak, clock, tmp_path), clock).throttled[0]


def test_a_thread_reads_sensors_in_between(tmp_path: Path) -> None:
    import threading

    enough = threading.Event()
    count = 0

    def sensors() -> Reading:
        nonlocal count
        count += 1
        if count >= 4:
            enough.set()
        return _reading(float(count))

    watch = Watch(sensors, FakeClock(), interval=0.001, root=tmp_path)
    with watch:
        assert enough.wait(30)
    assert len(watch.readings[0]) >= 5
    assert watch._thread is None


@pytest.fixture
def proc(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    yield tmp_path


def test_the_kernels_files(proc: Path) -> None:
    (proc / "proc/stat").write_text("cpu  100 20 30 5000 400 5 6 7 0 0\ncpu0 1 2\n")
    (proc / "proc/self/status").write_text("Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n")
    (proc / "proc/self/clear_refs").write_text("")
    ticks = watch_module.os.sysconf("SC_CLK_TCK")
    assert busy_seconds(proc) == pytest.approx((100 + 20 + 30 + 5 + 6 + 7) / ticks)
    assert peak_bytes(proc) == 2048 * 1024
    assert reset_peak(proc)
    assert (proc / "proc/self/clear_refs").read_text() == "5"


def test_kernels_without_them(tmp_path: Path) -> None:
    assert (busy_seconds(tmp_path), peak_bytes(tmp_path), reset_peak(tmp_path)) == (None, None, False)
