"""What is tested in which order."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

pytest.importorskip("scipy", reason="certificates need the extra [fit]")

import learn_answers
from edge_reclass.cascade import Policy, Step
from edge_reclass_learn.calibrate.certify import Goal, at_levels, certify_policy, rungs, truths
from edge_reclass_learn.calibrate.paths import LEVELS, choice_of, from_level, line, shifted
from edge_reclass_learn.ladders import Ladder
from edge_reclass_learn.replaying import NOTHING, everything, replay

POLICY = Policy("p", "soft", (Step("a", {"a": 1.0}, 0.5), Step("b", {"a": 0.3, "b": 0.7})))
CHOOSING = np.arange(240) % 3 == 0


@pytest.fixture(scope="module")
def answers() -> learn_answers.Answers:
    return learn_answers.random_answers(240, {"a": 1.0, "b": 4.0}, seed=3, hostile=True)


@pytest.fixture(scope="module")
def ladder(answers: learn_answers.Answers) -> Ladder:
    return rungs(answers, POLICY, truths(answers, POLICY, [], "disagreement"), "disagreement")


def test_the_line_goes_from_never_stopping_to_eager(ladder: Ladder) -> None:
    policies = line(ladder, CHOOSING, 0.1)
    assert len(policies) > 20 and not policies[0].any()
    where = ladder.where(policies)
    assert (np.diff(where, axis=0) <= 0).all(), "who stops, stops there or earlier under the next one"
    cost = ladder.cost[where, np.arange(240)].sum(axis=1)
    assert (np.diff(cost) <= 1e-9).all() and cost[-1] < 0.5 * cost[0]


def test_how_long_the_tested_tracks_took_does_not_change_the_line(answers: learn_answers.Answers) -> None:
    change, tracks = msgspec.structs.replace, []
    for track, chooses in zip(answers.tracks, CHOOSING, strict=True):
        times = {"a": 1.0, "b": 1.0} if chooses else {"a": 50.0, "b": 0.01}
        stages = {
            name: change(stage, said=[change(said, cost=said.cost * times[name]) for said in stage.said])
            for name, stage in track.stages.items()
        }
        tracks.append(change(track, stages=stages))
    slower = change(answers, tracks=tracks)
    found = [
        rungs(one, POLICY, truths(one, POLICY, [], "disagreement"), "disagreement", CHOOSING)
        for one in (answers, slower)
    ]
    assert (found[0].cost[:, CHOOSING] == found[1].cost[:, CHOOSING]).all()
    assert np.array_equal(line(found[0], CHOOSING, 0.1), line(found[1], CHOOSING, 0.1))


def test_the_line_knows_nothing_of_the_tracks_that_it_is_tested_with(ladder: Ladder) -> None:
    other = replace(ladder, bad=np.where(CHOOSING, ladder.bad, ~ladder.bad))
    assert (line(other, CHOOSING, 0.1) == line(ladder, CHOOSING, 0.1)).all()


def test_a_certified_policy_says_on_every_track_what_was_counted(
    answers: learn_answers.Answers, ladder: Ladder
) -> None:
    goal = Goal("disagreement", 0.1, 0.1)
    found = certify_policy(ladder, "p", CHOOSING, goal)
    assert found is not None and found.tested.number > 0
    differ = replay(answers, found.policy).genre != replay(answers, everything(POLICY)).genre
    assert found.tested.mistakes == (differ & ~CHOOSING).sum()


def test_the_order_can_be_told_from_the_certified_policy_alone(ladder: Ladder) -> None:
    found = certify_policy(ladder, "p", CHOOSING, Goal("disagreement", 0.1, 0.1))
    assert found is not None
    choice = choice_of(ladder, found.policy)
    assert choice is not None and (choice == found.choice).all()
    again = shifted(choice, range(-int(choice.max()), 1))
    assert (again == line(ladder, CHOOSING, 0.1)[: len(again)]).all() and len(again) == found.tested.tested
    moved = [replace(step, accept=0.5123) if step.accept else step for step in found.policy.steps]
    assert choice_of(ladder, replace(found.policy, steps=tuple(moved))) is None, "not on the grid"


def test_unsure_is_no_wrong_genre_but_another_answer(answers: learn_answers.Answers) -> None:
    labels = [track.label or "" for track in answers.tracks]
    for risk in ("disagreement", "error"):
        truth = truths(answers, POLICY, labels, risk)  # type: ignore[arg-type]
        made = rungs(answers, POLICY, truth, risk)  # type: ignore[arg-type]
        unsure = made.genre == NOTHING
        assert unsure.any()
        differs = unsure & (truth != NOTHING)
        assert not made.bad[unsure].any() if risk == "error" else made.bad[differs].all()


def test_an_unknown_label_is_wrong_whatever_is_said(answers: learn_answers.Answers) -> None:
    truth = truths(answers, POLICY, ["Polka"] * 240, "error")
    made = rungs(answers, POLICY, truth, "error")
    assert (made.bad == (made.genre != NOTHING)).all()
    goal = Goal("error", 0.1, 0.1)
    assert certify_policy(made, "p", CHOOSING, goal) is None


def test_least_confidences_begin_where_the_tracks_chosen_on_promise_most(answers: learn_answers.Answers) -> None:
    truth = truths(answers, POLICY, [track.label or "" for track in answers.tracks], "error_if_sure")
    wrong, sure = at_levels(answers, POLICY, truth)
    assert wrong.shape == (len(LEVELS), 240) and not (wrong & ~sure).any()
    assert (np.diff(sure.sum(axis=1)) >= 0).mean() > 0.9, "a lower level makes more of them sure"
    flipped = np.where(CHOOSING, wrong, sure & ~wrong)
    assert from_level(wrong, sure, CHOOSING, 0.1) == from_level(flipped, sure, CHOOSING, 0.1)
