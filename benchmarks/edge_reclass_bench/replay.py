"""Replaying recorded answers under other policies: no track is classified again.

A stage's answer about a track does not depend on when it is asked, so what a cascade would have said and which stages
it would have entered follows from the stages' probabilities alone, through ``edge_reclass.cascade.decide``. What it
would have cost follows from each stage's measured time on that track, alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reclass.cascade import Answer, Policy, decide
from edge_reclass_bench.record import Record
from edge_reclass_bench.statistics import table

__all__ = ["Costs", "Votes", "costs_of", "exits", "vote"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Costs:
    """Milliseconds per track, each the median over passes.

    ``decode`` float64[tracks], ``stages`` and ``resample`` the same by stage (``resample`` is within ``stages``), and
    ``signals`` the name of each stage's signal. ``tracks`` are the numbers of the tracks in the record.
    """

    tracks: list[int]
    decode: Floats
    stages: Mapping[str, Floats]
    resample: Mapping[str, Floats]
    signals: Mapping[str, str]

    def in_order(self, order: Sequence[str]) -> Floats:
        """float64[tracks, stages]: each stage in this order; what an earlier one has resampled is not paid again."""
        columns, had = [], set()
        for name in order:
            cost = self.stages[name]
            columns.append(cost - self.resample[name] if self.signals[name] in had else cost)
            had.add(self.signals[name])
        return np.stack(columns, axis=1)


def costs_of(record: Record) -> Costs | None:
    """The costs of the tracks on which every stage has an answer and a time; None if there are no such tracks.

    Decode is that of the cascade, or, without ``single-stream``, that of the single stage whose decode costs most.
    """
    if not record.answers:
        return None
    names = [answers.stage for answers in record.answers]
    totals = {name: _medians(record, "stage", f"single:{name}", name, "total") for name in names}
    decode = _medians(record, "single-stream", "cascade", None, "decode")
    if not decode:
        every = [_medians(record, "stage", f"single:{name}", None, "decode") for name in names]
        decode = max(every, key=lambda medians: sum(medians.values()))
    complete = [
        track
        for track in range(len(record.tracks))
        if track in decode
        and all(track in totals[name] for name in names)
        and all(answers.probabilities[track] is not None for answers in record.answers)
    ]
    if not complete:
        return None
    resample = {name: _medians(record, "stage", f"single:{name}", name, "resample") for name in names}
    return Costs(
        tracks=complete,
        decode=np.array([decode[t] for t in complete]),
        stages={name: np.array([totals[name][t] for t in complete]) for name in names},
        resample={name: np.array([resample[name].get(t, 0.0) for t in complete]) for name in names},
        signals={answers.stage: answers.signal for answers in record.answers},
    )


def _medians(record: Record, scenario: str, subject: str, stage: str | None, part: str) -> dict[int, float]:
    for measure in record.find(scenario, subject, part=part, clock="host"):
        if measure.stage == stage:
            cells, tracks = table(measure.samples, measure.tracks, measure.passes)
            return dict(zip(tracks, np.median(cells, axis=1).tolist(), strict=True)) if tracks else {}
    return {}


@dataclass(frozen=True)
class Votes:
    """What a policy would answer after each step: ``genre`` int64 and ``confidence`` float64, [tracks, steps]."""

    genre: Ints
    confidence: Floats


def vote(policy: Policy, probabilities: Mapping[str, Sequence[Sequence[float]]]) -> Votes:
    """The votes of ``policy`` after every step on every track; thresholds play no part.

    ``probabilities[stage][track]`` are the stage's, in genre order.
    """
    count = len(next(iter(probabilities.values())))
    genre = np.zeros((count, len(policy.steps)), np.int64)
    confidence = np.zeros((count, len(policy.steps)))
    for track in range(count):
        answers = [Answer(name, tuple(probabilities[name][track])) for name in policy.stages]
        for step in range(len(policy.steps)):
            decision = decide(policy, answers[: step + 1])
            genre[track, step], confidence[track, step] = decision.genre, decision.confidence
    return Votes(genre, confidence)


def exits(votes: Votes, accepts: Floats) -> Ints:
    """Step at which each track leaves: int64[choices, tracks] for thresholds float64[choices, steps − 1].

    A track leaves at the first step whose confidence is above (strictly) its threshold, else at the last.
    """
    steps = votes.confidence.shape[1]
    if steps == 1:
        return np.zeros((len(accepts), len(votes.confidence)), np.int64)
    above = votes.confidence[None, :, :-1] > accepts[:, None, :]
    left: Ints = np.where(above.any(axis=2), above.argmax(axis=2), steps - 1)
    return left
