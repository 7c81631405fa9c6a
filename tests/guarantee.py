"""Draws of calibration tracks from answers whose joint distribution is known, so that every true risk is known exactly.

The population is a list of made tracks, each as likely as the others. A draw takes some of them by chance, with
replacement, as a user's tracks come from their music. ``python tests/guarantee.py 1000`` prints what 1000 draws give.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

import learn_answers
from edge_reclass.cascade import Policy, Step
from edge_reclass_learn.calibrate.certify import Goal, Risk, at_levels, certify_level, certify_policy, rungs, truths
from edge_reclass_learn.calibrate.paths import line
from edge_reclass_learn.ladders import Ladder

TRACKS, POPULATION = 300, 1000
POLICY = Policy(
    "ladder", "soft", (Step("a", {"a": 1.0}, 0.8, 1), Step("a", {"a": 1.0}, 0.8), Step("b", {"a": 0.3, "b": 0.7}))
)

PATIENT = Policy("patient", "soft", (Step("a", {"a": 1.0}, 1.0), POLICY.steps[-1]))

Indices = NDArray[np.intp]
Draw = Callable[[Indices, NDArray[np.bool_], Goal], tuple[float | None, float]]
"""Drawn tracks and which are chosen on → true risk of what is certified (None: refused), and of the naive choice."""


@dataclass(frozen=True)
class Result:
    """Of so many draws: how often something was certified; how often its true risk is above ε, also without tests."""

    draws: int
    certified: int
    violations: int
    naive_violations: int


def simulate(goal: Goal, draws: int, seed: int = 0) -> Result:
    """Calibrate ``draws`` times on tracks drawn anew, and compare with the truth."""
    random = np.random.default_rng(seed)
    one = policies(goal.risk) if goal.risk != "error_if_sure" else levels()
    risks, naive = [], []
    for _ in range(draws):
        drawn, choosing = random.integers(POPULATION, size=TRACKS), random.random(TRACKS) < 1 / 3
        risk, without = one(drawn, choosing, goal)
        risks.append(risk)
        naive.append(without)
    kept = [risk for risk in risks if risk is not None]
    above = sum(risk > goal.epsilon for risk in kept)
    return Result(draws, len(kept), above, sum(risk > goal.epsilon for risk in naive))


@lru_cache
def population() -> learn_answers.Answers:
    made = learn_answers.random_answers(POPULATION, {"a": 1.0, "b": 0.5}, seed=11)
    return msgspec.structs.replace(made, min_confidence=0.45)


def labels() -> list[str]:
    return [track.label or "" for track in population().tracks]


@lru_cache
def policies(risk: Risk) -> Draw:
    truth = truths(population(), POLICY, labels(), risk)
    whole = rungs(population(), POLICY, truth, risk)

    def true_risk(choice: NDArray[np.int64]) -> float:
        where = whole.where(choice[None])[0]
        return float(whole.bad[where, np.arange(POPULATION)].mean())

    def draw(drawn: Indices, choosing: NDArray[np.bool_], goal: Goal) -> tuple[float | None, float]:
        some = of(whole, drawn)
        found = certify_policy(some, "p", choosing, goal)
        # Without a test: the eagerest of the same line that looks good enough, on all of the tracks.
        candidates = line(some, np.ones(TRACKS, np.bool_), goal.epsilon)
        bad = some.bad[some.where(candidates), np.arange(TRACKS)].mean(axis=1)
        good = np.flatnonzero(bad <= goal.epsilon)
        naive = true_risk(candidates[good[-1]]) if len(good) else 0.0
        return None if found is None else true_risk(found.choice), naive

    return draw


def of(whole: Ladder, drawn: Indices) -> Ladder:
    """The ladder of some tracks of the population."""
    parts = {name: getattr(whole, name)[:, drawn] for name in ("genre", "cost", "bad", "first")}
    return replace(whole, **parts)


@lru_cache
def levels() -> Draw:
    wrong, sure = at_levels(population(), PATIENT, truths(population(), PATIENT, labels(), "error_if_sure"))
    risk = wrong.sum(axis=1) / np.maximum(sure.sum(axis=1), 1)

    def draw(drawn: Indices, choosing: NDArray[np.bool_], goal: Goal) -> tuple[float | None, float]:
        bad, some = wrong[:, drawn], sure[:, drawn]
        found = certify_level(bad, some, choosing, goal)
        seen = bad.sum(axis=1) / np.maximum(some.sum(axis=1), 1)
        good = np.flatnonzero((seen <= goal.epsilon) & some.any(axis=1))
        return None if found is None else float(risk[found.number]), float(risk[good[-1]]) if len(good) else 0.0

    return draw


GOALS = (Goal("disagreement", 0.1, 0.1), Goal("error", 0.2, 0.1), Goal("error_if_sure", 0.05, 0.1))


if __name__ == "__main__":
    for aim in GOALS:
        told = simulate(aim, int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
        print(
            f"{aim.risk}, at most {aim.epsilon:g}, delta {aim.delta:g}: {told.draws} draws of {TRACKS} tracks,"
            f" {told.certified} certified, true risk above in {told.violations}"
            f" ({told.violations / told.draws:.1%}); chosen without a test: {told.naive_violations}"
            f" ({told.naive_violations / told.draws:.1%})",
            flush=True,
        )
