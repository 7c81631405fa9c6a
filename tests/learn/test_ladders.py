"""The search: against trying everything, against the core step by step, and where the best policy is known."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from edge_reclass.cascade import Policy, Step
from edge_reclass.errors import UsageError
from edge_reclass_learn.answers import Answers, Costs, StageFacts
from edge_reclass_learn.ladders import Sayings, ladder, orders
from edge_reclass_learn.proposal import Goal, judged, propose
from edge_reclass_learn.replaying import NEVER, NOTHING, everything, replay
from learn_answers import heard, random_answers, record, said, sure, track, with_own_genres

GRID = (0.5, 0.7, 0.9)


def full_policy(stages: Sequence[str], vote: str = "soft") -> Policy:
    *first, last = stages
    steps = [Step(name, {name: 1.0}, NEVER) for name in first]
    return Policy("full", vote, (*steps, Step(last, dict.fromkeys(stages, 1.0))))


def all_ladders(answers: Answers, full: Policy, grid: Sequence[float] = GRID):  # type: ignore[no-untyped-def]
    reference = replay(answers, everything(full))
    known = np.ones(len(answers.tracks), np.bool_)
    weights = full.steps[-1].weights
    costs = Costs.measured(answers)
    said = Sayings(answers, full.vote)
    found = [
        ladder(answers, said, costs, order, weights, reference.genre, known, grid) for order in orders(answers, 99)
    ]
    return found, reference


@pytest.mark.parametrize("vote", ["soft", "top1"])
@pytest.mark.parametrize("least", [None, 0.0, 0.45])
def test_every_candidate_says_and_costs_what_the_core_does_step_by_step(vote: str, least: float | None) -> None:
    answers = random_answers(60, {"a": 1, "b": 2, "c": 4}, hostile=True, seed=3)
    answers = record(answers.stages, answers.tracks, genres=answers.genres, min_confidence=least)
    found, _ = all_ladders(answers, full_policy("abc", vote))
    assert len(found) == 3 + 6 + 6
    random = np.random.default_rng(0)
    for one in found:
        for _ in range(3):
            choice = random.integers(0, len(GRID) + 1, len(one.steps) - 1)
            again = replay(answers, one.policy("candidate", choice))
            where = one.where(choice[None])[0]
            tracks = np.arange(len(where))
            assert (one.genre[where, tracks] == again.genre).all()
            np.testing.assert_allclose(one.cost[where, tracks], again.cost)
            steps = [(one.steps[s].after, one.steps[s].windows) for s in where]
            heard = [stop is not None for stop in again.stops]
            assert [s for s, h in zip(steps, heard, strict=True) if h] == [s for s in again.stops if s is not None]


@pytest.mark.parametrize("least", [None, 0.0])
def test_stages_that_know_some_genres_and_abstain_are_replayed_as_the_core_weighs_them(least: float | None) -> None:
    answers = with_own_genres(random_answers(60, {"a": 1, "b": 2, "c": 4}, hostile=True, seed=3), "bc")
    answers = record(answers.stages, answers.tracks, genres=answers.genres, min_confidence=least)
    found, _ = all_ladders(answers, full_policy("abc"))
    random, said = np.random.default_rng(0), 0
    for one in found:
        choice = random.integers(0, len(GRID) + 1, len(one.steps) - 1)
        again = replay(answers, one.policy("candidate", choice))
        where = one.where(choice[None])[0]
        assert (one.genre[where, np.arange(len(where))] == again.genre).all()
        said += int((again.genre == NOTHING).sum())
    assert said > 0 or least == 0.0, "some tracks are of no genre that a stage knows"


@pytest.mark.parametrize("vote", ["soft", "top1"])
@pytest.mark.parametrize("seed", range(3))
def test_a_stage_that_abstains_ends_nothing_that_the_stages_before_it_did_not(vote: str, seed: int) -> None:
    answers = random_answers(60, {"a": 1, "b": 2, "c": 4}, hostile=True, seed=seed)
    random = np.random.default_rng(seed)
    tracks = []
    for one in answers.tracks:
        stages = {
            name: msgspec.structs.replace(
                stage, said=[msgspec.structs.replace(s, abstains=bool(random.random() < 0.4)) for s in stage.said]
            )
            for name, stage in one.stages.items()
        }
        tracks.append(msgspec.structs.replace(one, stages=stages))
    answers = record(answers.stages, tracks, genres=answers.genres)
    found, _ = all_ladders(answers, full_policy("abc", vote))
    for one in found:
        for _ in range(5):
            choice = random.integers(0, len(GRID) + 1, len(one.steps) - 1)
            again = replay(answers, one.policy("candidate", choice))
            where = one.where(choice[None])[0]
            assert (one.genre[where, np.arange(len(where))] == again.genre).all()
            np.testing.assert_allclose(one.cost[where, np.arange(len(where))], again.cost)


@pytest.mark.parametrize("seed", [0, 4, 9])  # a plain descent misses the best of these
def test_it_finds_what_trying_everything_finds(seed: int) -> None:
    answers = random_answers(80, {"a": 1, "b": 3}, windows=(1,), seed=seed)
    full = full_policy("ab")
    found, reference = all_ladders(answers, full)
    for goal in (0.9, 0.95):
        best = np.inf
        for one in found:
            for choice in itertools.product(range(len(GRID) + 1), repeat=len(one.steps) - 1):
                said = replay(answers, one.policy("candidate", np.array(choice)))
                if np.mean(said.genre == reference.genre) >= goal - 1e-9:
                    best = min(best, float(np.mean(said.cost)))
        proposal = propose(answers, full, Goal(goal), grid=GRID, margins=(0.0,), repeats=1)
        assert proposal.on_all.cost.mean == pytest.approx(best)


def test_a_stage_that_is_left_early_is_judged_and_paid_there() -> None:
    facts = [StageFacts(name=name, signal=name, windows=[1]) for name in ("a", "b")]
    both = {
        "a": heard(said(1, sure(0, 0.6), 1.0), said(10, sure(1, 0.9), 9.0)),
        "b": heard(said(1, sure(0, 0.5), 2.0), said(10, sure(0, 0.55), 18.0)),
    }
    short = {**both, "a": heard(said(1, sure(1, 0.9), 1.0), of=1)}
    policy = Policy("p", "soft", (Step("a", {"a": 1.0}, 0.7, 1), Step("b", {"b": 1.0})))
    found = replay(record(facts, [track(0, both), track(1, short)]), policy)
    assert found.genre.tolist() == [0, 1]
    assert found.stops == (("b", None), ("a", None))
    np.testing.assert_allclose(found.cost, [2.0 + 1.0 + 20.0, 2.0 + 1.0])


def test_a_threshold_and_windows_that_are_known() -> None:
    """After one window 60 % of the tracks are surely right at 0.8, and the others wrong at 0.6; after three all are."""
    facts = [StageFacts(name="a", signal="s", windows=[1, 3])]
    tracks = []
    for i in range(200):
        truth, easy = i % 3, i % 5 < 3
        first = sure(truth, 0.8) if easy else sure((truth + 1) % 3, 0.6)
        a = heard(said(1, first, 1.0), said(3, sure(truth, 0.7), 2.0), said(10, sure(truth, 0.9), 7.0))
        tracks.append(track(i, {"a": a}, label=["Alpha", "Beta", "Gamma"][truth]))
    proposal = propose(record(facts, tracks), Policy("full", "soft", (Step("a", {"a": 1.0}),)), Goal(1.0))
    first, second, last = proposal.policy.steps
    assert (first.windows, second.windows, last.windows, last.accept) == (1, 3, None, None)
    assert first.accept is not None and 0.6 <= first.accept < 0.8
    assert second.accept is not None and second.accept < 0.7
    # decode 2, then one window of 1 for 60 %, three for 40 %
    assert proposal.judged.cost.mean == pytest.approx(2 + 0.6 * 1 + 0.4 * 3)
    assert proposal.judged.agreement.mean == 1.0
    assert proposal.judged.accuracy is not None and proposal.judged.accuracy.mean == 1.0
    assert proposal.full.cost.mean == pytest.approx(12.0)


def expert_answers(first_price: float, second_price: float, needs: Sequence[str] = ()) -> Answers:
    """Either stage is sure and right on its own 70 % of the tracks; on what one does not know the other is sure."""
    facts = [StageFacts(name="a", signal="s"), StageFacts(name="b", signal="s", needs=list(needs))]
    tracks = []
    for i in range(200):
        knows_a, knows_b = i % 10 < 7, i % 10 >= 3
        a = heard(said(10, sure(0, 0.9) if knows_a else sure(1, 0.5), first_price), resample=1.0)
        b = heard(said(10, sure(0, 0.9) if knows_b else sure(1, 0.5), second_price), resample=1.0)
        tracks.append(track(i, {"a": a, "b": b}))
    return record(facts, tracks)


def test_the_cheaper_of_two_equal_stages_goes_first_and_one_signal_is_paid_once() -> None:
    full = full_policy("ab")
    for prices, order in (((1.0, 5.0), ("a", "b")), ((5.0, 1.0), ("b", "a"))):
        proposal = propose(expert_answers(*prices), full, Goal(1.0), repeats=2)
        assert proposal.policy.stages == order
        assert proposal.chosen == {order: 10}
        assert proposal.judged.cost.mean == pytest.approx(2 + 1 + 1 + 0.3 * 5)


def test_a_stage_comes_after_those_that_its_head_needs() -> None:
    proposal = propose(expert_answers(5.0, 1.0, needs=["a"]), full_policy("ab"), Goal(1.0), repeats=1)
    assert proposal.policy.stages == ("a", "b")


def test_other_weights_are_taken_where_they_are_better() -> None:
    """The full answer is b's; a alone knows the labels, so that only its weight gives an accuracy of 1."""
    facts = [StageFacts(name="a", signal="s"), StageFacts(name="b", signal="s", needs=["a"])]
    a, b = heard(said(10, sure(0, 0.9))), heard(said(10, sure(1, 0.8), 3.0))
    answers = record(facts, [track(i, {"a": a, "b": b}, label="Alpha") for i in range(50)])
    full = Policy("full", "soft", (Step("a", {"a": 1.0}, NEVER), Step("b", {"b": 1.0})))
    wanted = Goal(1.0, "accuracy")
    assert propose(answers, full, wanted).policy.steps == (Step("a", {"a": 1.0}),)
    proposal = propose(answers, full, Goal(1.0), weights=[{"a": 1.0}])
    assert proposal.policy.stages == ("a", "b") and proposal.full.accuracy is not None
    assert proposal.full.accuracy.mean == 0.0


def test_a_group_is_never_on_both_sides() -> None:
    """Each group has a confidence of its own at which the first stage is right, and a twin that must not help."""
    random = np.random.default_rng(5)
    facts = [StageFacts(name="a", signal="s", windows=[1])]
    alone, twins = [], []
    for i in range(60):
        confidence, right = random.uniform(0.4, 0.99), random.random() < 0.5
        a = heard(said(1, sure(0 if right else 1, confidence), 1.0), said(10, sure(0, 0.9), 9.0))
        alone.append(track(i, {"a": a}))
        twins += [track(2 * i, {"a": a}, group=f"g{i}"), track(2 * i + 1, {"a": a}, group=f"g{i}")]
    full = Policy("full", "soft", (Step("a", {"a": 1.0}),))
    fine = tuple(np.linspace(0.4, 0.99, 200))
    once = propose(record(facts, alone), full, Goal(0.9), grid=fine)
    twice = propose(record(facts, twins), full, Goal(0.9), grid=fine)
    leaky = [track(i, t.stages, group=f"own{i}") for i, t in enumerate(twins)]
    leak = propose(record(facts, leaky), full, Goal(0.9), grid=fine)
    assert twice.judged == once.judged
    assert leak.judged != once.judged


def test_noise_is_not_taken_for_a_saving() -> None:
    """A first window that knows nothing: what it seems to know where it is chosen is not what is told."""
    random = np.random.default_rng(1)
    facts = [StageFacts(name="a", signal="s", windows=[1])]
    tracks = []
    for i in range(150):
        guess = sure(int(random.integers(3)), random.uniform(0.4, 1.0))
        tracks.append(track(i, {"a": heard(said(1, guess, 1.0), said(10, sure(int(random.integers(3)), 0.9), 9.0))}))
    proposal = propose(record(facts, tracks), Policy("full", "soft", (Step("a", {"a": 1.0}),)), Goal(0.975))
    assert proposal.on_all.agreement.mean >= 0.975
    assert proposal.judged.agreement.mean >= 0.96
    assert proposal.judged.cost.mean > 0.9 * proposal.full.cost.mean


def test_what_is_wanted_is_met_on_tracks_that_were_not_seen() -> None:
    answers = random_answers(400, {"a": 1, "b": 4}, genres=11, seed=8)
    proposal = propose(answers, full_policy("ab"), Goal(0.97))
    assert proposal.judged.agreement.mean >= 0.965
    assert proposal.judged.cost.mean < 0.85 * proposal.full.cost.mean
    assert proposal.on_all == judged(
        answers, replay(answers, everything(full_policy("ab"))), replay(answers, proposal.policy)
    )
    fresh = random_answers(2000, {"a": 1, "b": 4}, genres=11, seed=9)
    new = judged(fresh, replay(fresh, everything(full_policy("ab"))), replay(fresh, proposal.policy))
    assert new.agreement.mean == pytest.approx(proposal.judged.agreement.mean, abs=0.015)
    assert new.cost.mean == pytest.approx(proposal.judged.cost.mean, rel=0.1)


def test_the_same_again() -> None:
    answers = random_answers(60, {"a": 1, "b": 4}, seed=2)
    full = full_policy("ab")
    assert propose(answers, full, Goal(0.95)) == propose(answers, full, Goal(0.95))


def test_what_cannot_be_is_refused() -> None:
    answers = random_answers(12, {"a": 1})
    full = Policy("full", "soft", (Step("a", {"a": 1.0}),))
    with pytest.raises(UsageError, match="12 tracks in 12 groups are too few for 13 folds"):
        propose(answers, full, Goal(0.9), folds=13)
    with pytest.raises(UsageError, match="expected at least 2 folds"):
        propose(answers, full, Goal(0.9), folds=1)
    for share in (0.0, 1.1, float("nan")):
        with pytest.raises(UsageError, match="above 0, at most 1"):
            Goal(share)
    unlabelled = record(
        answers.stages, [track(i, t.stages) for i, t in enumerate(answers.tracks)], genres=answers.genres
    )
    with pytest.raises(UsageError, match="no track has a label"):
        propose(unlabelled, full, Goal(0.9, "accuracy"))
    many = {name: heard(said(10, sure(0, 0.9))) for name in "abcdefghijklmnop"}
    with pytest.raises(UsageError, match="16 stages have too many orders"):
        propose(
            record([StageFacts(name=n, signal=n) for n in many], [track(i, many) for i in range(9)]), full, Goal(0.9)
        )
    wrong = [track(i, {"a": heard(said(10, sure(i % 2, 0.9)))}, label="Alpha") for i in range(20)]
    facts = [StageFacts(name="a", signal="s")]
    with pytest.raises(UsageError, match=r"accuracy 0.9 is not reached .* the most is 0.5,"):
        propose(record(facts, wrong), full, Goal(0.9, "accuracy"))
    with pytest.raises(UsageError, match="asks b, all windows, of which there are no answers"):
        replay(answers, full_policy("ab"))
    with pytest.raises(UsageError, match="asks a, 2 windows"):
        replay(answers, Policy("two", "soft", (Step("a", {"a": 1.0}, 0.5, 2), Step("a", {"a": 1.0}))))
