"""Puts the events of all processes together, into the parts of a record."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edge_reclass_bench.record import Absent, Answers, Measure, Peer, Run, Series, StageFile, TrackEntry
from edge_reclass_bench.scenarios.context import (
    Event,
    Heard,
    Joined,
    Key,
    Lapped,
    Missing,
    Opened,
    Passed,
    Ran,
    Verdicts,
    Warned,
    Weighed,
)
from edge_reclass_bench.scenarios.latency import stage_of


@dataclass
class _Column:
    samples: list[float] = field(default_factory=list)
    tracks: list[int] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)


class Collector:
    """Takes events; its attributes are what was heard so far.

    Samples that a record cannot hold, such as a time of 0, are left out, and a warning counts them.
    """

    def __init__(self) -> None:
        self._columns: dict[Key, _Column] = {}
        self._runs: dict[tuple[str, str], list[Run]] = {}
        self._warnings: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self.opened: Opened | None = None
        self.verdicts: dict[str, list[dict[str, Any]]] = {}
        self._series: dict[tuple[str, str, str], Series] = {}
        self.absent: list[Absent] = []
        self.files: list[StageFile] = []
        self.peers: list[Peer] = []
        self.heard: list[float | None] = []

    def add(self, event: Event, process: int) -> None:
        """Take one event of process number ``process``."""
        if isinstance(event, Passed):
            for key, value, track in event.samples:
                self.sample(key, value, event.number, process, track)
        elif isinstance(event, Verdicts):
            first = self.verdicts.setdefault(event.subject, event.verdicts)
            said = [[(v["genre"], v["decided_by"]) for v in each] for each in (first, event.verdicts)]
            if changed := sum(one != other for one, other in zip(*said, strict=True)):
                what = f"{changed} of {len(first)} tracks got another verdict in another process"
                self._warnings[f"{event.subject}: {what}"] += 1
        elif isinstance(event, Heard):
            self.heard = event.seconds
        elif isinstance(event, Joined):
            self.peers += [] if any(peer.name == event.peer.name for peer in self.peers) else [event.peer]
        elif isinstance(event, Opened):
            self.opened = self.opened or event
        elif isinstance(event, Lapped):
            more = event.series
            before = self._series.get(name := (more.scenario, more.subject, more.phase))
            self._series[name] = more if before is None else _longer(before, more)
        elif isinstance(event, Ran):
            self._runs.setdefault((event.run.scenario, event.run.subject), []).append(event.run)
        elif isinstance(event, Weighed):
            self.files.append(event.file)
        elif isinstance(event, Missing):
            self.absent += [] if event.absent in self.absent else [event.absent]
        elif isinstance(event, Warned):
            self._warnings[event.text] += 1

    def sample(self, key: Key, value: float, number: int, process: int, track: int | None = None) -> None:
        """One sample of pass ``number``; either all or none of a measure's samples have a track."""
        value = round(value, 6)
        if not math.isfinite(value) or (value <= 0 and key.part != "other"):
            self._left_out[key.name] += 1
            return
        column = self._columns.setdefault(key, _Column())
        column.samples.append(value)
        column.passes.append(number)
        column.processes.append(process)
        if track is not None:
            column.tracks.append(track)

    @property
    def anything(self) -> bool:
        """Whether something was measured that is worth keeping."""
        return bool(self._columns or self._series or self.files)

    @property
    def measures(self) -> list[Measure]:
        """In the order in which they were first met."""
        return [Measure(**key._asdict(), **vars(column)) for key, column in self._columns.items()]

    @property
    def series(self) -> list[Series]:
        """One per scenario, subject and phase, of all laps."""
        return list(self._series.values())

    @property
    def runs(self) -> list[Run]:
        """One per scenario and subject, over all processes."""
        return [_together(runs) for runs in self._runs.values()]

    @property
    def warnings(self) -> list[str]:
        """Each once, with how many processes had it."""
        said = [text if count == 1 else f"{text} ({count} processes)" for text, count in self._warnings.items()]
        lost = "samples are no number above 0, too short for the clock or measured wrongly, and were left out"
        return said + [f"{name}: {count} {lost}" for name, count in self._left_out.items()]

    def entries(self, names: list[str], labels: list[str | None]) -> list[TrackEntry]:
        """The tracks, with the cascade's verdicts as far as there are any."""
        verdicts = self.verdicts.get("cascade")
        if verdicts is None:
            heard = self.heard or [None] * len(names)
            return [
                TrackEntry(name=name, label=label, status=None if seconds is None else "ok", seconds=seconds)
                for name, label, seconds in zip(names, labels, heard, strict=True)
            ]
        return [
            TrackEntry(
                name=name,
                label=label,
                status=verdict["status"],
                genre=verdict["genre"],
                decided_by=verdict["decided_by"],
                seconds=max((report["excerpt"]["seconds"] for report in verdict["stages"] or ()), default=None),
                entered=[report["name"] for report in verdict["stages"] or ()],
                windows=[(w["heard"], w["of"]) for report in verdict["stages"] or () if (w := report["windows"])],
            )
            for name, label, verdict in zip(names, labels, verdicts, strict=True)
        ]

    def answers(self, genres: list[str], needs: dict[str, tuple[str, ...]]) -> list[Answers]:
        """What every subject said; of single stages their probabilities, which are the scores of their policy."""
        found = []
        for subject, verdicts in self.verdicts.items():
            stage = stage_of(subject)
            rows: list[list[float] | None] | None = None
            if stage is not None:
                rows = []
                for verdict in verdicts:
                    scores = {score["genre"]: score["score"] for score in verdict["top"] or ()}
                    rows.append([scores[genre] for genre in genres] if verdict["status"] == "ok" else None)
            found.append(
                Answers(
                    subject=subject,
                    genres=[verdict["genre"] if verdict["status"] == "ok" else None for verdict in verdicts],
                    probabilities=rows,
                    needs=list(needs[stage]) if stage is not None else [],
                    signal=None if stage is None or self.opened is None else self.opened.signals[stage],
                )
            )
        return found


def _longer(first: Series, more: Series) -> Series:
    nothing = [None] * len(first.seconds), [None] * len(more.seconds)  # a sensor that was not always there
    names = dict.fromkeys((*first.values, *more.values))
    return msgspec.structs.replace(
        first,
        seconds=first.seconds + more.seconds,
        values={n: [*first.values.get(n, nothing[0]), *more.values.get(n, nothing[1])] for n in names},
        ended=more.ended,
        count=first.count + more.count,
        finished=first.finished + more.finished,
    )


def _together(runs: list[Run]) -> Run:
    """Sums of what adds up, the largest of peaks; what one process does not know is unknown."""
    first, wall = runs[0], sum(run.wall_seconds for run in runs)
    known = [run.other_cpu for run in runs if run.other_cpu is not None]
    others = [o * run.wall_seconds for o, run in zip(known, runs, strict=False)] if len(known) == len(runs) else []
    cpu = [run.cpu_seconds for run in runs if run.cpu_seconds is not None]
    switches = [run.involuntary_switches for run in runs if run.involuntary_switches is not None]
    return msgspec.structs.replace(
        first,
        wall_seconds=wall,
        passes=sum(run.passes for run in runs),
        count=sum(run.count for run in runs),
        failed=sum(run.failed for run in runs),
        cpu_seconds=sum(cpu) if len(cpu) == len(runs) else None,
        other_cpu=sum(others) / wall if others and wall > 0 else None,
        involuntary_switches=sum(switches) if len(switches) == len(runs) else None,
        host_peak_bytes=max((run.host_peak_bytes for run in runs if run.host_peak_bytes is not None), default=None),
        device_peak_bytes=max(
            (run.device_peak_bytes for run in runs if run.device_peak_bytes is not None), default=None
        ),
        throttled=sorted({reason for run in runs for reason in run.throttled}),
        notes=list(dict.fromkeys(note for run in runs for note in run.notes)),
    )
