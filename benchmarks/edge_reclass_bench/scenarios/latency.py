"""``stage`` and ``single-stream``: one track after another, all subjects taking turns.

A pass is one subject over all tracks, in an order that is drawn anew for every pass. After its warm-up each subject has
passes until it has met both minima; whose turn it is follows from how far each has come (``clocks.next_turn``), so that
all of them are spread over the whole run. The very first pass of the cascade, on stages that have just been opened, is
kept apart as ``cold``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from edge_reclass.verdict import StageReport, Verdict
from edge_reclass_bench.clocks import Goal, next_turn
from edge_reclass_bench.scenarios.context import Collector, Context, Key, Outcome
from edge_reclass_bench.watch import Watch

__all__ = ["Classifier", "Latency", "Taken", "measure_latency", "one_pass", "parts_of", "stage_of"]

SINGLE = "single:"


class Classifier(Protocol):
    """What is measured: a cascade, or in tests something that tells its own time."""

    def classify(self, path: Path) -> Verdict:
        """See ``Cascade.classify``."""


class Taken:
    """One pass: for each track its number, its verdict, and what it took in seconds, and in those of all processors."""

    def __init__(self) -> None:
        self.tracks: list[int] = []
        self.verdicts: list[Verdict] = []
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    def answered(self) -> Iterator[tuple[int, Verdict, float, float]]:
        """Those with an answer about the music's genre."""
        for row in zip(self.tracks, self.verdicts, self.seconds, self.cpu, strict=True):
            if row[1].status == "ok":
                yield row


@dataclass
class Latency(Outcome):
    """``verdicts[subject][i]`` is the first verdict on track ``i``."""

    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)


@dataclass
class _Subject:
    name: str
    classifier: Classifier
    goal: Goal
    watch: Watch
    passes: int = 0
    warm_up: int = 0


def stage_of(subject: str) -> str | None:
    """The stage that decides in ``single:STAGE``; None for other subjects."""
    return subject.removeprefix(SINGLE) if subject.startswith(SINGLE) else None


def measure_latency(context: Context, subjects: Mapping[str, Classifier], scenarios: Sequence[str]) -> Latency:
    """Measure ``subjects`` for those of the scenarios ``stage`` and ``single-stream`` that are among ``scenarios``.

    The first subject is the one that gets a cold pass, if ``single-stream`` is wanted.
    """
    settings, paths = context.settings, context.paths
    shuffle = random.Random(settings.seed)
    samples = _Samples(scenarios)
    result = Latency()
    queue = [
        _Subject(name, classifier, Goal(settings.min_count, settings.min_seconds), context.watch())
        for name, classifier in subjects.items()
    ]
    for i, subject in enumerate(queue):
        cold = i == 0 and "single-stream" in scenarios
        for number in range(max(settings.warm_up, int(cold), 1)):
            # At least one: the verdicts are needed, and a first pass is never a warm one.
            taken = one_pass(context, subject.classifier, range(len(paths)))
            if number == 0:
                result.verdicts[subject.name] = taken.verdicts
                if cold:
                    samples.add_whole(subject.name, taken, 0, "cold")
            subject.warm_up += 1
        context.say(f"{subject.name}: warmed up with {subject.warm_up} × {len(paths)} tracks")
    changed: dict[str, set[int]] = {}
    while (turn := next_turn([subject.goal for subject in queue])) is not None:
        subject = queue[turn]
        order = list(range(len(paths)))
        shuffle.shuffle(order)
        with subject.watch:
            taken = one_pass(context, subject.classifier, order)
        samples.add(subject.name, taken, subject.passes)
        first = result.verdicts[subject.name]
        for track, verdict in zip(taken.tracks, taken.verdicts, strict=True):
            if (verdict.genre, verdict.decided_by) != (first[track].genre, first[track].decided_by):
                changed.setdefault(subject.name, set()).add(track)
        subject.passes += 1
        subject.goal.add(len(paths), sum(taken.seconds))
    for subject in queue:
        context.say(f"{subject.name}: {subject.passes} passes, {subject.goal.seconds:.1f} s")
        scenario = "stage" if stage_of(subject.name) and "stage" in scenarios else "single-stream"
        result.runs.append(
            subject.watch.run(
                scenario,
                subject.name,
                warm_up=subject.warm_up,
                passes=subject.passes,
                count=subject.goal.count,
                notes=["host peak is of a process that holds every stage; cold-start has the cascade's own"],
            )
        )
    result.warnings += [
        f"{name}: {len(tracks)} of {len(paths)} tracks changed their verdict between passes"
        for name, tracks in changed.items()
    ]
    result.measures = samples.collector.measures(settings)
    return result


def one_pass(context: Context, classifier: Classifier, order: Sequence[int]) -> Taken:
    """Classify the tracks in this order; nothing is done between them but to keep what came."""
    taken = Taken()
    clock, cpu_clock, paths = context.clock, context.cpu_clock, context.paths
    for track in order:
        path = paths[track]
        cpu_began = cpu_clock()
        began = clock()
        verdict = classifier.classify(path)
        seconds = clock() - began
        taken.cpu.append(cpu_clock() - cpu_began)
        taken.tracks.append(track)
        taken.verdicts.append(verdict)
        taken.seconds.append(seconds)
    return taken


class _Samples:
    """Takes verdicts apart. Only verdicts with an answer (``ok``) give samples."""

    def __init__(self, scenarios: Sequence[str]) -> None:
        self.collector = Collector()
        self._stage, self._stream = "stage" in scenarios, "single-stream" in scenarios

    def add(self, subject: str, taken: Taken, number: int) -> None:
        """One warm pass."""
        if self._stream:
            self.add_whole(subject, taken, number, "warm")
        stage = stage_of(subject)
        if stage is None or not self._stage:
            return
        for track, verdict, _, _ in taken.answered():
            self._put(Key("stage", subject, "decode"), verdict.decode_milliseconds or 0.0, number, track)
            for name, clock, milliseconds in parts_of(verdict.stages[-1]):
                self._put(Key("stage", subject, name, stage, clock=clock), milliseconds, number, track)

    def add_whole(self, subject: str, taken: Taken, number: int, phase: Literal["cold", "warm"]) -> None:
        """Whole tracks, and for the cascade what its stages took within."""
        for track, verdict, seconds, cpu in taken.answered():
            whole, decode = seconds * 1e3, verdict.decode_milliseconds or 0.0
            self._put(Key("single-stream", subject, "track", phase=phase), whole, number, track)
            self._put(Key("single-stream", subject, "cpu", phase=phase), cpu * 1e3, number, track)
            if stage_of(subject) is not None:
                continue
            self._put(Key("single-stream", subject, "decode", phase=phase), decode, number, track)
            inside = {report.name: _total(report) for report in verdict.stages}
            for stage, milliseconds in inside.items():
                self._put(Key("single-stream", subject, "total", stage, phase), milliseconds, number, track)
            rest = whole - decode - sum(inside.values())
            self._put(Key("single-stream", subject, "other", phase=phase), rest, number, track)

    def _put(self, key: Key, value: float, number: int, track: int) -> None:
        self.collector.add(key, value, number, track)


def parts_of(report: StageReport) -> list[tuple[str, Literal["host", "device"], float]]:
    """Name, clock and milliseconds of a stage's parts, then ``other`` (what no part explains) and ``total``.

    A stage's total holds its policy decision too, so that stages and decode add up to the track.
    """
    parts = [(part.name, part.clock, part.milliseconds) for part in report.parts]
    total = _total(report)
    explained = sum(milliseconds for _, clock, milliseconds in parts if clock == "host")
    return [*parts, ("other", "host", total - explained), ("total", "host", total)]


def _total(report: StageReport) -> float:
    return report.milliseconds + sum(part.milliseconds for part in report.parts if part.name == "policy")
