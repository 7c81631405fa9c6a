"""What every scenario is given, and how it hands back samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from edge_reclass.bundle import Bundle
from edge_reclass.cascade import Options, Policy
from edge_reclass_bench.clocks import Clock, perf_counter, process_time
from edge_reclass_bench.record import Absent, Measure, Run, Settings
from edge_reclass_bench.statistics import summarise
from edge_reclass_bench.watch import Sensors, Watch

__all__ = ["Collector", "Context", "Key", "Outcome"]


class Key(NamedTuple):
    """Which measure a sample belongs to; see :class:`Measure`."""

    scenario: str
    subject: str
    part: str
    stage: str | None = None
    phase: Literal["cold", "warm"] = "warm"
    clock: Literal["host", "device"] = "host"
    unit: Literal["ms", "s", "tracks/min"] = "ms"
    better: Literal["lower", "higher"] = "lower"


@dataclass
class _Column:
    samples: list[float] = field(default_factory=list)
    tracks: list[int] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)


class Collector:
    """Gathers samples by measure, in the order in which the measures were first met."""

    def __init__(self) -> None:
        self._columns: dict[Key, _Column] = {}

    def add(self, key: Key, value: float, number: int, track: int | None = None) -> None:
        """One sample of pass ``number``; either all or none of a measure's samples have a track."""
        column = self._columns.setdefault(key, _Column())
        column.samples.append(round(value, 6))
        column.passes.append(number)
        if track is not None:
            column.tracks.append(track)

    def measures(self, settings: Settings) -> list[Measure]:
        """The measures with their summaries."""
        return [
            Measure(
                scenario=key.scenario,
                subject=key.subject,
                stage=key.stage,
                part=key.part,
                phase=key.phase,
                clock=key.clock,
                unit=key.unit,
                better=key.better,
                samples=column.samples,
                tracks=column.tracks,
                passes=column.passes,
                summary=summarise(
                    column.samples, column.tracks, column.passes, seed=settings.seed, resamples=settings.resamples
                ),
            )
            for key, column in self._columns.items()
        ]


@dataclass(frozen=True)
class Context:
    """One ``bench run``.

    ``policy`` is the one in question, ``paths`` are the tracks in the record's order; ``say`` tells people how far it
    is. ``sensors`` reads the machine's; None where a run must not look (tests).
    """

    bundle: Bundle
    policy: Policy
    device: str
    options: Options
    paths: Sequence[Path]
    settings: Settings
    processes: int = 7
    sensors: Sensors | None = None
    clock: Clock = perf_counter
    cpu_clock: Clock = process_time
    say: Callable[[str], None] = lambda _: None

    def watch(self) -> Watch:
        """A new watch with this run's clock and sensors."""
        return Watch(self.sensors, self.clock)


@dataclass
class Outcome:
    """What a scenario gives to the record."""

    measures: list[Measure] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
