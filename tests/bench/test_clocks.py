"""When a run is long enough, and whose turn it is."""

from __future__ import annotations

from itertools import pairwise

from edge_reclass_bench.clocks import Goal, next_turn


def test_both_minima_have_to_be_met() -> None:
    goal = Goal(min_count=10, min_seconds=5.0)
    goal.add(10, 4.9)
    assert not goal.met
    goal.add(1, 0.2)
    assert goal.met
    slow = Goal(min_count=10, min_seconds=5.0)
    slow.add(9, 100.0)
    assert not slow.met


def test_a_minimum_of_nothing_is_met() -> None:
    goal = Goal(min_count=1, min_seconds=0.0)
    assert not goal.met
    goal.add(1, 0.0)
    assert goal.met


def test_subjects_of_very_different_cost_take_turns_to_the_end() -> None:
    costs = (0.01, 1.0)
    goals = [Goal(20, 2.0) for _ in costs]
    turns = []
    while (turn := next_turn(goals)) is not None:
        turns.append(turn)
        goals[turn].add(5, costs[turn] * 5)
    assert all(goal.met for goal in goals)
    # The expensive one is bound by its count (4 passes), the cheap one by its time (40 passes), spread all along.
    assert (turns.count(0), turns.count(1)) == (40, 4)
    expensive = [i for i, turn in enumerate(turns) if turn == 1]
    assert max(b - a for a, b in pairwise(expensive)) <= 12
