"""Joules of what ran, not of what the sensor remembers."""

from __future__ import annotations

import msgspec
import pytest

from bench.sample import make_record
from edge_reclass_bench.energy import energies, energy, kept, throughput_over_time
from edge_reclass_bench.record import Series


def board(busy: float, *, idle_watts: float = 5.0, busy_watts: float = 20.0, every: float = 0.25) -> Series:
    """A board that draws 20 W while it works and 5 W else, read all along and a while before and after."""
    seconds = [every * i for i in range(int((busy + 4.0) / every) + 1)]
    began, ended = 2.0, 2.0 + busy
    return Series(
        scenario="energy",
        subject="cascade",
        phase="busy",
        seconds=seconds,
        values={"watts": [busy_watts if began <= s <= ended else idle_watts for s in seconds]},
        began=began,
        ended=ended,
        count=10,
        power_source="board input rail",
    )


@pytest.mark.parametrize("busy", [30.0, 37.3, 120.0])
def test_readings_outside_of_the_span_do_not_count(busy: float) -> None:
    found = energy(board(busy))
    assert not isinstance(found, str)
    assert found.watts == pytest.approx(20.0)
    assert found.joules_per_track == pytest.approx(20.0 * busy / 10)


@pytest.mark.parametrize(("busy", "every"), [(0.2, 0.25), (3.0, 0.25), (29.0, 0.25), (60.0, 5.0)])
def test_too_little_gives_no_figure(busy: float, every: float) -> None:
    found = energy(board(busy, every=every))
    assert isinstance(found, str)
    assert "at least 20 in 30 s: raise --energy-seconds" in found


def test_power_that_rises_is_integrated() -> None:
    series = board(40.0)
    ramp = msgspec.structs.replace(series, values={"watts": list(series.seconds)})
    found = energy(ramp)
    assert not isinstance(found, str)
    assert found.watts == pytest.approx(22.0, rel=0.01)  # the mean of 2 to 42 W


def test_above_idle_is_told_apart() -> None:
    record = make_record()
    (found,) = energies(record)
    assert not isinstance(found, str)
    assert (found.idle_watts, found.watts) == (5.0, 20.0)
    assert found.joules_per_track == pytest.approx(20.0 * 36.0 / 72)
    assert found.above_idle == pytest.approx(15.0 * 36.0 / 72)


def test_without_a_sensor_nothing_is_invented() -> None:
    dark = msgspec.structs.replace(board(40.0), values={}, power_source=None)
    assert energy(dark) == "energy: no sensor of power here"
    blind = msgspec.structs.replace(board(40.0), values={"watts": [None] * len(board(40.0).seconds)})
    assert isinstance(energy(blind), str)


def test_a_device_that_slows_down_is_seen() -> None:
    steady = msgspec.structs.replace(board(100.0), finished=[2.0 + i for i in range(100)], count=100)
    assert kept(steady) == pytest.approx(1.0)
    slowing = msgspec.structs.replace(steady, finished=[2.0 + 100 * (i / 100) ** 2 for i in range(100)])
    assert kept(slowing) is not None and kept(slowing) < 0.5  # type: ignore[operator]
    middle, rates = throughput_over_time(steady, 10)
    assert len(middle) == 10 and rates == pytest.approx([60.0] * 10)
