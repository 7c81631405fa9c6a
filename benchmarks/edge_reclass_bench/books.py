"""What follows from a record: summaries, who leaves the cascade where, what that costs and saves, energy, targets.

Nothing of this is stored; every figure of a table or a page comes from here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge_reclass_bench.record import Answers, Measure, Record, TrackEntry
from edge_reclass_bench.statistics import (
    Floats,
    accuracy,
    bootstrap_rows,
    centres,
    macro_f1,
    paired_ratio,
    summarise,
    tables,
    wilson,
)
from edge_reclass_bench.values import Estimate, Proportion, Summary


@dataclass(frozen=True)
class StageFlow:
    """One step of the cascade: how many tracks entered, how many left decided, and what its stage costs.

    ``windows``: after so many of the stage's; None: after all. What it costs stands at the stage's last step:
    ``alone`` is the stage's mean cost per track in milliseconds, over all tracks (without decode); ``inside`` is the
    mean over the tracks that entered it within the cascade; None where it was not measured.
    """

    stage: str
    windows: int | None
    name: str
    entered: int
    exited: int
    reach: Proportion
    alone: Estimate | None
    inside: Estimate | None


@dataclass(frozen=True)
class Costs:
    """The cascade's cost per track in milliseconds: expected from its parts, and measured.

    ``expected`` = decode + Σ reach(stage) × cost(stage alone), means over all tracks: it takes the tracks that go on to
    be as costly as all others; reach is the share of a stage's windows that are heard. ``replayed`` adds up, track by
    track, the stages that the track entered, as far as it heard them. ``measured`` is
    the cascade end to end. ``residual`` is measured − replayed, paired by track: what the cascade itself costs.
    """

    decode: Estimate
    expected: Estimate
    replayed: Estimate
    measured: Estimate
    residual: Estimate


@dataclass(frozen=True)
class Way:
    """One way to classify the same tracks: the cascade, the full ensemble, or stages up to a single one.

    ``milliseconds`` is the mean per track, ``relative`` the ratio to the full ensemble (paired by track).
    ``agreement`` is with the full ensemble's genres. ``accuracy`` and ``macro_f1`` are there where labels are.
    """

    subject: str
    name: str
    milliseconds: Estimate
    relative: Estimate | None
    agreement: Proportion | None
    accuracy: Proportion | None
    macro_f1: Estimate | None


def _heard(track: TrackEntry, stage: str) -> tuple[int, int]:
    """How many windows an entered ``stage`` heard, and of how many; records without windows heard all at once."""
    return track.windows[track.entered.index(stage)] if track.windows else (1, 1)


def _share(track: TrackEntry, stage: str) -> float:
    """How much of a stage a track went through: 0 where it did not enter it."""
    if stage not in track.entered:
        return 0.0
    heard, of = _heard(track, stage)
    return heard / of


class Books:
    """A record, and what follows from it."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._by_key = {measure.key: measure for measure in record.measures}

    @cached_property
    def summaries(self) -> Mapping[str, Summary]:
        """The summary of every measure, by its key."""
        return {
            key: summarise(m.samples, m.tracks, m.passes, m.processes, seed=self.record.settings.seed)
            for key, m in self._by_key.items()
        }

    def measure(self, **wanted: str | None) -> Measure | None:
        """The first measure with these properties; see :meth:`Record.find`."""
        return next(self.record.find(**wanted), None)

    def mean(self, **wanted: str | None) -> Estimate | None:
        """The mean of the first measure with these properties."""
        found = self.measure(**wanted)
        return None if found is None else self.summaries[found.key].mean

    @cached_property
    def answered(self) -> list[int]:
        """The tracks that the cascade gave a genre."""
        return [i for i, track in enumerate(self.record.tracks) if track.status == "ok"]

    @cached_property
    def statuses(self) -> dict[str, int]:
        """How many tracks have which status."""
        return dict(Counter(track.status or "not tried" for track in self.record.tracks))

    @property
    def stages(self) -> list[str]:
        """The stages of the policy, in running order."""
        return self.record.subject.policy.stages

    @cached_property
    def flow(self) -> list[StageFlow]:
        """Every step in running order; none where no cascade ran."""
        tracks = self.record.tracks
        found = []
        steps = self.record.subject.policy.steps if any(tracks[i].entered for i in self.answered) else []
        for number, step in enumerate(steps, 1):
            name, last = step.after, step.after not in {later.after for later in steps[number:]}
            heard = {i: _heard(tracks[i], name) for i in self.answered if name in tracks[i].entered}
            early = {s.windows for s in steps if s.after == name and s.windows is not None}
            before = early - {step.windows} if last else early
            left = {i: h for i, (h, of) in heard.items() if tracks[i].decided_by == name and h < of and h in before}
            if last:
                entered = [i for i in heard if i not in left]
                exited = sum(tracks[i].decided_by == name for i in entered)
            else:
                entered = [i for i, (h, _) in heard.items() if h > (step.windows or 0) or left.get(i) == step.windows]
                exited = sum(left.get(i) == step.windows for i in entered)
            after = f", {step.windows or 'all'} window{'s' * (step.windows != 1)}" if early else ""
            found.append(
                StageFlow(
                    stage=name,
                    windows=step.windows,
                    name=name + after,
                    entered=len(entered),
                    exited=exited,
                    reach=wilson(len(entered), len(self.answered)),
                    alone=self.mean(scenario="stage", subject=f"single:{name}", stage=name, part="total", clock="host")
                    if last
                    else None,
                    inside=self.mean(scenario="single-stream", subject="cascade", stage=name, part="total")
                    if last
                    else None,
                )
            )
        return found

    def medians(self, **wanted: str | None) -> dict[int, float]:
        """For each track, the mean over processes of its medians over passes; empty where it was not measured."""
        found = self.measure(**wanted)
        if found is None:
            return {}
        cells, tracks = tables(found.samples, found.tracks, found.passes, found.processes)
        return dict(zip(tracks, centres(cells).mean(axis=0).tolist(), strict=True)) if tracks else {}

    @cached_property
    def costs(self) -> Costs | None:
        """All over the tracks on which everything was measured; None where there are none."""
        whole = self.medians(scenario="single-stream", subject="cascade", part="track")
        decode = self.medians(scenario="single-stream", subject="cascade", part="decode")
        alone = {
            name: self.medians(scenario="stage", subject=f"single:{name}", stage=name, part="total", clock="host")
            for name in self.stages
        }
        rows = [i for i in self.answered if i in whole and i in decode and all(i in each for each in alone.values())]
        if not rows:
            return None
        entered = np.array([[_share(self.record.tracks[i], name) for name in self.stages] for i in rows])
        stages = np.array([[alone[name][i] for name in self.stages] for i in rows])
        cells = np.column_stack(([decode[i] for i in rows], [whole[i] for i in rows], entered, stages))
        count = len(self.stages)

        def replayed(drawn: Floats) -> Floats:
            paid = (drawn[..., 2 : 2 + count] * drawn[..., 2 + count :]).sum(axis=-1)
            mean: Floats = (drawn[..., 0] + paid).mean(axis=-1)
            return mean

        def expected(drawn: Floats) -> Floats:
            means = drawn.mean(axis=-2)
            cost: Floats = means[..., 0] + (means[..., 2 : 2 + count] * means[..., 2 + count :]).sum(axis=-1)
            return cost

        seed = self.record.settings.seed
        return Costs(
            decode=bootstrap_rows(cells, lambda drawn: drawn[..., 0].mean(axis=-1), seed),
            expected=bootstrap_rows(cells, expected, seed),
            replayed=bootstrap_rows(cells, replayed, seed),
            measured=bootstrap_rows(cells, lambda drawn: drawn[..., 1].mean(axis=-1), seed),
            residual=bootstrap_rows(cells, lambda drawn: drawn[..., 1].mean(axis=-1) - replayed(drawn), seed),
        )

    def _name(self, subject: str, answers: Answers) -> str:
        if not subject.startswith("single:"):
            return {"cascade": "cascade", "ensemble": "every stage, always"}.get(subject, subject)
        stage = subject.removeprefix("single:")
        return " + ".join((*answers.needs, stage)) + (", no exit" if answers.needs else " alone")

    @cached_property
    def ways(self) -> list[Way]:
        """Every subject, on the tracks that all of them answered."""
        record = self.record
        said = {answers.subject: answers for answers in record.answers}
        times = {name: self.medians(scenario="single-stream", subject=name, part="track") for name in said}
        said = {name: answers for name, answers in said.items() if times[name]}
        common = [
            i
            for i in range(len(record.tracks))
            if all(answers.genres[i] is not None and i in times[name] for name, answers in said.items())
        ]
        if not common or not said:
            return []
        judged = [i for i in common if record.tracks[i].label is not None]
        labels = [record.tracks[i].label or "" for i in judged]
        cost = {name: np.array([times[name][i] for i in common]) for name in said}
        reference, seed = said.get("ensemble"), record.settings.seed
        found = []
        for name, answers in said.items():
            genres = [answers.genres[i] or "" for i in judged]
            same = None if reference is None else sum(answers.genres[i] == reference.genres[i] for i in common)
            found.append(
                Way(
                    subject=name,
                    name=self._name(name, answers),
                    milliseconds=bootstrap_rows(cost[name][:, None], lambda drawn: drawn[..., 0].mean(axis=-1), seed),
                    relative=None if reference is None else paired_ratio(cost["ensemble"], cost[name], seed),
                    agreement=None if same is None else wilson(same, len(common)),
                    accuracy=accuracy(genres, labels) if judged else None,
                    macro_f1=macro_f1(genres, labels, seed) if judged else None,
                )
            )
        return found

    def way(self, subject: str) -> Way | None:
        """The way of this subject."""
        return next((way for way in self.ways if way.subject == subject), None)
