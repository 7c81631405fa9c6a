"""The policies of a bundle, what they cost, and the thresholds of the default one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass.cascade import Policy, Step
from edge_reclass_learn.fit.heads import Array
from starter.embeddings import Asked
from starter.heard import FEATURE_WINDOWS, Heard, Layout, Recipe
from starter.judging import FOLD, Judges

LISTENING: Final = (1, 3)
"""After how many windows the default policy asks a stage, before all."""
FIRST_ACCEPTS: Final = (0.8, 0.9, 0.95, 1.0)
ACCEPTS: Final = (0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Thresholds that are tried, after fma and after every later step."""
AGREEMENT: Final = 0.975
AGREEMENT_ELSEWHERE: Final = 0.96
"""The same for the judges of about a hundred clips: two clips fewer."""
LOSS: Final = 0.011
"""Accuracy that may be lost: one clip of the smallest judge."""
LONG: Final = 15.0
"""Costs are those of tracks of 30 s that stop where clips of at least so many seconds do."""

Costs = Mapping[Asked, float]
"""Milliseconds of a track of 30 s that stops after so many windows of a stage, from the file to the verdict; and of one
under ``thorough`` (THOROUGH)."""
THOROUGH: Final[Asked] = ("thorough", None)
Accepts = Mapping[Asked, float]
"""Confidence above which the cascade stops, by step."""


@dataclass(frozen=True)
class Try:
    """A policy beside ``thorough`` on the same clips.

    agreement: share of the clips with thorough's genre
    accuracy, full_accuracy: its own and thorough's
    cost: share of thorough's, where the clips of LONG seconds stop (all clips, if none is so long)
    """

    agreement: float
    accuracy: float
    full_accuracy: float
    cost: float


def named(layout: Layout, accepts: Accepts) -> dict[str, Policy]:
    """``progressive`` (the default), ``fast``, ``thorough`` and ``fma-first``.

    All ask fma first, whose range test tells what is no music. The later stages vote with equal weights.
    """
    first, *later = layout
    some, every = (first, FEATURE_WINDOWS), (first, None)
    listening = [(stage, count) for stage in later for count in (*LISTENING, None)]
    whole = [(stage, None) for stage in later]
    # No confidence is above 1, and every one is above 0.
    fast = _policy("fast", [some, *whole[:-1]], accepts) if whole[1:] else _policy("fast", [some, every], {some: 0.0})
    policies = [
        _policy("progressive", [some, *listening], accepts),
        fast,
        _policy("thorough", [every, *whole], {}),
        _policy("fma-first", [some, *whole], accepts),
    ]
    return {policy.name: policy for policy in policies}


def _policy(name: str, asked: Sequence[Asked], accepts: Accepts) -> Policy:
    """Steps on ``asked`` in this order. The first stage votes alone, and not with the later ones."""
    steps = []
    for i, (stage, count) in enumerate(asked):
        so_far = dict.fromkeys(one for one, _ in asked[: i + 1])
        voting = [one for one in so_far if one != asked[0][0]] or so_far
        accept = accepts.get((stage, count), 1.0) if i + 1 < len(asked) else None
        steps.append(Step(stage, dict.fromkeys(voting, 1.0), accept, count))
    return Policy(name, "soft", tuple(steps))


def stops_at(policy: Policy, stop: int) -> Policy:
    """``policy``, but every track stops after the step ``stop``, unless it is unsure there."""
    accepts = [None if i == len(policy.steps) - 1 else 0.0 if i == stop else 1.0 for i in range(len(policy.steps))]
    steps = tuple(replace(step, accept=accept) for step, accept in zip(policy.steps, accepts, strict=True))
    return replace(policy, steps=steps)


@dataclass(frozen=True)
class Replay:
    """What a policy would say after each of its steps, whatever its thresholds are.

    genres, confidences: [steps, clips]
    may_stop: bool[steps, clips]; not what is outside the range or has no more windows than the step asks for
    full: intp[clips], what ``thorough`` says
    labels, long: by clip; whether it has LONG seconds
    """

    asked: tuple[Asked, ...]
    genres: NDArray[np.intp]
    confidences: Array
    may_stop: NDArray[np.bool_]
    full: NDArray[np.intp]
    labels: NDArray[np.intp]
    long: NDArray[np.bool_]

    @classmethod
    def of(cls, recipe: Recipe, heard: Heard, policy: Policy, thorough: Policy) -> Replay:
        """Of what was heard."""
        genres = np.zeros((len(policy.steps), len(heard.labels)), np.intp)
        confidences, may_stop = np.zeros(genres.shape), np.zeros(genres.shape, np.bool_)
        easy = replace(policy, steps=tuple(replace(one, accept=0.0) for one in policy.steps[:-1]) + policy.steps[-1:])
        for row in range(len(heard.labels)):
            for number, decision in recipe.steps(heard, row, easy, min_confidence=0.0):
                genres[number, row], confidences[number, row] = decision.genre, decision.confidence
                may_stop[number, row] = decision.stop
        asked = tuple((step.after, step.windows) for step in policy.steps)
        full = np.array([one.genre for one, _ in recipe.decide(heard, thorough, min_confidence=0.0)])
        return cls(asked, genres, confidences, may_stop, full, heard.labels, heard.seconds >= LONG)

    def attempt(self, accepts: Accepts, costs: Costs) -> Try:
        """With these thresholds, beside no early exit."""
        above = np.array([accepts.get(asked, 1.0) for asked in self.asked])[:, None]
        stops = self.may_stop & (self.confidences > above)
        stops[-1] = True
        stop = stops.argmax(axis=0)
        said, full = self.genres[stop, np.arange(len(stop))], self.full
        spent = np.array([costs[asked] for asked in self.asked])
        costing = self.long if self.long.any() else np.ones_like(self.long)
        return Try(
            float((said == full).mean()),
            float((said == self.labels).mean()),
            float((full == self.labels).mean()),
            float(spent[stop[costing]].mean() / costs[THOROUGH]),
        )


def replays(judges: Judges, layout: Layout, left_out: str | None = None) -> dict[str, Replay]:
    """The default policy on whole clips, by judge, under the recipe of all judges but ``left_out``."""
    policies = named(layout, {})
    recipe, both = judges.recipes[left_out], (policies["progressive"], policies["thorough"])
    return {name: Replay.of(recipe, heard["whole"], *both) for name, heard in judges.heard.items()}


def choose(judges: Judges, layout: Layout, costs: Costs, left_out: str | None = None) -> dict[Asked, float]:
    """The thresholds of least cost that agree with ``thorough`` (AGREEMENT) and lose no more accuracy than LOSS.

    Both must hold for every judge but ``left_out``: out of fold alone, where heads have heard the sources, far lower
    thresholds seem to be enough.
    """
    told_by = {name: one for name, one in replays(judges, layout, left_out).items() if name != left_out}
    smallest_first = sorted(told_by.items(), key=lambda one: len(one[1].labels))
    costing = told_by.get(FOLD, smallest_first[-1][1])
    asked = costing.asked[:-1]

    def cost(accepts: Accepts) -> float:
        good = True
        for name, one in smallest_first:
            found, least = one.attempt(accepts, costs), AGREEMENT if name == FOLD else AGREEMENT_ELSEWHERE
            if not (good := found.agreement >= least and found.accuracy >= found.full_accuracy - LOSS):
                break
        return costing.attempt(accepts, costs).cost if good else np.inf

    # All combinations of three stages' thresholds are too many: those of one stage in turn, until nothing is gained.
    best, best_cost, gained = dict.fromkeys(asked, 1.0), np.inf, True
    while gained:
        gained = False
        for stage in dict.fromkeys(stage for stage, _ in asked):
            own = [one for one in asked if one[0] == stage]
            for values in product(*[FIRST_ACCEPTS if stage == asked[0][0] else ACCEPTS] * len(own)):
                accepts = {**best, **dict(zip(own, values, strict=True))}
                if (found := cost(accepts)) < best_cost:
                    best, best_cost, gained = accepts, found, True
    return best
