"""What is tested in which order: policies from "never stop" to eager, least confidences from high to low.

The order comes from tracks that nothing is tested with. The policies are one line: the search of ``ladders.py`` says
how eager the steps are to be against each other, and then all thresholds move together on one grid, in equal steps of
their logit. So each policy stops wherever the one before it does, and costs no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from edge_reclass.cascade import Policy, Step
from edge_reclass_learn.calibrate.testing import p_value
from edge_reclass_learn.ladders import Bools, Ints, Ladder
from edge_reclass_learn.proposal import PRICES

GRID: Final = tuple(round(float(1 / (1 + np.exp(-logit))), 4) for logit in np.arange(60, -11, -1) / 10)
"""Thresholds, beside "never": from 0.9975 down to 0.2689."""
LEVELS: Final = tuple(n / 40 for n in range(38, 1, -1))
"""Least confidences: from 0.95 down to 0.05."""


def line(ladder: Ladder, choosing: Bools, epsilon: float) -> Ints:
    """The policies in the order in which they are tested, as choices of the ladder: int[policies, steps - 1].

    The first never stops. The line goes through the cheapest policy of which at most a share of ε of the tracks
    ``choosing`` (bool[tracks]) are mistakes.
    """
    train = choosing[None]
    never = np.zeros((1, len(ladder.first)), np.int64)
    budget = np.array([[np.floor(epsilon * choosing.sum() + 1e-9)]])
    prices = PRICES * max(float(ladder.cost[-1, choosing].mean()), 1e-12)
    best = ladder.search(train, budget, prices)
    if not np.isfinite(best.cost[0, 0]):  # even to hear all makes too many mistakes
        return never
    base = best.choice[0, 0]
    most = int(base.max(initial=0))
    return shifted(base, range(-most, len(GRID) - most + 1)) if most else never


def shifted(base: Ints, shifts: Sequence[int] | range) -> Ints:
    """``base`` with all of its steps that stop made more eager by each of ``shifts``: int[shifts, steps - 1]."""
    moved = np.clip(base[None] + np.asarray(shifts, np.int64)[:, None], 0, len(GRID))
    return np.where(base[None] > 0, moved, 0)


def choice_of(ladder: Ladder, policy: Policy) -> Ints | None:
    """The choice that is ``policy``; None where a threshold is not on the grid or a step not on the ladder."""
    number = {threshold: i for i, threshold in enumerate(ladder.thresholds)}
    accepts = {(step.after, step.windows): step.accept for step in policy.steps[:-1]}
    found = [number.get(accepts.pop((step.after, step.windows), 1.0) or 0.0) for step in ladder.steps[:-1]]
    whole = [choice for choice in found if choice is not None]
    if accepts or len(whole) < len(found) or policy.vote != ladder.vote or policy.stages != ladder.order:
        return None
    choice = np.array(whole, np.int64)
    return choice if _steps(ladder.policy("", choice)) == _steps(policy) else None


def _steps(policy: Policy) -> list[Step]:
    return [Step(step.after, dict(step.weights), step.accept, step.windows) for step in policy.steps]


def from_level(wrong: Bools, sure: Bools, choosing: Bools, epsilon: float) -> int:
    """The number of the level at which testing begins: where the tracks ``choosing`` promise the clearest proof.

    At a high level few tracks are sure, and prove nothing; so the tests cannot begin at the highest one.

    Args:
        wrong, sure: bool[levels, tracks]
        choosing: bool[tracks]
    """
    tested = (~choosing).sum() / max(choosing.sum(), 1)
    promised = []
    for mistakes, many in zip(*counts_at(wrong, sure, choosing), strict=True):
        expected = int(many * tested)
        share = (mistakes + 0.5) / (many + 1)
        promised.append(p_value(int(np.ceil(share * expected)), expected, epsilon))
    return len(promised) - 1 - int(np.argmin(promised[::-1]))  # of equals the one with most tracks


def counts_at(wrong: Bools, sure: Bools, some: Bools) -> tuple[list[int], list[int]]:
    """Mistakes, and tracks that get a genre, at each level, of the tracks ``some``; all ``wrong`` are ``sure``."""
    return (wrong & some).sum(axis=1).tolist(), (sure & some).sum(axis=1).tolist()
