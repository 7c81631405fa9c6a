"""Joules of a series of readings, and whether a device keeps its speed. No reading outside of the span counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_reclass_bench.record import Record, Series

FEW_READINGS = 20
"""Fewer within the span give no figure."""
SHORTEST = 30.0
"""Seconds; what a sensor says of less is mostly its past. MLPerf Power asks for 60."""


@dataclass(frozen=True)
class Energy:
    """What one series says. ``above_idle`` is None where idle power was not measured."""

    scenario: str
    source: str
    watts: float
    joules_per_track: float
    idle_watts: float | None
    above_idle: float | None
    seconds: float
    readings: int


def energies(record: Record) -> Iterator[Energy | str]:
    """For every busy series its energy, or in words why there is none."""
    for busy in (series for series in record.series if series.phase == "busy"):
        idle = next((s for s in record.series if s.scenario == busy.scenario and s.phase == "idle"), None)
        yield energy(busy, idle)


def energy(busy: Series, idle: Series | None = None) -> Energy | str:
    """Energy per track, or in words why there is none.

    The trapezoid rule over the readings between the first and the last within the span, scaled to the span: readings
    before and after it are not of it.
    """
    if busy.power_source is None or "watts" not in busy.values:
        return f"{busy.scenario}: no sensor of power here"
    seconds, watts = _within(busy.seconds, busy.values["watts"], busy.began, busy.ended)
    span = busy.ended - busy.began
    if len(seconds) < FEW_READINGS or span < SHORTEST or seconds[0] == seconds[-1]:
        return (
            f"{busy.scenario}: {len(seconds)} readings of power in {span:.1f} s; a figure takes at least "
            f"{FEW_READINGS} in {SHORTEST:.0f} s: raise --{busy.scenario}-seconds"
        )
    if not busy.count:
        return f"{busy.scenario}: no track was answered"
    power = _trapezoid(watts, seconds) / (seconds[-1] - seconds[0])
    idle_watts = None
    if idle is not None and (known := [w for w in idle.values.get("watts", []) if w is not None]):
        idle_watts = float(np.mean(known))
    return Energy(
        scenario=busy.scenario,
        source=busy.power_source,
        watts=power,
        joules_per_track=power * span / busy.count,
        idle_watts=idle_watts,
        above_idle=None if idle_watts is None else (power - idle_watts) * span / busy.count,
        seconds=span,
        readings=len(seconds),
    )


def _within(
    seconds: Sequence[float], values: Sequence[float | None], began: float, ended: float
) -> tuple[list[float], list[float]]:
    pairs = [(s, v) for s, v in zip(seconds, values, strict=True) if v is not None and began <= s <= ended]
    return [s for s, _ in pairs], [v for _, v in pairs]


def _trapezoid(values: Sequence[float], at: Sequence[float]) -> float:
    """Numpy calls it ``trapz`` before 2.0 and ``trapezoid`` from then on."""
    heights, places = np.asarray(values), np.asarray(at)
    return float(((heights[1:] + heights[:-1]) / 2 * np.diff(places)).sum())


def throughput_over_time(series: Series, bins: int = 20) -> tuple[list[float], list[float]]:
    """Middle of each of ``bins`` equal parts of the span, in seconds, and tracks per minute in it."""
    edges = np.linspace(series.began, series.ended, bins + 1)
    counts, _ = np.histogram(series.finished, edges)
    return ((edges[:-1] + edges[1:]) / 2).tolist(), (60 * counts / np.diff(edges)).tolist()


def kept(series: Series) -> float | None:
    """Throughput of the last quarter of the span against the first; None for fewer than 40 tracks."""
    if len(series.finished) < 40:
        return None
    _, rates = throughput_over_time(series, 4)
    return rates[-1] / rates[0] if rates[0] else None
