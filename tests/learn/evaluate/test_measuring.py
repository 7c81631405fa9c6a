"""Figures of verdicts that are known: against scikit-learn, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="evaluating needs the extra [evaluate]")
pytest.importorskip("onnx", reason="evaluating needs the extra [evaluate]")
from sklearn import metrics

from edge_reclass.cascade import Policy, Step
from edge_reclass_learn.evaluate.breakdowns import breakdowns
from edge_reclass_learn.evaluate.comparing import compare
from edge_reclass_learn.evaluate.intervals import bootstrap, share, worth
from edge_reclass_learn.evaluate.measuring import calibration, confusion, funnel, genre_figures, risk_coverage, top
from edge_reclass_learn.evaluate.verdicts import Verdicts, some_of, spread
from edge_reclass_learn.hearing.examples import Example, Facts

NAMES = ["Alpha", "Beta", "Gamma", "Delta"]


def verdicts(
    genre: list[int], confidence: list[float] | None = None, unsure: tuple[int, ...] = (), **more: object
) -> Verdicts:
    """``unsure``: numbers of the tracks that are."""
    total = len(genre)
    sure = np.array(confidence or [0.9] * total)
    scores = np.repeat(((1 - sure) / 3)[:, None], 4, axis=1)
    scores[np.arange(total), genre] = sure
    plain = {
        "genre": np.array(genre),
        "confidence": sure,
        "scores": scores,
        "given": np.array(genre),
        "given_confidence": sure,
        "unsure": np.isin(np.arange(total), unsure),
        "outside": np.zeros(total, np.bool_),
        "step": np.zeros(total, np.intp),
        "came": np.ones((total, 1), np.bool_),
    }
    return Verdicts(**(plain | more))


def random_answers(seed: int = 0, total: int = 300) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, total)
    said = np.where(random.random(total) < 0.6, labels, random.integers(0, 4, total))
    return labels, said, [f"g{i // 3}" for i in range(total)]


def test_wilsons_interval() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 and 0 of 20.
    found = share(81, 263)
    assert found is not None
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662) and found.value == 81 / 263
    none = share(0, 20)
    assert none is not None and none.low == pytest.approx(0) and round(none.high, 4) == 0.1611
    assert share(0, 0) is None


def test_means_over_genres_are_those_of_scikit_learn() -> None:
    labels, said, groups = random_answers()
    found = worth(labels, said, groups, 4, seed=0, draws=50)
    assert found.accuracy.value == metrics.accuracy_score(labels, said)
    assert found.balanced.value == pytest.approx(metrics.recall_score(labels, said, labels=[0, 1, 2], average="macro"))
    assert found.macro_f1.value == pytest.approx(metrics.f1_score(labels, said, labels=[0, 1, 2], average="macro"))
    each = metrics.precision_recall_fscore_support(labels, said, labels=[0, 1, 2])
    figures = genre_figures(NAMES, labels, said, groups, found)
    assert [one.genre for one in figures] == NAMES[:3]
    for one, precision, recall, f1, support in zip(figures, *each, strict=True):
        assert one.precision is not None
        values = [one.precision.value, one.recall.value, one.f1.value]
        assert values == pytest.approx([precision, recall, f1]) and one.tracks == support
        for figure in (one.precision, one.recall, one.f1):
            assert figure.low <= figure.value <= figure.high


def test_what_is_never_said_has_no_precision() -> None:
    labels, said = np.array([0, 0, 1]), np.array([0, 0, 0])
    found = worth(labels, said, ["a", "b", "c"], 4, seed=0, draws=50)
    alpha, beta = genre_figures(NAMES, labels, said, ["a", "b", "b"], found)
    assert (alpha.precision is not None, beta.precision, beta.f1.value) == (True, None, 0.0)
    assert (alpha.groups, beta.groups, beta.said, alpha.found) == (2, 1, 0, 2)


def test_the_bootstrap_draws_groups() -> None:
    random = np.random.default_rng(0)
    right = np.repeat(random.random(40) < 0.5, 10).astype(float)

    def mean(weights: np.ndarray) -> np.ndarray:
        return np.array([weights @ right / weights.sum()])

    apart, together = (bootstrap([f"g{i // size}" for i in range(400)], mean, seed=1, draws=400)[0] for size in (1, 10))
    # 40 draws of a coin: 1.96 · sqrt(1/4 / 40) = 0.155 on either side; of 400: 0.049.
    assert together.high - together.low == pytest.approx(0.31, abs=0.06)
    assert apart.high - apart.low == pytest.approx(0.098, abs=0.02)
    again = bootstrap([f"g{i // 10}" for i in range(400)], mean, seed=1, draws=400)[0]
    assert again == together
    assert bootstrap([f"g{i // 10}" for i in range(400)], mean, seed=2, draws=400)[0] != together


def test_confusions() -> None:
    labels = np.array([0, 0, 0, 2, 2])
    found = confusion(NAMES, labels, verdicts([0, 1, 0, 2, 3], unsure=(2,)))
    assert found.labels == ["Alpha", "Gamma"] and found.said == [*NAMES, "unsure"]
    assert found.counts == [[1, 1, 0, 0, 1], [0, 0, 1, 1, 0]]


def test_calibration_by_hand() -> None:
    # Two tracks said with 0.9, one of them right; two with 0.5, one of them right; one with 1, right.
    labels = np.array([0, 0, 1, 1, 2])
    found = calibration(labels, verdicts([0, 1, 1, 0, 2], [0.9, 0.9, 0.5, 0.5, 1.0]))
    assert found.ece == pytest.approx((2 * 0.4 + 0.0 + 0.0) / 5)
    assert [bin.tracks for bin in found.bins if bin.tracks] == [2, 2, 1] and len(found.bins) == 15
    nine = next(bin for bin in found.bins if bin.low < 0.9 <= bin.high)
    assert nine.accuracy is not None
    assert (nine.confidence, nine.accuracy.value, nine.tracks) == (pytest.approx(0.9), 0.5, 2)
    assert found.bins[0].accuracy is None and found.bins[0].confidence is None

    def brier(own: float) -> list[float]:  # of a right and of a wrong answer
        rest = (1 - own) / 3
        return [(1 - own) ** 2 + 3 * rest**2, own**2 + (1 - rest) ** 2 + 2 * rest**2]

    assert found.brier == pytest.approx(np.sum([*brier(0.9), *brier(0.5), 0.0]) / 5)


def test_risk_over_coverage_by_hand() -> None:
    labels = np.zeros(4, np.intp)
    # Surest first: right, then a right and a wrong one that are equally sure, then a wrong one from outside.
    found = verdicts([0, 0, 1, 1], [0.9, 0.6, 0.6, 0.95], unsure=(3,), outside=np.array([False, False, False, True]))
    curve = risk_coverage(labels, found, 0.5)
    assert [(p.confidence, p.coverage, p.risk) for p in curve.points] == [
        (0.9, 0.25, 0),
        (0.6, 0.75, 1 / 3),
        (0, 1, 0.5),
    ]
    assert curve.aurc == pytest.approx((0 + 0.5 / 2 + 1 / 3 + 2 / 4) / 4)
    assert curve.chosen is not None and (curve.chosen.coverage, curve.chosen.risk) == (0.75, pytest.approx(1 / 3))
    assert (0.75, 1 / 3) in [(p.coverage, p.risk) for p in curve.points]
    assert risk_coverage(labels, found, None).chosen is None
    nobody = risk_coverage(labels, verdicts([0] * 4, unsure=(0, 1, 2, 3)), 0.99).chosen
    assert nobody is not None and (nobody.coverage, nobody.risk) == (0.0, None)


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    random = np.random.default_rng(0)
    confidence = random.random(3000)
    labels = (random.random(3000) > confidence).astype(np.intp)
    curve = risk_coverage(labels, verdicts([0] * 3000, confidence.tolist()), None)
    assert len(curve.points) == 200
    assert curve.points[0].coverage == pytest.approx(1 / 3000) and curve.points[-1].coverage == 1.0
    assert curve.points[-1].risk == pytest.approx(labels.mean())
    assert curve.aurc == pytest.approx(np.mean([p.risk for p in curve.points]), abs=0.02)


def test_the_first_three() -> None:
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 4, 200), random.random((200, 4))
    for most in (1, 2, 3):
        found = top(scores, labels, most).mean()
        assert found == pytest.approx(metrics.top_k_accuracy_score(labels, scores, k=most, labels=range(4)))
    assert top(np.zeros((1, 4)), np.array([2]), 3).all() and not top(np.zeros((1, 4)), np.array([3]), 3).any()


def test_the_funnel() -> None:
    policy = Policy("p", "soft", (Step("a", {"a": 1.0}, 0.5, 1), Step("a", {"a": 1.0}, 0.4), Step("b", {"b": 1.0})))
    came = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 1, 1]], np.bool_)
    found = verdicts([0, 0, 1, 1], unsure=(3,), step=np.array([0, 1, 1, 2]), came=came)
    steps = funnel(np.array([0, 0, 0, 0]), found, policy, {1: 5.0}, thresholds=True)
    assert [(s.stage, s.windows, s.accept) for s in steps] == [("a", 1, 0.5), ("a", None, 0.4), ("b", None, None)]
    assert [(s.reached, s.stopped, s.unsure) for s in steps] == [(3, 1, 0), (3, 2, 0), (1, 1, 1)]
    assert [s.accuracy.value for s in steps if s.accuracy] == [1.0, 0.5, 0.0]
    assert [s.milliseconds for s in steps] == [None, 5.0, None]
    assert all(s.accept is None for s in funnel(np.zeros(4), found, policy, {}, thresholds=False))


def test_by_length_rate_type_and_source() -> None:
    def track(name: str, source: str | None, *facts: float) -> Example:
        known = Facts(facts[0], int(facts[1]), facts[2], facts[3]) if facts else None
        return Example(name, "Alpha", "g", {}, {}, known, source)

    tracks = [
        track("/m/a.MP3", "x", 4.9, 44_100, -12.0, 320.0),
        track("/m/b.ogg", "y", 5.0, 22_050, -50.0, 63.0),
        track("/m/c.ogg", None, 400.0, 44_100, -12.0, 128.0),
        track("/m/noname", "y"),
    ]
    found = {one.name: one for one in breakdowns(tracks, np.array([True, False, True, True]))}

    def shown(name: str) -> list[tuple[str, int, float]]:
        return [(one.value, one.tracks, one.accuracy.value) for one in found[name].slices]

    assert shown("length") == [("below 5 s", 1, 1.0), ("5 to 10 s", 1, 0.0), ("300 s and more", 1, 1.0)]
    assert shown("sampling rate") == [("22050 Hz", 1, 0.0), ("44100 Hz", 2, 1.0)]
    assert shown("loudness") == [("below -35 dBFS", 1, 0.0), ("-15 to -10 dBFS", 2, 1.0)]
    assert shown("bit rate")[0] == ("below 64 kbit/s", 1, 0.0)
    assert shown("file type") == [("mp3", 1, 1.0), ("ogg", 2, 0.5)]
    assert shown("source") == [("x", 1, 1.0), ("y", 2, 0.5)]
    assert {name: one.unknown for name, one in found.items()} == {
        "length": 1, "sampling rate": 1, "loudness": 1, "bit rate": 1, "file type": 1, "source": 1
    }  # fmt: skip
    assert not breakdowns([track("noname", None)], np.array([True]))


def test_two_bundles_by_hand() -> None:
    first = np.array([1, 1, 1, 0, 0, 0, 0, 0, 1, 0], np.bool_)
    second = np.array([1, 0, 1, 1, 1, 1, 1, 1, 1, 0], np.bool_)
    same = np.array([1, 0, 1, 0, 0, 0, 0, 0, 1, 1], np.bool_)
    found = compare(("a", "b"), (first, second), same, [f"g{i}" for i in range(10)], ["Alpha"], seed=0, draws=300)
    assert (found.both_right, found.only_a, found.only_b, found.both_wrong, found.same) == (3, 1, 5, 1, 4)
    assert found.difference.value == pytest.approx(0.4)
    assert found.p == pytest.approx(2 * (1 + 6) / 2**6)  # at most 1 of 6 coins
    assert found.difference.low < 0.4 < found.difference.high
    equal = compare(("a", "b"), (first, first), same, ["g"] * 10, ["Alpha"], seed=0, draws=20)
    assert (equal.p, equal.difference.low, equal.difference.high) == (1.0, 0.0, 0.0)


def test_verdicts_over_fewer_genres_and_of_some_tracks() -> None:
    few = verdicts([0, 3, 1])
    wide = spread(few, NAMES, ["Zeta", *reversed(NAMES)])
    assert wide.genre.tolist() == [4, 1, 3] == wide.given.tolist()
    assert wide.scores[0].tolist() == [0.0, *few.scores[0][::-1].tolist()]
    assert some_of(wide, np.array([2, 0])).genre.tolist() == [3, 4]
