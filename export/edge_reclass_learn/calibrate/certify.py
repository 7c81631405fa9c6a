"""Choose on one part of the tracks, test on the other: thresholds, or the least confidence, with a certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import msgspec
import numpy as np

from edge_reclass.cascade import Policy
from edge_reclass.errors import UsageError
from edge_reclass_learn.answers import Answers, Costs
from edge_reclass_learn.calibrate.paths import GRID, LEVELS, counts_at, from_level, line
from edge_reclass_learn.calibrate.testing import certified, fewest, needed, p_value
from edge_reclass_learn.ladders import Bools, Ints, Ladder, Sayings, ladder
from edge_reclass_learn.replaying import NOTHING, everything, replay

Risk = Literal["disagreement", "error", "error_if_sure"]
SMALLEST: Final = 1e-6
"""ε and δ: below it, it takes more tracks than anyone has, and more than the numbers here can count exactly."""
NO_SUCH_GENRE: Final = -2
"""In place of a genre's number: a label that the bundle does not know. It is wrong whatever genre is said."""


@dataclass(frozen=True)
class Goal:
    """``risk`` at most ``epsilon`` with probability 1 − ``delta``."""

    risk: Risk
    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        for name, value in (("epsilon", self.epsilon), ("delta", self.delta)):
            if not SMALLEST <= value < 1:
                raise UsageError(f"--{name}: expected a number from {SMALLEST:f} to below 1, got {value:g}")


@dataclass(frozen=True)
class Tested:
    """What was certified: the last of ``tested`` candidates that were tested in order, number ``number`` of them.

    tracks, mistakes, p: its own. failed: mistakes, tracks and p of the first that could not be certified; None where
    there was none.
    """

    number: int
    tested: int
    tracks: int
    mistakes: int
    p: float
    failed: tuple[int, int, float] | None


def in_order(mistakes: Sequence[int], tracks: Sequence[int], goal: Goal, first: int = 0) -> Tested | None:
    """Test candidates from number ``first`` on; None where not even that one is certified."""
    passed = certified(mistakes[first:], tracks[first:], goal.epsilon, goal.delta)
    if not passed:
        return None
    number, after = first + passed - 1, first + passed
    failed = None
    if after < len(mistakes):
        failed = mistakes[after], tracks[after], p_value(mistakes[after], tracks[after], goal.epsilon)
    p = p_value(mistakes[number], tracks[number], goal.epsilon)
    return Tested(number, passed, tracks[number], mistakes[number], p, failed)


def truths(answers: Answers, policy: Policy, labels: Sequence[str], risk: Risk) -> Ints:
    """What is no mistake, for each track: what all stages say of it (NOTHING where that is unsure), or its label."""
    if risk == "disagreement":
        return replay(answers, everything(policy)).genre
    number = {genre: i for i, genre in enumerate(answers.genres)}
    return np.array([number.get(label, NO_SUCH_GENRE) for label in labels], np.int64)


def rungs(answers: Answers, policy: Policy, truth: Ints, risk: Risk, choosing: Bools | None = None) -> Ladder:
    """All steps that the stages of ``policy`` can be asked at, in its order, and what is a mistake at each.

    A verdict that is unsure gives no wrong genre, so for the risk ``error`` it is no mistake. As a disagreement it is
    an answer of its own: unsure instead of a genre is one, and so is a genre instead of unsure.

    Args:
        choosing: bool[tracks], those whose times are measured, so that the search learns nothing of the others
    """
    every = np.ones(len(truth), np.bool_)
    said = Sayings(answers, policy.vote)
    weights = policy.steps[-1].weights
    made = ladder(answers, said, Costs.measured(answers, choosing), policy.stages, weights, truth, every, GRID)
    return made if risk == "disagreement" else replace(made, bad=made.bad & (made.genre != NOTHING))


@dataclass(frozen=True)
class CertifiedPolicy:
    """A policy on the line of tested ones, the cheapest that is certified; also as a ``choice`` of the ladder."""

    policy: Policy
    choice: Ints
    tested: Tested


def certify_policy(rungs: Ladder, name: str, choosing: Bools, goal: Goal) -> CertifiedPolicy | None:
    """The cheapest policy of the line that is certified on the tracks that are not ``choosing``; None: none is."""
    policies = line(rungs, choosing, goal.epsilon)
    tested = in_order(*counts_on(rungs, policies, choosing), goal)
    if tested is None:
        return None
    choice = policies[tested.number]
    return CertifiedPolicy(rungs.policy(name, choice), choice, tested)


def counts_on(rungs: Ladder, policies: Ints, choosing: Bools) -> tuple[list[int], list[int]]:
    """Mistakes and tracks to test with, of each of ``policies`` (int[policies, steps - 1])."""
    where = rungs.where(policies)
    bad = rungs.bad[where, np.arange(where.shape[1])]
    mistakes: list[int] = (bad & ~choosing).sum(axis=1).tolist()
    return mistakes, [int((~choosing).sum())] * len(mistakes)


def certify_level(wrong: Bools, sure: Bools, choosing: Bools, goal: Goal) -> Tested | None:
    """The lowest level that is certified; None where the first is not.

    Args:
        wrong, sure: bool[levels, tracks], from the highest level down
    """
    return in_order(*counts_at(wrong, sure, ~choosing), goal, from_level(wrong, sure, choosing, goal.epsilon))


def at_levels(answers: Answers, policy: Policy, truth: Ints) -> tuple[Bools, Bools]:
    """Which tracks get a wrong genre, and which any, at each of ``LEVELS``: bool[levels, tracks] each.

    A higher level also makes the cascade go on where it would have stopped, as in the runtime.
    """
    costs = Costs.measured(answers)
    genre: Ints = np.stack(
        [replay(msgspec.structs.replace(answers, min_confidence=level), policy, costs).genre for level in LEVELS]
    )
    sure = genre != NOTHING
    return sure & (genre != truth), sure


def require_enough(tracks: int, goal: Goal, drawn: int) -> None:
    """Refuse tracks of which nothing could be certified, whatever they say.

    Raises:
        UsageError: the message says how many are needed.
    """
    if tracks < (least := fewest(goal.epsilon, goal.delta)):
        raise UsageError(
            f"{tracks} tracks to test with are too few: to certify {100 * goal.epsilon:g} % with"
            f" {100 * (1 - goal.delta):g} % probability takes at least {least}, none of them a mistake; a third of the"
            f" artists is chosen on, so about {-(-least * 3 // 2)} artists are needed, got {drawn}"
        )


def refusal(mistakes: int, tracks: int, goal: Goal, what: str) -> UsageError:
    """The error where not even the first candidate is certified, with how many tracks would do."""
    share = mistakes / max(tracks, 1)
    enough = needed(share, goal.epsilon, goal.delta)
    if enough is None:
        more = f"no number of tracks certifies {100 * goal.epsilon:g} % at that share; allow more with --epsilon"
    else:
        more = (
            f"at that share about {enough} of them are needed to certify {100 * goal.epsilon:g} %; add tracks, or allow"
            " more with --epsilon"
        )
    p = p_value(mistakes, tracks, goal.epsilon)
    return UsageError(f"not certified: {what}: {mistakes} of {tracks} ({share:.1%}), p = {p:.2g}; {more}")
