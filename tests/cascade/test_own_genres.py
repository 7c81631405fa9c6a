"""Heads with genres of their own: how they are read, and how they vote with heads that know other genres."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bundles
import synth
from edge_reclass import Cascade
from edge_reclass.bundle import HeadEntry, load, manifest_text
from edge_reclass.bundle.manifest import validate
from edge_reclass.cascade import Answer, Policy, Step, decide, genre_map
from edge_reclass.cascade.policy import VOTES
from edge_reclass.errors import BundleError
from edge_reclass.verdict import ReasonCode

GENRES = ("Blues", "Rock", "Jazz", "Folk", "Spoken")


def head(mapping: dict[str, Any]) -> HeadEntry:
    return HeadEntry(file="h.onnx", inputs=["a"], genres=list(mapping), map=mapping)


def read(mapping: dict[str, Any], own: list[float]) -> tuple[dict[str, float], bool]:
    """What the bundle's genres get that get anything, and whether the head abstains."""
    made = genre_map(head(mapping), GENRES)
    assert made is not None
    probabilities, abstains = made(own)
    assert math.isclose(math.fsum(probabilities), 1.0)
    return {g: pytest.approx(p) for g, p in zip(GENRES, probabilities, strict=True) if p}, abstains


def test_several_of_a_heads_genres_may_be_one_and_one_may_be_several() -> None:
    mapping = {"blues": "Blues", "rock": "Rock", "metal": "Rock", "acoustic": {"Folk": 0.75, "Blues": 0.25}}
    assert read(mapping, [0.1, 0.2, 0.3, 0.4]) == ({"Blues": 0.2, "Rock": 0.5, "Folk": 0.3}, False)


def test_what_has_no_counterpart_is_taken_off_and_the_rest_divided_anew() -> None:
    assert read({"rock": "Rock", "jazz": "Jazz", "world": None}, [0.45, 0.15, 0.4]) == (
        {"Rock": 0.75, "Jazz": 0.25},
        False,
    )


def test_a_head_abstains_where_most_of_its_probability_has_no_counterpart() -> None:
    assert read({"rock": "Rock", "jazz": "Jazz", "world": None}, [0.3, 0.1, 0.6]) == (
        {"Rock": 0.75, "Jazz": 0.25},
        True,
    )
    assert read({"rock": "Rock", "jazz": "Jazz", "world": None}, [0.0, 0.0, 1.0]) == ({"Rock": 0.5, "Jazz": 0.5}, True)


def test_shares_that_are_rounded_still_sum_to_one() -> None:
    shares = {"Rock": 0.333, "Jazz": 0.333, "Folk": 0.333}
    assert read({"any": shares, "blues": "Blues"}, [1.0, 0.0])[0] == dict.fromkeys(shares, 1 / 3)


def test_a_head_with_the_bundles_genres_needs_no_reading() -> None:
    assert genre_map(HeadEntry(file="h.onnx", inputs=["a"]), GENRES) is None


# How they vote.

FULL, PART = "full", "part"
THREE = frozenset({0, 1, 2})


def policy(vote: str, **weights: float) -> Policy:
    names = list(weights)
    steps = [Step(name, {name: 1.0}, 1.0) for name in names[:-1]]
    return Policy("p", vote, (*steps, Step(names[-1], weights)))


def part(*of_three: float, **more: Any) -> Answer:
    """A stage that knows the first three genres alone."""
    return Answer(PART, (*of_three, 0.0, 0.0), says=THREE, **more)


def test_a_genre_that_one_stage_never_heard_of_is_what_the_other_says_it_is() -> None:
    answers = [Answer(FULL, (0.1, 0.1, 0.0, 0.2, 0.6)), part(0.0, 0.9, 0.1)]
    decision = decide(policy("soft", full=1.0, part=1.0), answers)
    assert decision.scores[3:] == pytest.approx((0.2, 0.6))
    assert decision.scores[:3] == pytest.approx((0.05, 0.05 + 0.1 * 0.9, 0.1 * 0.1))
    assert decision.genre == 4
    # Were its silence a vote of 0, even certainty would lose.
    sure = [Answer(FULL, (0.0, 0.0, 0.0, 0.0, 1.0)), part(0.0, 1.0, 0.0)]
    assert decide(policy("soft", full=0.3, part=0.7), sure).genre == 4


probabilities = st.lists(st.floats(1e-6, 1.0), min_size=5, max_size=5).map(
    lambda raw: tuple((np.array(raw) / math.fsum(raw)).tolist())
)
weights = st.floats(0.01, 10.0)


@given(probabilities, probabilities, weights, weights)
def test_no_weight_changes_how_a_genre_that_a_stage_does_not_know_compares_with_the_rest(
    whole: tuple[float, ...], some: tuple[float, ...], first: float, second: float
) -> None:
    known = np.array(some[:3]) / math.fsum(some[:3])
    scores = decide(policy("soft", full=first, part=second), [Answer(FULL, whole), part(*known.tolist())]).scores
    assert scores[3] == pytest.approx(whole[3]) and scores[4] == pytest.approx(whole[4])
    assert math.fsum(scores) == pytest.approx(1.0)
    # Among those that both know, it is their weighted mean, on what is left.
    left, total = 1.0 - whole[3] - whole[4], first + second
    expected = [(first * whole[g] + second * left * known[g]) / total for g in range(3)]
    assert scores[:3] == pytest.approx(expected)


subsets = st.frozensets(st.integers(0, 4), min_size=1)


@st.composite
def mixed_answers(draw: st.DrawFn) -> list[Answer]:
    made = []
    for name in "abc":
        says = draw(st.none() | subsets)
        raw = draw(probabilities)
        kept = [value * (says is None or g in says) for g, value in enumerate(raw)]
        made.append(Answer(name, tuple((np.array(kept) / math.fsum(kept)).tolist()), says=says))
    return made


@given(mixed_answers(), st.tuples(weights, weights, weights), st.permutations(range(3)))
def test_scores_of_any_lists_sum_to_one_in_any_order(
    answers: list[Answer], given_weights: tuple[float, ...], order: list[int]
) -> None:
    by_name = dict(zip("abc", given_weights, strict=True))
    _, scores = VOTES["soft"](answers, by_name)
    assert math.fsum(scores) == pytest.approx(1.0)
    assert all(-1e-12 <= score <= 1 + 1e-12 for score in scores)
    known = [answer.says for answer in answers]
    nobody = [g for g in range(5) if all(says is not None and g not in says for says in known)]
    assert all(scores[g] == 0.0 for g in nobody)
    assert VOTES["soft"]([answers[i] for i in order], by_name)[1] == scores


@settings(max_examples=200)
@given(st.lists(probabilities, min_size=1, max_size=3), st.tuples(weights, weights, weights))
def test_without_own_genres_the_votes_are_the_same_to_the_last_bit(
    said: list[tuple[float, ...]], given_weights: tuple[float, ...]
) -> None:
    answers = [Answer(name, values) for name, values in zip("abc", said, strict=False)]
    by_name = dict(zip("abc", given_weights, strict=True))
    total = math.fsum(by_name[answer.stage] for answer in answers)
    mean = tuple(math.fsum(by_name[a.stage] * a.probabilities[g] for a in answers) / total for g in range(5))
    assert VOTES["soft"](answers, by_name)[1] == mean
    tops = [0.0] * 5
    for answer in answers:
        tops[answer.top] += by_name[answer.stage] * answer.confidence
    assert VOTES["top1"](answers, by_name)[1] == tuple(score / total for score in tops)


def test_top1_leaves_a_genre_to_those_that_know_it_too() -> None:
    answers = [Answer(FULL, (0.1, 0.1, 0.0, 0.0, 0.8)), part(0.05, 0.9, 0.05)]
    decision = decide(policy("top1", full=1.0, part=1.0), answers)
    assert decision.genre == 4
    assert decision.confidence == pytest.approx(0.8)
    assert decision.scores[1] == pytest.approx(0.9 * 0.2 / 2)


def test_stages_that_know_nothing_in_common_share_the_vote() -> None:
    first = Answer("a", (1.0, 0.0, 0.0, 0.0, 0.0), says=frozenset({0, 1}))
    second = Answer("b", (0.0, 0.0, 0.0, 1.0, 0.0), says=frozenset({3, 4}))
    assert decide(policy("soft", a=1.0, b=1.0), [first, second]).scores == pytest.approx((0.5, 0, 0, 0.5, 0))


# Abstaining.


def test_who_abstains_is_weighed_as_if_it_were_not_there() -> None:
    full, away = Answer(FULL, (0.5, 0.2, 0.1, 0.1, 0.1)), part(0.0, 1.0, 0.0, abstains=True)
    both = policy("soft", full=1.0, part=3.0)
    assert decide(both, [full, away]).scores == decide(both, [full], after=PART).scores == full.probabilities
    first = policy("soft", part=1.0, full=1.0)
    assert decide(first, [away, full]).scores == full.probabilities


def test_where_all_abstain_the_verdict_is_unsure_and_never_early() -> None:
    steps = (Step(PART, {PART: 1.0}, 0.5), Step(FULL, {FULL: 1.0}))
    away = part(0.0, 0.9, 0.1, abstains=True)
    early = decide(Policy("p", "soft", steps), [away], after=PART)
    assert early.code is None and "a genre that the bundle does not have" in early.reason
    last = decide(Policy("p", "soft", steps), [away], after=FULL)
    assert last.unsure and last.code == ReasonCode.OUTSIDE_RANGE and last.genre == 1
    assert "part took it for a genre that the bundle does not have" in last.reason
    assert decide(Policy("p", "soft", steps), [away], after=FULL, min_confidence=0.0).code == ReasonCode.LAST_STAGE


# In a bundle.

OWN = {"alpha": "Alpha", "gamma": "Gamma", "acid": {"Alpha": 0.5, "Beta": 0.5}, "noise": None}


def own_stage(name: str, mapping: dict[str, Any] | None = None, **extra: Any) -> dict[str, Any]:
    mapping = OWN if mapping is None else mapping
    return bundles.waveform_stage(name, head={"genres": list(mapping), "map": mapping, **extra})


def own_bundle(root: Path, bias: tuple[float, ...], **extra: Any) -> Path:
    """A stage of the bundle's three genres, then one with four of its own."""
    stages = [bundles.waveform_stage("all"), own_stage("own", **extra)]
    bundles.make_bundle(root, stages, biases={"all": (0.0, 0.5, 0.0)}, accept=1.0)
    bundles.write_head(root / "heads/own.onnx", 8, classes=4, bias=bias)
    bundles.edit_manifest(
        root,
        policies={
            "ladder": {
                "vote": "soft",
                "steps": [
                    {"after": "all", "weights": {"all": 1.0}, "accept": 1.0},
                    {"after": "own", "weights": {"all": 1.0, "own": 1.0}},
                ],
            }
        },
    )
    bundles.rehash(root)
    return root


def test_a_stage_answers_over_the_bundles_genres_after_its_temperature(tmp_path: Path) -> None:
    root = own_bundle(tmp_path / "b", (2.0, 1.0, 0.0, -1.0), temperature=2.0)
    samples = synth.music(4.0, 16_000, channels=1)
    with Cascade.open(root) as cascade:
        answer = cascade.answers(samples, 16_000)[1]
        verdict = cascade.classify_samples(samples, 16_000)
    own = np.exp(np.array([2.0, 1.0, 0.0, -1.0]) / 2.0)
    mass = np.array([own[0] + own[2] / 2, own[2] / 2, own[1]])
    assert answer.probabilities == pytest.approx(tuple(mass / mass.sum()), abs=1e-4)
    assert not answer.abstains
    assert verdict.stages[1].genre == "Alpha" and not verdict.stages[1].abstains


def test_a_track_of_a_genre_that_the_bundle_lacks_is_judged_by_the_others(tmp_path: Path) -> None:
    root = own_bundle(tmp_path / "b", (0.0, 0.0, 0.0, 9.0))
    samples = synth.music(4.0, 16_000, channels=1)
    with Cascade.open(root) as cascade:
        verdict = cascade.classify_samples(samples, 16_000)
    assert verdict.genre == "Beta"
    assert verdict.stages[1].abstains
    assert verdict.to_dict()["stages"][1]["abstains"] is True
    assert verdict.from_dict(verdict.to_dict()).stages[1].abstains


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"alpha": "Alpha", "x": "Delta"}, ["stages.own.head.map.x", "Delta"]),
        ({"alpha": "Alpha", "x": {"Beta": 0.5, "Gamma": 0.4}}, ["stages.own.head.map.x", "sum to 1", "0.9"]),
        ({"alpha": "Alpha", "x": {"Beta": 0.5, "Delta": 0.5}}, ["stages.own.head.map.x", "Delta"]),
        ({"alpha": None, "x": None}, ["stages.own.head.map", "null for all"]),
        ({"alpha": "Alpha", "x": {}}, ["stages.own.head.map.x", "sum of 0"]),
        ({"alpha": "Alpha", "x": {"Beta": -1}}, ["map", "> 0.0"]),
        ({"alpha": "Alpha", "x": {"Beta": float("nan")}}, ["map", "x"]),
        ({"alpha": "Alpha", "x": 3}, ["map"]),
    ],
)
def test_a_map_that_does_not_fit_is_refused_with_its_key(
    tmp_path: Path, mapping: dict[str, Any], said: list[str]
) -> None:
    root = bundles.make_bundle(tmp_path / "b", [own_stage("own", mapping)])
    with pytest.raises(BundleError) as caught:
        load(root)
    assert all(part in str(caught.value) for part in [str(root / "bundle.yaml"), *said]), caught.value


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({"genres": ["alpha", "x"]}, ["stages.own.head", "go together"]),
        ({"map": {"alpha": "Alpha"}}, ["stages.own.head", "go together"]),
        ({"genres": ["alpha", "x"], "map": {"alpha": "Alpha"}}, ["stages.own.head.map", "nothing of x"]),
        ({"genres": ["alpha", "x"], "map": {"alpha": "Alpha", "x": "Beta", "y": "Beta"}}, ["head.map", "got y"]),
        ({"genres": ["alpha", "alpha"], "map": {"alpha": "Alpha"}}, ["stages.own.head.genres", "duplicate"]),
        ({"genres": ["alpha", "x\u202e"], "map": {"alpha": "Alpha", "x\u202e": "Beta"}}, ["head.genres", "U+202E"]),
        ({"genres": ["alpha"], "map": {"alpha": "Alpha"}}, ["genres", "2"]),
    ],
)
def test_genres_and_a_map_that_do_not_belong_together_are_refused(
    tmp_path: Path, head: dict[str, Any], said: list[str]
) -> None:
    root = bundles.make_bundle(tmp_path / "b", [bundles.waveform_stage("own", head=head)])
    with pytest.raises(BundleError) as caught:
        load(root)
    assert all(part in str(caught.value) for part in said), caught.value


def test_a_head_with_another_number_of_logits_than_its_genres_is_refused(tmp_path: Path) -> None:
    root = bundles.make_bundle(tmp_path / "b", [own_stage("own")])  # its head has three
    with pytest.raises(Exception, match="logits") as caught, Cascade.open(root):
        pass
    assert "4" in str(caught.value)


def test_a_manifest_with_own_genres_is_written_as_it_is_read(tmp_path: Path) -> None:
    manifest = load(own_bundle(tmp_path / "b", (0.0, 0.0, 0.0, 0.0))).manifest
    assert not list(validate(manifest))
    (tmp_path / "b/bundle.yaml").write_text(manifest_text(manifest), encoding="utf-8")
    assert load(tmp_path / "b").manifest == manifest
