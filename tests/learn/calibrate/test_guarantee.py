"""The guarantee itself: of many calibrations on tracks drawn anew, at most a share of δ may be wrong.

EDGE_RECLASS_DRAWS=1000 draws more often; ``python tests/guarantee.py 1000`` prints the counts.
"""

from __future__ import annotations

import os

import pytest

pytest.importorskip("scipy", reason="certificates need the extra [fit]")

import guarantee
from edge_reclass_learn.calibrate.certify import Goal

DRAWS = int(os.environ.get("EDGE_RECLASS_DRAWS", "80"))


def most(goal: Goal) -> float:
    """The largest share of violations: δ, and three standard errors of a share of δ."""
    return float(goal.delta + 3 * (goal.delta * (1 - goal.delta) / DRAWS) ** 0.5)


@pytest.mark.parametrize("goal", guarantee.GOALS, ids=lambda goal: goal.risk)
def test_violations_are_as_rare_as_promised(goal: Goal) -> None:
    found = guarantee.simulate(goal, DRAWS, seed=1)
    assert found.violations / DRAWS <= most(goal)
    assert found.certified > DRAWS / 2, "what certifies nothing is never wrong"


def test_choosing_without_a_test_breaks_the_promise() -> None:
    goal = guarantee.GOALS[0]
    assert guarantee.simulate(goal, 40, seed=2).naive_violations / 40 > most(goal) + 0.2
