"""What a bundle says of labelled tracks: with its own heads, or with heads of folds that have not heard the tracks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final, TypeVar

import numpy as np

from edge_reclass import Bundle
from edge_reclass.cascade import Policy
from edge_reclass.verdict import ReasonCode
from edge_reclass_learn.evaluate.intervals import Flags, Floats, Numbers
from edge_reclass_learn.fit.gain import base_answers
from edge_reclass_learn.fit.heads import balanced_weights, fit_temperature
from edge_reclass_learn.fit.judging import FALSE_ALARMS, Judged, Said, Task, judge, learnt_elsewhere
from edge_reclass_learn.fit.policies import Answers, judged_anew
from edge_reclass_learn.hearing.examples import Example
from edge_reclass_learn.hearing.listening import Listening
from edge_reclass_learn.progress import Say

Key = TypeVar("Key")


@dataclass(frozen=True)
class Verdicts:
    """What is said of n tracks. Genres and steps are numbers of the bundle's genres and of the policy's steps.

    genre, confidence, scores: as every track gets a genre; intp[n], float64[n], float64[n, genres]
    given, given_confidence: the same with the bundle's ``min_confidence``, which may keep the cascade from stopping
    unsure: which tracks get no genre then, bool[n]
    outside: which of those for being unlike anything that the heads know, bool[n]
    step: at which each track stops, intp[n]
    came: which steps it came to, bool[n, steps]
    """

    genre: Numbers
    confidence: Floats
    scores: Floats
    given: Numbers
    given_confidence: Floats
    unsure: Flags
    outside: Flags
    step: Numbers
    came: Flags


_FIELDS: Final = tuple(field.name for field in fields(Verdicts))


def read(answers: Answers, policy: Policy) -> Verdicts:
    """The verdicts of a policy on what heads say."""
    total = len(answers.examples)
    came = np.zeros((total, len(policy.steps)), np.bool_)
    given = []
    for row in range(total):
        for number, decision in answers.steps(row, policy, answers.min_confidence):
            came[row, number] = True
            if decision.stop:
                given.append((decision, number))
                break
    every = [decision for decision, _ in answers.decide(policy)]
    return Verdicts(
        genre=np.array([one.genre for one in every], np.intp),
        confidence=np.array([one.confidence for one in every], np.float64),
        scores=np.array([one.scores for one in every], np.float64).reshape(total, -1),
        given=np.array([one.genre for one, _ in given], np.intp),
        given_confidence=np.array([one.confidence for one, _ in given], np.float64),
        unsure=np.array([one.unsure for one, _ in given], np.bool_),
        outside=np.array([one.code == ReasonCode.OUTSIDE_RANGE for one, _ in given], np.bool_),
        step=np.array([number for _, number in given], np.intp),
        came=came,
    )


def as_it_is(bundle: Bundle, heard: Listening, examples: Sequence[Example], policy: Policy) -> Verdicts:
    """The verdicts of the bundle's own heads and thresholds: those of its cascade, but for rounding."""
    return read(base_answers(bundle, heard, examples), policy)


def cross_validated(
    task: Task,
    policy: Policy,
    min_confidence: float | None,
    *,
    folds: int,
    fixed: Numbers,
    seed: int,
    say: Say,
) -> Verdicts:
    """The verdicts of new heads, each fitted on the folds that do not have the track.

    Temperatures, limits of range tests and thresholds of the policy are chosen for each fold on what was said of the
    others. Genres are those of ``task``. ``fixed``: the fold of each example, intp[n]; -1: is dealt here, see ``deal``.
    """
    judged = judge(task, folds, seed, say, fixed)
    parts, places = [], []
    for fold in range(folds):
        inside, others = np.flatnonzero(judged.folds == fold), np.flatnonzero(judged.folds != fold)
        if not len(inside):
            continue
        temperatures, limits = _calibrated(task, judged, others)
        whole = Answers(task.heard, task.examples, judged.said, temperatures, limits, min_confidence)
        parts.append(read(_part(whole, inside), judged_anew(_part(whole, others), policy)))
        places.append(inside)
    order = np.argsort(np.concatenate(places))
    joined = {name: np.concatenate([getattr(part, name) for part in parts])[order] for name in _FIELDS}
    return Verdicts(**joined)


def _calibrated(task: Task, judged: Judged, some: Numbers) -> tuple[dict[str, float], dict[str, float]]:
    """Temperatures and limits by stage, from what was said of ``some``, as ``judge`` finds them from all."""
    told = some[learnt_elsewhere(task.labels, judged.folds)[some]]
    labels = task.labels[told]
    weights = balanced_weights(labels, np.arange(len(labels)), len(task.genres))
    said = judged.said
    temperatures = {
        stage: fit_temperature(by_given[task.heard.fullest(stage)][told], labels, weights)
        for stage, by_given in said.logits.items()
    }
    limits = {stage: float(np.quantile(found[some], 1.0 - FALSE_ALARMS)) for stage, found in said.distances.items()}
    return temperatures, limits


def _part(answers: Answers, some: Numbers) -> Answers:
    """What is said of some of the tracks."""
    said = answers.said
    logits = {stage: _rows(by_given, some) for stage, by_given in said.logits.items()}
    examples = [answers.examples[i] for i in some]
    return replace(answers, examples=examples, said=Said(logits, _rows(said.distances, some)))


def _rows(arrays: Mapping[Key, Floats], some: Numbers) -> dict[Key, Floats]:
    return {key: array[some] for key, array in arrays.items()}


def spread(verdicts: Verdicts, genres: Sequence[str], names: Sequence[str]) -> Verdicts:
    """Verdicts over ``genres`` as verdicts over ``names``, which hold them; the others have no score."""
    place = np.array([names.index(genre) for genre in genres], np.intp)
    scores = np.zeros((len(verdicts.genre), len(names)))
    scores[:, place] = verdicts.scores
    return replace(verdicts, genre=place[verdicts.genre], given=place[verdicts.given], scores=scores)


def some_of(verdicts: Verdicts, rows: Numbers) -> Verdicts:
    """The verdicts on some of the tracks."""
    return Verdicts(**{name: getattr(verdicts, name)[rows] for name in _FIELDS})
