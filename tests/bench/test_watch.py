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
    assert (run.throttled, run.device_peak_bytes) == ([], None)
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


def test_throttling_and_memory(tmp_path: Path) -> None:
    clock = FakeClock()
    late = _reading(9.0, gpu_memory_used_bytes=5, throttled_by=("thermal slowdown",))
    run = _run(_watch([_reading(0.0, gpu_memory_used_bytes=3), late], clock, tmp_path), clock)
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
