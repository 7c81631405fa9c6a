"""Verdicts and labels → the figures of one bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_reclass import Bundle
from edge_reclass.cascade import Policy
from edge_reclass_learn.evaluate.breakdowns import breakdowns
from edge_reclass_learn.evaluate.evenly import evenly
from edge_reclass_learn.evaluate.intervals import Flags, Floats, Numbers, Worth, share, share_of, worth
from edge_reclass_learn.evaluate.record import (
    UNSURE,
    Calibration,
    Confusion,
    ExitStep,
    GenreFigures,
    GenreTracks,
    Judgement,
    ReliabilityBin,
    RiskCoverage,
    RiskPoint,
)
from edge_reclass_learn.evaluate.verdicts import Verdicts
from edge_reclass_learn.hearing.examples import Example

BINS: Final = 15
"""Of the reliability diagram and the calibration error, of equal width."""
MOST_POINTS: Final = 200
"""Of the risk–coverage curve in the record; the area under it is of all tracks."""


@dataclass(frozen=True)
class Answered:
    """What one bundle says of the tracks whose genre it knows; genres are spelled as it spells them.

    labels: the numbers of the tracks' genres, intp[n]
    how: sentences on how it was judged
    folds: of the cross-validation; None: judged as it is
    dealt: the fold of each track, intp[n]
    known: tracks that its heads were fitted on
    missing: genres of the data that it does not know
    """

    name: str
    bundle: Bundle
    policy: Policy
    examples: Sequence[Example]
    labels: Numbers
    verdicts: Verdicts
    how: Sequence[str]
    folds: int | None
    dealt: Numbers
    known: int
    missing: Sequence[GenreTracks]

    @property
    def right(self) -> Flags:
        """Whether each track's genre is found, as every track gets one: bool[n]."""
        return np.asarray(self.verdicts.genre == self.labels)


def judgement(one: Answered, milliseconds: Mapping[int, float], *, seed: int, draws: int) -> Judgement:
    """All figures of one bundle. ``milliseconds``: measured, of a track that stops at a step, by the step's number."""
    names, labels, verdicts = one.bundle.manifest.genres, one.labels, one.verdicts
    groups = [example.group for example in one.examples]
    found = worth(labels, verdicts.genre, groups, len(names), seed=seed, draws=draws)
    sure = ~verdicts.unsure
    return Judgement(
        name=one.name,
        digest=one.bundle.digest,
        policy=one.policy.name,
        judged="as it is" if one.folds is None else "cross-validated",
        how=list(one.how),
        folds=one.folds,
        known_tracks=one.known,
        tracks=len(labels),
        groups=len(set(groups)),
        min_confidence=one.bundle.manifest.min_confidence,
        not_in_bundle=list(one.missing),
        accuracy=found.accuracy,
        balanced=found.balanced,
        macro_f1=found.macro_f1,
        top3=share_of(top(verdicts.scores, labels, 3)),
        unsure=int(verdicts.unsure.sum()),
        accuracy_sure=share(int((verdicts.given == labels)[sure].sum()), int(sure.sum())),
        genres=genre_figures(names, labels, verdicts.genre, groups, found),
        confusion=confusion(names, labels, verdicts),
        calibration=calibration(labels, verdicts),
        risk_coverage=risk_coverage(labels, verdicts, one.bundle.manifest.min_confidence),
        funnel=funnel(labels, verdicts, one.policy, milliseconds, thresholds=one.folds is None),
        breakdowns=breakdowns(one.examples, one.right),
    )


def top(scores: Floats, labels: Numbers, most: int) -> Flags:
    """Whether each label is among the ``most`` highest scores; of equal ones the first in the genres' order counts."""
    return np.asarray((np.argsort(-scores, axis=1, kind="stable")[:, :most] == labels[:, None]).any(axis=1), np.bool_)


def genre_figures(
    names: Sequence[str], labels: Numbers, said: Numbers, groups: Sequence[str], worth: Worth
) -> list[GenreFigures]:
    """The figures of each genre that ``labels`` have; ``worth`` is of the same answers."""
    found, owners = [], np.asarray(groups)
    for genre, f1 in zip(np.unique(labels).tolist(), worth.f1, strict=True):
        own, told = labels == genre, said == genre
        right = int((own & told).sum())
        found.append(
            GenreFigures(
                genre=names[genre],
                tracks=int(own.sum()),
                groups=len(set(owners[own].tolist())),
                found=right,
                said=int(told.sum()),
                precision=share(right, int(told.sum())),
                recall=share_of(said[own] == genre),
                f1=f1,
            )
        )
    return found


def confusion(names: Sequence[str], labels: Numbers, verdicts: Verdicts) -> Confusion:
    """Labels against what is given, unsure included."""
    present = np.unique(labels)
    given = np.where(verdicts.unsure, len(names), verdicts.given)
    counts = np.zeros((len(names), len(names) + 1), np.intp)
    np.add.at(counts, (labels, given), 1)
    rows = counts[present].tolist()
    return Confusion(labels=[names[i] for i in present.tolist()], said=[*names, UNSURE], counts=rows)


def calibration(labels: Numbers, verdicts: Verdicts) -> Calibration:
    """Expected calibration error (Naeini et al., AAAI 2015), Brier's score over the genres (1950), and the bins."""
    right, confidence = labels == verdicts.genre, np.clip(verdicts.confidence, 0.0, 1.0)
    number = np.clip(np.ceil(confidence * BINS).astype(np.intp) - 1, 0, BINS - 1)
    bins, error = [], 0.0
    for i in range(BINS):
        own = number == i
        mean = float(confidence[own].mean()) if own.any() else None
        accuracy = share(int(right[own].sum()), int(own.sum()))
        if mean is not None and accuracy is not None:
            error += abs(mean - accuracy.value) * int(own.sum()) / len(labels)
        edges = {"low": i / BINS, "high": (i + 1) / BINS}
        bins.append(ReliabilityBin(**edges, tracks=int(own.sum()), confidence=mean, accuracy=accuracy))
    wanted = np.zeros_like(verdicts.scores)
    wanted[np.arange(len(labels)), labels] = 1.0
    brier = float(((verdicts.scores - wanted) ** 2).sum(axis=1).mean())
    return Calibration(ece=error, brier=brier, bins=bins)


def risk_coverage(labels: Numbers, verdicts: Verdicts, min_confidence: float | None) -> RiskCoverage:
    """Risk over coverage and the area under it (Geifman, Uziel and El-Yaniv, ICLR 2019).

    Tracks of one confidence are sure or unsure together; in the area each of them has the mean risk of them all.
    """
    confidence = np.where(verdicts.outside, 0.0, verdicts.given_confidence)
    wrong, total = verdicts.given != labels, len(labels)
    values, place = np.unique(-confidence, return_inverse=True)
    tracks = np.bincount(place).cumsum()
    errors = np.bincount(place, wrong).cumsum()
    points = [
        RiskPoint(confidence=float(-value), coverage=float(n / total), risk=float(bad / n))
        for value, n, bad in zip(values, tracks, errors, strict=True)
    ]
    every = np.arange(1, total + 1)
    area = float((np.interp(every, [0, *tracks], [0.0, *errors]) / every).mean())
    sure = ~verdicts.unsure
    chosen = RiskPoint(
        confidence=min_confidence or 0.0,
        coverage=float(sure.mean()),
        risk=float(wrong[sure].mean()) if sure.any() else None,
    )
    return RiskCoverage(
        points=evenly(points, MOST_POINTS), aurc=area, chosen=None if min_confidence is None else chosen
    )


def funnel(
    labels: Numbers, verdicts: Verdicts, policy: Policy, milliseconds: Mapping[int, float], *, thresholds: bool
) -> list[ExitStep]:
    """How many tracks come to each step and stop there.

    ``thresholds``: those of ``policy`` are those that decided. ``milliseconds``: of a track that stops at a step.
    """
    steps = []
    for number, step in enumerate(policy.steps):
        own = verdicts.step == number
        steps.append(
            ExitStep(
                stage=step.after,
                windows=step.windows,
                accept=step.accept if thresholds else None,
                reached=int(verdicts.came[:, number].sum()),
                stopped=int(own.sum()),
                unsure=int(verdicts.unsure[own].sum()),
                accuracy=share(int((verdicts.given == labels)[own].sum()), int(own.sum())),
                milliseconds=milliseconds.get(number),
            )
        )
    return steps
