"""``stage`` and ``single-stream``: one track after another, all subjects taking turns.

A pass is one subject over all tracks, in an order that is drawn anew for every pass. After its warm-up each subject has
passes until it has met its limits; whose turn it is follows from how far each has come (``clocks.next_turn``), so that
all of them are spread over the whole process. The very first track of the cascade, on stages that have just been
opened, is kept apart as ``cold``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from edge_reclass.verdict import StageReport, Verdict
from edge_reclass_bench.clocks import Goal, next_turn
from edge_reclass_bench.scenarios.context import Context, Event, Key, Passed, Ran, Sample, Verdicts, Warned
from edge_reclass_bench.watch import Watch

SINGLE = "single:"


class Classifier(Protocol):
    """What is measured: a cascade, or in tests something that tells its own time."""

    def classify(self, path: Path) -> Verdict:
        """See ``Cascade.classify``."""


@dataclass
class Taken:
    """One pass: for each track its number, its verdict, and what it took in seconds, and in those of all processors."""

    rows: list[tuple[int, Verdict, float, float]] = field(default_factory=list)

    def answered(self) -> Iterator[tuple[int, Verdict, float, float]]:
        """Those with an answer about the music's genre."""
        return (row for row in self.rows if row[1].status == "ok")

    @property
    def seconds(self) -> float:
        """What all tracks took together."""
        return sum(row[2] for row in self.rows)


@dataclass
class _Subject:
    name: str
    classifier: Classifier
    goal: Goal
    watch: Watch
    first: list[Verdict] = field(default_factory=list)
    answered: int = 0
    changed: set[int] = field(default_factory=set)


def stage_of(subject: str) -> str | None:
    """The stage that decides in ``single:STAGE``; None for other subjects."""
    return subject.removeprefix(SINGLE) if subject.startswith(SINGLE) else None


def measure_latency(context: Context, subjects: Mapping[str, Classifier], scenarios: Sequence[str]) -> Iterator[Event]:
    """Measure ``subjects`` for those of ``stage`` and ``single-stream`` that are among ``scenarios``.

    The first subject is the one whose first track is ``cold``, if ``single-stream`` is wanted. Where neither scenario
    is wanted, the warm-up alone is done, for the verdicts; the same is true of a subject of which neither has samples.
    """
    limits, paths = context.limits, context.paths
    began, shuffle = context.clock(), random.Random(context.seed)
    queue = [
        _Subject(name, classifier, Goal(limits.min_passes), context.watch()) for name, classifier in subjects.items()
    ]
    for i, subject in enumerate(queue):
        for number in range(max(1, limits.warm_up)):
            # At least one: the verdicts are needed, and a first pass is never a warm one.
            taken = one_pass(context, subject.classifier, range(len(paths)))
            if number == 0:
                subject.first = [verdict for _, verdict, _, _ in taken.rows]
                yield Verdicts(subject.name, [verdict.to_dict() for verdict in subject.first])
                if i == 0 and "single-stream" in scenarios:
                    cold = Taken(list(taken.answered())[:1])
                    yield Passed(subject.name, 0, cold.seconds, list(whole(subject.name, cold, "cold")))
    if "single-stream" not in scenarios:
        queue = [subject for subject in queue if "stage" in scenarios and stage_of(subject.name)]
    while True:
        hurry = context.clock() - began > limits.most_seconds
        if (turn := next_turn([subject.goal for subject in queue], hurry)) is None:
            break
        subject = queue[turn]
        order = list(range(len(paths)))
        shuffle.shuffle(order)
        with subject.watch:
            taken = one_pass(context, subject.classifier, order)
        samples = [*whole(subject.name, taken)] if "single-stream" in scenarios else []
        samples += parts(subject.name, taken) if "stage" in scenarios else []
        yield Passed(subject.name, subject.goal.passes, taken.seconds, samples)
        subject.answered += sum(1 for _ in taken.answered())
        subject.changed |= {
            track
            for track, verdict, _, _ in taken.rows
            if (verdict.genre, verdict.decided_by) != (subject.first[track].genre, subject.first[track].decided_by)
        }
        subject.goal.add()
    for subject in queue:
        scenario = "stage" if stage_of(subject.name) and "stage" in scenarios else "single-stream"
        run = subject.watch.run(
            scenario,
            subject.name,
            warm_up=max(1, limits.warm_up),
            passes=subject.goal.passes,
            count=subject.answered,
            failed=subject.goal.passes * len(paths) - subject.answered,
            notes=[
                "host peak is of a process that holds every stage; cold-start has the cascade's own",
                *subject.goal.notes(),
            ],
        )
        yield Ran(run)
        if subject.changed:
            what = f"{len(subject.changed)} of {len(paths)} tracks changed their verdict between passes"
            yield Warned(f"{subject.name}: {what}")


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
        taken.rows.append((track, verdict, seconds, cpu_clock() - cpu_began))
    return taken


def whole(subject: str, taken: Taken, phase: Literal["cold", "warm"] = "warm") -> Iterator[Sample]:
    """Samples of whole tracks; and for what has an exit, what its stages took within. Only tracks with an answer."""
    for track, verdict, seconds, cpu in taken.answered():
        total, decode = seconds * 1e3, verdict.decode_milliseconds or 0.0
        yield Sample(Key("single-stream", subject, "track", phase=phase), total, track)
        yield Sample(Key("single-stream", subject, "cpu", phase=phase), cpu * 1e3, track)
        if stage_of(subject) is not None:
            continue
        yield Sample(Key("single-stream", subject, "decode", phase=phase), decode, track)
        inside = {report.name: _total(report) for report in verdict.stages}
        for stage, milliseconds in inside.items():
            yield Sample(Key("single-stream", subject, "total", stage, phase), milliseconds, track)
        rest = total - decode - sum(inside.values())
        yield Sample(Key("single-stream", subject, "other", phase=phase), rest, track)


def parts(subject: str, taken: Taken) -> Iterator[Sample]:
    """Samples of a single stage, part by part."""
    stage = stage_of(subject)
    for track, verdict, _, _ in taken.answered() if stage is not None else ():
        yield Sample(Key("stage", subject, "decode"), verdict.decode_milliseconds or 0.0, track)
        for name, clock, milliseconds in parts_of(verdict.stages[-1]):
            yield Sample(Key("stage", subject, name, stage, clock=clock), milliseconds, track)


def parts_of(report: StageReport) -> list[tuple[str, Literal["host", "device"], float]]:
    """Name, clock and milliseconds of a stage's parts, then ``other`` (what no part explains) and ``total``.

    A stage's total holds its policy decision too, so that stages and decode add up to the track.
    """
    taken = [(part.name, part.clock, part.milliseconds) for part in report.parts]
    total = _total(report)
    explained = sum(milliseconds for _, clock, milliseconds in taken if clock == "host")
    return [*taken, ("other", "host", total - explained), ("total", "host", total)]


def _total(report: StageReport) -> float:
    return report.milliseconds + sum(part.milliseconds for part in report.parts if part.name == "policy")
