"""When a run is long enough, and whose turn it is."""

from __future__ import annotations

from itertools import pairwise

from edge_reclass_bench.clocks import Goal, next_turn


def test_a_goal_is_met_by_passes_or_in_a_hurry_by_one() -> None:
    goal = Goal(min_passes=2)
    assert not goal.met(hurry=True)
    goal.add()
    assert (goal.met(), goal.met(hurry=True)) == (False, True)
    assert goal.notes() == ["the time was over after 1 of 2 passes in a process"]
    goal.add()
    assert goal.met()
    assert goal.notes() == []


def test_subjects_of_different_numbers_of_passes_take_turns_to_the_end() -> None:
    goals = [Goal(40), Goal(4)]
    turns = []
    while (turn := next_turn(goals)) is not None:
        turns.append(turn)
        goals[turn].add()
    assert (turns.count(0), turns.count(1)) == (40, 4)
    few = [i for i, turn in enumerate(turns) if turn == 1]
    assert max(b - a for a, b in pairwise(few)) <= 12
