"""Judging without hearing: folds that do not leak, thresholds, doubts, the comparison."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="fitting needs the extra [fit]")
pytest.importorskip("onnx", reason="fitting needs the extra [fit]")
from scipy.special import softmax

from edge_reclass.cascade import Policy, Step
from edge_reclass_export.own_genres import same_genres
from edge_reclass_learn.fit import judging
from edge_reclass_learn.fit.doubts import source_warnings, without_listening, wrong_labels
from edge_reclass_learn.fit.gain import gain
from edge_reclass_learn.fit.heads import add_genres, fit_head
from edge_reclass_learn.fit.held_back import TAKEN, new_genres
from edge_reclass_learn.fit.judging import Said, Task, judge
from edge_reclass_learn.fit.policies import Answers, judged_anew, patient
from edge_reclass_learn.hearing.examples import Example, Facts, numbers
from edge_reclass_learn.hearing.listening import Listening

ONE = Policy("one", "soft", (Step("a", {"a": 1.0}),))
SIMPLE = Listening({"a": ("a",)}, {"a": (None,)}, {"a": ((("a", None),),)}, {"one": ONE}, ONE)


pytestmark = pytest.mark.usefixtures("quick")


def examples(vectors: np.ndarray, genres: list[str], groups: list[str]) -> list[Example]:
    return [
        Example(str(i), genre, group, {("a", None): vector.astype(np.float32)}, {"a": 1})
        for i, (vector, genre, group) in enumerate(zip(vectors, genres, groups, strict=True))
    ]


def accuracy(task: Task) -> float:
    judged = judge(task, 5, 0, lambda _: None)
    said = judged.said.logits["a"][SIMPLE.fullest("a")]
    return float((said.argmax(axis=1) == task.labels).mean())


def test_folds_that_are_dealt_already_stay() -> None:
    random = np.random.default_rng(0)
    genres = [("Jazz", "Rock")[i % 2] for i in range(24)]
    task = Task(
        examples(random.normal(0, 1, (24, 8)), genres, [f"g{i}" for i in range(24)]), ["Jazz", "Rock"], SIMPLE, {}
    )
    fixed = np.where(np.arange(24) < 12, np.arange(24) % 3, -1)
    judged = judge(task, 3, 0, lambda _: None, fixed)
    assert judged.folds[:12].tolist() == fixed[:12].tolist() and set(judged.folds[12:].tolist()) == {0, 1, 2}
    # What is said of a fold is what heads that were fitted on the others say.
    inside = np.flatnonzero(judged.folds == 1)
    alone = judging.ask(task, judging.fit(task, np.flatnonzero(judged.folds != 1)), inside)
    given = SIMPLE.fullest("a")
    np.testing.assert_allclose(judged.said.logits["a"][given][inside], alone.logits["a"][given])


def test_a_genre_that_lies_in_one_fold_has_no_part_in_temperatures() -> None:
    from edge_reclass_learn.evaluate.verdicts import _calibrated

    random = np.random.default_rng(0)
    genres = ["Jazz", "Rock"] * 12 + ["Lone"] * 4
    groups = [f"g{i}" for i in range(24)] + ["lone"] * 4
    task = Task(examples(random.normal(0, 1, (28, 8)), genres, groups), ["Jazz", "Lone", "Rock"], SIMPLE, {})
    judged = judge(task, 3, 0, lambda _: None)
    some = np.flatnonzero(judged.folds == judged.folds[-1])  # those of Lone among them
    given = SIMPLE.fullest("a")
    changed = {key: array.copy() for key, array in judged.said.logits["a"].items()}
    changed[given][24:] += 50.0 * np.array([1.0, -1.0, 1.0])
    other = replace(judged, said=Said({"a": changed}, {}))
    assert _calibrated(task, judged, some) == _calibrated(task, other, some)
    changed[given][some[0]] += 50.0 * np.array([1.0, -1.0, -1.0]) * (1 if task.labels[some[0]] else -1)
    assert _calibrated(task, judged, some) != _calibrated(task, other, some), "the others have"


def test_what_is_known_of_a_group_does_not_leak_into_its_fold() -> None:
    # Each artist has a sound of its own and one genre by chance: only who has heard the artist can know.
    random = np.random.default_rng(3)
    artist = np.repeat(np.arange(40), 4)
    vectors = random.normal(0, 1, (40, 100))[artist] + random.normal(0, 0.05, (160, 100))
    genres = [("Jazz", "Rock")[i] for i in random.permutation(np.arange(40) % 2)[artist]]
    grouped = Task(examples(vectors, genres, [f"g{a}" for a in artist]), ["Jazz", "Rock"], SIMPLE, {})
    apart = replace(grouped, examples=examples(vectors, genres, [f"g{i}" for i in range(160)]))
    assert accuracy(apart) > 0.9, "with the artist on both sides it looks good"
    assert accuracy(grouped) < 0.7


def test_temperatures_are_fair_to_a_genre_that_some_folds_do_not_know() -> None:
    random = np.random.default_rng(0)
    genres = ["Jazz"] * 30 + ["Rock"] * 30 + ["Folk"] * 6
    vectors = random.normal(0, 1, (66, 8)) + 2.0 * np.eye(8)[[["Jazz", "Rock", "Folk"].index(g) for g in genres]]
    groups = [f"g{i // 2}" for i in range(60)] + ["one"] * 6
    task = Task(examples(vectors, genres, groups), ["Folk", "Jazz", "Rock"], SIMPLE, {})
    assert 0.2 < judge(task, 5, 0, lambda _: None).temperatures["a"] < 3


def test_a_new_genre_takes_few_tracks_that_the_base_remembers() -> None:
    # The new genre lies all over one of the old ones.
    random = np.random.default_rng(0)
    genres = ["Jazz"] * 200 + ["Rock"] * 200 + ["New"] * 60
    centres = np.zeros((3, 8))
    centres[:2, :2] = 4.0 * np.eye(2)
    centres[2, 1:3] = 4.0, 1.5
    vectors = random.normal(0, 1, (460, 8)) + centres[np.repeat([0, 1, 2], (200, 200, 60))]
    tracks = examples(vectors, genres, [f"g{i}" for i in range(460)])
    old = [replace(one, remembered=one.genre != "New") for one in tracks]

    def said(some: list[Example]) -> tuple[np.ndarray, float]:
        judged = judge(Task(some, ["Jazz", "Rock", "New"], SIMPLE, {}), 5, 0, lambda _: None)
        return judged.said.logits["a"][SIMPLE.fullest("a")], judged.held_back["a"]

    def taken(said: np.ndarray) -> int:
        right = said[:400, :2].argmax(axis=1) == np.repeat([0, 1], 200)
        return int((right & (said[:400].argmax(axis=1) == 2)).sum())

    free, none = said(tracks)
    assert none == 0.0 and taken(free) > 10, "without a memory all genres count the same"
    held, amount = said(old)
    assert amount > 0.5 and taken(held) <= TAKEN * 400
    assert (held[400:].argmax(axis=1) == 2).sum() > 5, "what is unlike the old genres is still found"
    assert not new_genres([one for one in old if one.remembered], ["Jazz", "Rock"]).any()


def test_a_genre_is_added_beside_the_others_as_they_are() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], 40)
    features = random.normal(0, 1, (160, 8)) + 3.0 * np.eye(8)[labels]
    weights, new = np.ones(160), np.array([False, True, False, True])
    old = ~new[labels]
    head = fit_head(features[old], labels[old], weights[old], 4, strength=0.1)
    more = add_genres(head, features, labels, weights, new, strength=0.1)
    before, after = head.logits(features), more.logits(features)
    assert np.array_equal(before[:, ~new], after[:, ~new])
    assert (before.argmax(axis=1) == labels).mean() == 0.5 and (after.argmax(axis=1) == labels).mean() > 0.9
    # The same penalty and loss as where all are fitted together: about as sure of it.
    whole = fit_head(features, labels, weights, 4, strength=0.1).logits(features)
    assert np.corrcoef(softmax(whole, axis=1)[:, 3], softmax(after, axis=1)[:, 3])[0, 1] > 0.95


def ladder(accepts: tuple[float, ...]) -> tuple[Policy, Listening]:
    steps = tuple(Step(name, {name: 1.0}, accept) for name, accept in zip("abc", (*accepts, None), strict=False))
    policy = Policy("ladder", "soft", steps)
    givens = {name: (((name, None),),) for name in "abc"}
    heard = Listening({n: (n,) for n in "abc"}, dict.fromkeys("abc", (None,)), givens, {"ladder": policy}, policy)
    return policy, heard


def test_thresholds_are_chosen_again_within_what_may_go_wrong() -> None:
    policy, heard = ladder((0.77, 0.77))
    random = np.random.default_rng(0)
    total = 400
    labels = random.integers(0, 3, total)
    logits = {}
    for name, skill in (("a", 1.2), ("b", 2.0), ("c", 4.0)):
        noise = random.normal(0, 1, (total, 3))
        logits[name] = {((name, None),): noise + skill * np.eye(3)[labels]}
    tracks = [Example(str(i), "x", str(i), {}, {}) for i in range(total)]
    answers = Answers(heard, tracks, Said(logits, {}), dict.fromkeys("abc", 1.0), {}, 0.0)
    found = judged_anew(answers, policy)
    accepts = [step.accept for step in found.steps]
    assert 0.4 < accepts[0] <= 1.0 and accepts[1] <= accepts[0] and accepts[2] is None
    full = answers.genres(patient(policy))
    assert (answers.genres(found) != full).mean() <= 0.025
    stops = [number for _, number in answers.decide(found)]
    assert np.mean([number < 2 for number in stops]) > 0, "some tracks stop early"
    careless = replace(policy, steps=tuple(replace(s, accept=None if s.accept is None else 0.35) for s in policy.steps))
    assert (answers.genres(careless) != full).mean() > 0.025, "not any threshold does"
    always, _ = ladder((0.0, 1.0))
    assert [step.accept for step in judged_anew(answers, always).steps] == [0.0, 1.0, None]


def test_a_threshold_is_not_lowered_where_no_track_shows_it() -> None:
    # As in a memory: of every track only what the stage made of all its windows is known.
    policy = Policy("ladder", "soft", (Step("a", {"a": 1.0}, 0.77, 1), Step("a", {"a": 1.0})))
    heard = Listening({"a": ("a",)}, {"a": (1, None)}, {"a": ((("a", 1),), (("a", None),))}, {"ladder": policy}, policy)
    labels = np.random.default_rng(0).integers(0, 3, 200)
    logits = {given: 9.0 * np.eye(3)[labels] for given in heard.givens["a"]}

    def accept(windows: dict[str, int]) -> float | None:
        tracks = [Example(str(i), "x", str(i), {}, windows) for i in range(200)]
        answers = Answers(heard, tracks, Said({"a": logits}, {}), {"a": 1.0}, {}, 0.0)
        return judged_anew(answers, policy).steps[0].accept

    assert accept({"a": 5}) == 0.4, "all are right at once"
    assert accept({}) == 0.77


def test_a_source_that_gives_the_genre_away_is_warned_of() -> None:
    random = np.random.default_rng(0)
    tracks = []
    for i in range(60):
        genre = ("Jazz", "Rock")[i % 2]
        facts = Facts(14.0 + i % 2 + random.normal(0, 0.05), 44_100, random.normal(-15, 3), random.normal(200, 30))
        tracks.append(Example(str(i), genre, str(i), {}, {}, facts, ("tape", "radio")[i % 2]))
    labels, folds = numbers(tracks, ["Jazz", "Rock"]), np.arange(60) // 2 % 5
    found = {one.name: one.accuracy for one in without_listening(tracks, labels, folds, 2)}
    assert found["length"] == found["source"] == found["these four together"] == 1.0
    assert found["level"] < 0.8 and found["most frequent genre"] == 0.5
    said = source_warnings(tracks, without_listening(tracks, labels, folds, 2), 0.95)
    assert any("Jazz, Rock come from one source each" in one for one in said)
    assert any(one.startswith("warning: length alone finds 100.0%") for one in said)
    assert not any("level alone" in one for one in said)


def test_labels_that_look_most_wrong_come_first() -> None:
    tracks = [Example(name, "Jazz", name, {}, {}) for name in "abc"]
    probabilities = np.array([[0.6, 0.4], [0.01, 0.99], [0.9, 0.1]])
    found = wrong_labels(tracks, np.zeros(3, np.intp), probabilities, ["Jazz", "Rock"])
    assert [(one.example.name, one.said) for one in found] == [("b", "Rock"), ("a", "Jazz"), ("c", "Jazz")]
    assert found[0].loss == pytest.approx(-np.log(0.01))


def test_the_comparison_is_mcnemars() -> None:
    found = gain([True] * 5 + [False] * 10 + [True] * 5, [True] * 15 + [False] * 5)
    assert (found.tracks, found.base, found.new, found.only_base, found.only_new) == (20, 10, 15, 5, 10)
    # Twice the probability of 10 or more heads of 15 throws.
    assert found.p == pytest.approx(2 * 4944 / 2**15) and found.points == pytest.approx(25.0)
    assert gain([True], [True]).p == 1.0
    assert same_genres(["hiphop", "Folk"], ["Hip-Hop", "Rock"]) == {"hiphop": "Hip-Hop"}
