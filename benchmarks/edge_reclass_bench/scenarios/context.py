"""What every scenario is given, and the events that it gives while it measures.

Scenarios run in processes of their own (``worker.py``), which write these events as lines of JSON while they measure:
what was measured by then is kept, whatever happens to the process. ``collector.py`` puts them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from edge_reclass.bundle import Bundle
from edge_reclass.cascade import Options, Policy
from edge_reclass.host import usable_cpus
from edge_reclass_bench.clocks import Clock, perf_counter, process_time
from edge_reclass_bench.record import Absent, Measure, Peer, Run, Series, StageFile, Unit
from edge_reclass_bench.watch import INTERVAL, Sensors, Watch


class Key(NamedTuple):
    """Which measure a sample belongs to; see :class:`Measure`."""

    scenario: str
    subject: str
    part: str
    stage: str | None = None
    phase: Literal["cold", "warm"] = "warm"
    clock: Literal["host", "device"] = "host"
    unit: Unit = "ms"
    better: Literal["lower", "higher"] = "lower"

    @property
    def name(self) -> str:
        """How the record names the measure."""
        return Measure(**self._asdict(), samples=[], passes=[], processes=[]).key


class Sample(NamedTuple):
    """One number, and the track that it is of."""

    key: Key
    value: float
    track: int | None = None


class Opened(Struct, tag=True, frozen=True):
    """The bundle was opened: what runs where. ``signals`` names excerpt and rate of each stage."""

    device: str
    notes: list[str]
    precisions: dict[str, str]
    engines: dict[str, str]
    signals: dict[str, str]


class Verdicts(Struct, tag=True, frozen=True):
    """A subject's first verdicts, one per track, as ``Verdict.to_dict``."""

    subject: str
    verdicts: list[dict[str, Any]]


class Heard(Struct, tag=True, frozen=True):
    """What is measured of each track where nothing is classified: its seconds, None where it cannot be decoded."""

    seconds: list[float | None]


class Joined(Struct, tag=True, frozen=True):
    """Another program takes part, or cannot."""

    peer: Peer


class Passed(Struct, tag=True, frozen=True):
    """One pass of a subject over the tracks, or one block, is over. ``seconds`` is what it took."""

    subject: str
    number: int
    seconds: float
    samples: list[Sample]


class Lapped(Struct, tag=True, frozen=True):
    """More of a series: what was read and answered since the last one of its scenario, subject and phase."""

    series: Series


class Ran(Struct, tag=True, frozen=True):
    """A subject of a scenario is done."""

    run: Run


class Weighed(Struct, tag=True, frozen=True):
    """What one precision of a stage weighs, and how often it agrees."""

    file: StageFile


class Missing(Struct, tag=True, frozen=True):
    """Something cannot be had here."""

    absent: Absent


class Warned(Struct, tag=True, frozen=True):
    """Why a sceptic should not trust a figure."""

    text: str


class Broke(Struct, tag=True, frozen=True):
    """The process cannot go on: the error, and the exit code that it means."""

    message: str
    exit_code: int


Event = Opened | Verdicts | Heard | Joined | Passed | Lapped | Ran | Weighed | Missing | Warned | Broke


@dataclass(frozen=True)
class Limits:
    """How long a process measures.

    Each subject has ``min_passes`` passes, unless ``most_seconds`` of the process are over: then at least one.
    """

    warm_up: int = 1
    min_passes: int = 3
    most_seconds: float = float("inf")


@dataclass(frozen=True)
class Context:
    """One process of a ``bench run``.

    ``policy`` is the one in question, ``paths`` are the tracks in the record's order. ``sensors`` reads the machine's;
    None where a run must not look (tests).
    """

    bundle: Bundle
    policy: Policy
    device: str
    options: Options
    paths: Sequence[Path]
    limits: Limits
    seed: int = 0
    sensors: Sensors | None = None
    clock: Clock = perf_counter
    cpu_clock: Clock = process_time

    def watch(self, interval: float = INTERVAL) -> Watch:
        """A new watch with this run's clock and sensors, which are read every ``interval`` seconds."""
        return Watch(self.sensors, self.clock, interval=interval)

    @property
    def threads(self) -> int:
        """CPU threads of one track."""
        return usable_cpus() if self.options.threads is None else self.options.threads
