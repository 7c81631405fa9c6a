"""A bundle's policies on what heads say: the runtime's own decisions, and thresholds judged anew.

A threshold of a policy holds for the heads that it was chosen with. So the policies of the base are kept as they are
but for ``accept``: each is chosen again, on the answers out of fold. 0 (always stop here) and 1 (never) say how the
policy goes, and stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from edge_reclass.cascade import Answer, Decision, GenreMap, Policy, decide
from edge_reclass_learn.fit.judging import Said
from edge_reclass_learn.hearing.examples import Example
from edge_reclass_learn.hearing.listening import Listening

ACCEPTS: Final = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Thresholds that are tried; beside them 1, above which nothing is."""
DISAGREEMENT: Final = 0.025
"""Share of the tracks that may get another genre than without an early exit."""

ENOUGH: Final = 100
"""Tracks that have to be judged at a step before its threshold may be lower than the base's."""

Numbers = NDArray[np.intp]


@dataclass(frozen=True)
class Answers:
    """What heads say of some examples, and how it is read.

    temperatures: by stage
    limits: of the range tests, by stage
    maps: of the stages whose heads have genres of their own
    min_confidence: below it a verdict is unsure
    """

    heard: Listening
    examples: Sequence[Example]
    said: Said
    temperatures: Mapping[str, float]
    limits: Mapping[str, float]
    min_confidence: float | None
    maps: Mapping[str, GenreMap] = field(default_factory=dict)

    def steps(self, row: int, policy: Policy, min_confidence: float | None) -> Iterator[tuple[int, Decision]]:
        """What the runtime decides on one example after each step of the policy, by the step's number, stop or not."""
        example, answers = self.examples[row], dict[str, Answer]()
        for number, step in enumerate(policy.steps):
            more = example.more_windows(step.after, step.windows)
            if not more and step is not policy.step(step.after):
                continue  # as the runtime: what has no more windows is judged by the stage's last step
            logits = self.said.logits[step.after][self.heard.given(policy, number)][row]
            distances = self.said.distances.get(step.after)
            outside = distances is not None and not distances[row] <= self.limits[step.after]
            probabilities = tuple(softmax(logits / self.temperatures[step.after]).tolist())
            read = self.maps.get(step.after)
            if read is None:
                answers[step.after] = Answer(step.after, probabilities, outside)
            else:
                mapped, abstains = read(probabilities)
                answers[step.after] = Answer(step.after, mapped, outside, read.says, abstains)
            windows = step.windows if more else None
            given = tuple(answers.values())
            yield number, decide(policy, given, after=step.after, windows=windows, min_confidence=min_confidence)

    def decide(self, policy: Policy, *, sure: bool = False) -> list[tuple[Decision, int]]:
        """The decision on each example and the number of its step; every one gets a genre, unless ``sure``."""
        least = self.min_confidence if sure else 0.0
        return [
            next((decision, number) for number, decision in self.steps(row, policy, least) if decision.stop)
            for row in range(len(self.examples))
        ]

    def genres(self, policy: Policy) -> Numbers:
        """The number of the genre of each example under a policy, unsure or not."""
        return np.array([decision.genre for decision, _ in self.decide(policy)], np.intp)

    def probabilities(self, stage: str) -> NDArray[np.float64]:
        """What the stage says where nothing stops early: float64[n, genres]."""
        logits = self.said.logits[stage][self.heard.fullest(stage)]
        found = np.asarray(softmax(logits / self.temperatures[stage], axis=1), np.float64)
        return np.array([self.maps[stage](row)[0] for row in found]) if stage in self.maps else found


def patient(policy: Policy) -> Policy:
    """``policy`` without an early exit."""
    return replace(policy, steps=tuple(replace(one, accept=1.0) for one in policy.steps[:-1]) + policy.steps[-1:])


def judged_anew(answers: Answers, policy: Policy) -> Policy:
    """``policy`` with thresholds under which few examples get another genre than without an early exit.

    Of DISAGREEMENT, each step in turn may spend its share of what the steps before it left. Of the thresholds that
    keep to that, the lowest is taken; 1 where none does. A step that fewer than ENOUGH tracks come to keeps at least
    the threshold that it has: of tracks without windows, as in a memory, nothing can be seen there.
    """
    eager = replace(policy, steps=tuple(replace(one, accept=0.0) for one in policy.steps[:-1]) + policy.steps[-1:])
    total = len(answers.examples)
    genre, confidence = np.zeros((len(policy.steps), total), np.intp), np.zeros((len(policy.steps), total))
    may_stop, seen = np.zeros(genre.shape, np.bool_), np.zeros(len(policy.steps), np.intp)
    for row in range(total):
        for number, decision in answers.steps(row, eager, answers.min_confidence):
            genre[number, row], confidence[number, row] = decision.genre, decision.confidence
            may_stop[number, row] = decision.stop
            seen[number] += 1
    full = answers.genres(patient(policy))
    chosen = [i for i, step in enumerate(policy.steps) if step.accept is not None and 0.0 < step.accept < 1.0]
    budget, open_still = DISAGREEMENT * total, np.ones(total, np.bool_)
    accepts: dict[int, float | None] = {i: step.accept for i, step in enumerate(policy.steps)}
    for number in range(len(policy.steps) - 1):
        able = open_still & may_stop[number]
        if number in chosen:
            own = budget / (len(chosen) - chosen.index(number))
            wrong = genre[number] != full
            least = 0.0 if seen[number] >= ENOUGH else policy.steps[number].accept or 0.0
            tried = sorted({accept for accept in (*ACCEPTS, least, 1.0) if accept >= max(least, ACCEPTS[0])})
            spent = {accept: int((able & wrong & (confidence[number] > accept)).sum()) for accept in tried}
            accepts[number] = lowest = next(accept for accept, n in spent.items() if n <= own)
            budget -= spent[lowest]
        open_still &= ~(able & (confidence[number] > (accepts[number] or 0.0)))
    return replace(policy, steps=tuple(replace(step, accept=accepts[i]) for i, step in enumerate(policy.steps)))
