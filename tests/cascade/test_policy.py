"""Policies: the legacy vote exactly as documented, the soft vote, exits, ties, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reclass.cascade.policy import PRESETS, Answer, Policy, Step, check, decide, preset
from edge_reclass.errors import UsageError

GENRES = 4


def answer(stage: str, top: int, confidence: float, size: int = GENRES) -> Answer:
    rest = (1 - confidence) / (size - 1)
    return Answer(stage, tuple(confidence if g == top else rest for g in range(size)))


def two_steps(vote: str, accept: float, weights: dict[str, float]) -> Policy:
    return Policy("p", vote, (Step("a", {"a": 1.0}, accept), Step("b", weights)))


def test_fmj_ev_exits_after_fma_only_above_its_threshold() -> None:
    policy = PRESETS["fmj-ev"]
    assert decide(policy, [answer("fma", 2, 0.96)]).stop
    at = decide(policy, [answer("fma", 2, 0.95)])
    assert (at.stop, at.genre, at.confidence) == (False, 2, 0.95)


def test_fmj_ev_vote_of_stages_that_agree() -> None:
    decision = decide(PRESETS["fmj-ev"], [answer("fma", 1, 0.9), answer("mert", 1, 0.95)])
    assert decision.confidence == pytest.approx(0.4 * 0.9 + 0.6 * 0.95)
    assert decision.stop
    assert decision.genre == 1


@given(st.floats(0.3, 1.0), st.floats(0.3, 1.0))
def test_two_stages_that_disagree_never_exit(first: float, second: float) -> None:
    decision = decide(PRESETS["fmj-ev"], [answer("fma", 0, first), answer("mert", 3, second)])
    assert not decision.stop
    assert decision.confidence <= 0.6
    assert decision.genre == (0 if 0.4 * first > 0.6 * second else 3)


def test_last_stage_decides_however_unsure() -> None:
    answers = [answer("fma", 0, 0.4), answer("mert", 1, 0.4), answer("jmla", 2, 0.4)]
    decision = decide(PRESETS["fmj-ev"], answers)
    assert decision.stop
    assert decision.genre == 2
    assert decision.confidence == pytest.approx(0.16)


def test_two_against_one() -> None:
    answers = [answer("fma", 0, 0.7), answer("mert", 0, 0.5), answer("jmla", 2, 0.9)]
    decision = decide(PRESETS["fmj-ev"], answers)
    assert decision.genre == 2, "0.40 × 0.9 > 0.25 × 0.7 + 0.35 × 0.5"
    assert decision.scores[0] == pytest.approx(0.35)


def test_top1_tie_goes_to_the_more_confident_stage_then_to_genre_order() -> None:
    policy = two_steps("top1", 0.99, {"a": 0.4, "b": 0.6})
    # 0.4 × 0.75 and 0.6 × 0.5 are both 0.3.
    assert decide(policy, [answer("a", 3, 0.75), answer("b", 1, 0.5)]).genre == 3
    even = two_steps("top1", 0.99, {"a": 0.5, "b": 0.5})
    assert decide(even, [answer("a", 3, 0.5), answer("b", 1, 0.5)]).genre == 1


def test_plex_outline_accepts_at_its_threshold_and_plex_config_does_not() -> None:
    assert decide(PRESETS["plex-outline"], [answer("fma", 0, 0.8)]).stop
    assert not decide(PRESETS["plex-outline"], [answer("fma", 0, math.nextafter(0.8, 0))]).stop
    assert not decide(PRESETS["plex-config"], [answer("fma", 0, 0.85)]).stop
    assert decide(PRESETS["plex-config"], [answer("fma", 0, 0.8500001)]).stop


def test_soft_vote_is_the_weighted_mean() -> None:
    policy = two_steps("soft", 0.9, {"a": 1.0, "b": 3.0})
    decision = decide(policy, [Answer("a", (0.7, 0.2, 0.1)), Answer("b", (0.1, 0.6, 0.3))])
    assert decision.scores == pytest.approx((0.25, 0.5, 0.25))
    assert decision.genre == 1
    assert sum(decision.scores) == pytest.approx(1)


def test_soft_tie_goes_to_genre_order() -> None:
    policy = two_steps("soft", 0.9, {"b": 1.0})
    assert decide(policy, [answer("a", 0, 0.5, 3), Answer("b", (0.2, 0.4, 0.4))]).genre == 1


probabilities = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(
    lambda values: tuple(v / sum(values) for v in values)
)


@given(probabilities, st.floats(0, 1), st.floats(0, 1), st.sampled_from(["top1", "soft"]))
def test_a_higher_threshold_never_stops_earlier(values: tuple[float, ...], low: float, high: float, vote: str) -> None:
    low, high = sorted((low, high))
    said = [Answer("a", values)]
    if decide(two_steps(vote, high, {"b": 1.0}), said).stop:
        assert decide(two_steps(vote, low, {"b": 1.0}), said).stop


@given(probabilities, probabilities, st.sampled_from(["top1", "soft"]))
def test_the_genre_has_the_highest_score_and_the_confidence_is_its_score(
    first: tuple[float, ...], second: tuple[float, ...], vote: str
) -> None:
    decision = decide(two_steps(vote, 0.5, {"a": 0.4, "b": 0.6}), [Answer("a", first), Answer("b", second)])
    assert decision.confidence == max(decision.scores) == decision.scores[decision.genre]
    assert 0 <= decision.confidence <= 1 + 1e-12


def test_decide_refuses_answers_of_other_stages() -> None:
    with pytest.raises(ValueError, match="in this order"):
        decide(PRESETS["fmj-ev"], [answer("mert", 0, 0.5), answer("fma", 0, 0.5)])
    with pytest.raises(ValueError, match="expected answers of stages"):
        decide(PRESETS["fmj-ev"], [answer("musicnn", 0, 0.5)])
    with pytest.raises(ValueError, match="in this order"):
        decide(PRESETS["fmj-ev"], [answer("fma", 0, 0.5), answer("mert", 0, 0.5)], after="fma")
    with pytest.raises(ValueError, match="expected answers of stages"):
        decide(PRESETS["fmj-ev"], [])
    with pytest.raises(ValueError, match="number of genres"):
        decide(PRESETS["fmj-ev"], [answer("fma", 0, 0.5, 3), answer("mert", 0, 0.5, 4)])


def test_preset_needs_its_three_stages() -> None:
    assert preset("fmj-ev", ["jmla", "fma", "mert"]) is PRESETS["fmj-ev"]
    with pytest.raises(UsageError, match=r"stages fma, mert, jmla; this bundle has fma, musicnn") as error:
        preset("fmj-ev", ["fma", "musicnn"])
    assert error.value.exit_code == 2
    with pytest.raises(UsageError, match="fmj-ev, model-notes, plex-config, plex-outline"):
        preset("nope", ["fma"])


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy("p", "borda", (Step("a", {"a": 1.0}),)), "expected one of top1, soft, got 'borda'"),
        (Policy("p", "soft", ()), "expected at least one"),
        (Policy("p", "soft", (Step("x", {"x": 1.0}),)), "expected one of the stages a, b, got 'x'"),
        (Policy("p", "soft", (Step("a", {"a": 1.0}, 0.5), Step("a", {"a": 1.0}))), "has run before"),
        (
            Policy("p", "soft", (Step("a", {"b": 1.0}, 0.5), Step("b", {"b": 1.0}))),
            "weights for b, but only a",
        ),
        (Policy("p", "soft", (Step("a", {"a": 0.0}),)), "sum above 0"),
        (Policy("p", "soft", (Step("a", {"a": -1.0}),)), "weights that are 0 or from 1e-06 to 1e+06"),
        (Policy("p", "soft", (Step("a", {"a": math.nan}),)), "weights that are 0 or from 1e-06 to 1e+06"),
        (Policy("p", "soft", (Step("a", {"a": 1.0}, 0.5),)), "always decides"),
        (Policy("p", "soft", (Step("a", {"a": 1.0}), Step("b", {"b": 1.0}))), "would never run"),
        (Policy("p", "soft", (Step("a", {"a": 1.0}, 1.5), Step("b", {"b": 1.0}))), "0 ≤ accept ≤ 1"),
    ],
)
def test_faulty_policies_are_named(policy: Policy, message: str) -> None:
    assert any(message in fault for fault in check(policy, ["a", "b"]))


def test_presets_have_no_faults() -> None:
    for policy in PRESETS.values():
        assert check(policy, ["fma", "mert", "jmla"]) == []


def test_reasons_never_contradict_themselves() -> None:
    policy = two_steps("soft", 0.9, {"b": 1.0})
    above, below = math.nextafter(0.9, 1), math.nextafter(0.9, 0)
    assert decide(policy, [answer("a", 0, above)]).reason == f"{above!r} > 0.9 after a"
    assert decide(policy, [answer("a", 0, below)]).reason == f"{below!r} ≤ 0.9 after a"
    assert decide(PRESETS["plex-outline"], [answer("fma", 0, 0.8)]).reason == "0.8 > 0.7999999999999999 after fma"


def test_a_silent_stage_is_as_if_the_policy_did_not_have_it() -> None:
    policy = PRESETS["fmj-ev"]
    decision = decide(policy, [answer("mert", 1, 0.95)])
    assert (decision.stop, decision.genre, decision.confidence) == (True, 1, pytest.approx(0.95))
    # A silent last stage leaves the vote as it was after the last stage that answered, which is then final.
    decision = decide(policy, [answer("fma", 2, 0.4)], after="jmla")
    assert (decision.stop, decision.genre, decision.confidence) == (True, 2, pytest.approx(0.4))
    # Where the step gives weight to silent stages only, those that answered count the same.
    policy = two_steps("soft", 0.9, {"a": 1.0})
    assert decide(policy, [answer("b", 3, 0.8)]).confidence == pytest.approx(0.8)


def test_outside_of_the_range_nothing_is_accepted_and_the_verdict_is_unsure() -> None:
    policy = two_steps("soft", 0.9, {"b": 1.0})
    strange = Answer("a", answer("a", 0, 0.99).probabilities, outside=True)
    first = decide(policy, [strange])
    assert (first.stop, first.code) == (False, None)
    last = decide(policy, [strange, answer("b", 0, 0.99)])
    assert (last.stop, last.code, last.unsure) == (True, "outside_range", True)
    assert "what a heard" in last.reason
    off = decide(policy, [strange, answer("b", 0, 0.99)], min_confidence=0.0)
    assert (off.code, off.unsure) == ("last_stage", False)
    assert not decide(policy, [strange], min_confidence=0.0).stop


def test_a_confidence_below_the_least_is_unsure_and_no_reason_to_stop() -> None:
    policy = two_steps("soft", 0.5, {"b": 1.0})
    assert decide(policy, [answer("a", 0, 0.6)]).code == "accepted"
    assert not decide(policy, [answer("a", 0, 0.6)], min_confidence=0.7).stop
    low = decide(policy, [answer("a", 0, 0.6), answer("b", 1, 0.65)], min_confidence=0.7)
    assert (low.stop, low.code, low.genre) == (True, "low_confidence", 1)
    assert decide(policy, [answer("a", 0, 0.6), answer("b", 1, 0.7)], min_confidence=0.7).code == "last_stage"
