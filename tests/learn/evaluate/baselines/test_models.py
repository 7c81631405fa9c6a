"""Approaches learn what is there to be learnt, and nothing from the tracks that they are judged on."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("sklearn", reason="baselines need the extra [fit]")
pytest.importorskip("onnx", reason="baselines need the extra [fit]")

from edge_reclass.features import FEATURE_COUNT
from edge_reclass_learn.data.folds import deal
from edge_reclass_learn.evaluate.baselines import models
from edge_reclass_learn.evaluate.baselines.importance import feature_groups, importance
from edge_reclass_learn.evaluate.baselines.models import Fold, Training, fitted_in_folds, uncorrelated
from edge_reclass_learn.fit import judging

needs_xgboost = pytest.mark.skipif(find_spec("xgboost") is None, reason="xgboost is not installed")
LEARNERS = [
    pytest.param(models.nearest_centroid, id="nearest centroid"),
    pytest.param(models.logistic, id="logistic"),
    pytest.param(models.svm, id="svm"),
    pytest.param(models.histogram_trees, id="histogram trees"),
    pytest.param(models.xgboost_trees, id="xgboost", marks=needs_xgboost),
    pytest.param(models.reduced, id="reduced", marks=needs_xgboost),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "STRENGTHS", (0.01, 0.1))
    monkeypatch.setattr(models, "SVM_STRENGTHS", (1.0, 10.0))
    monkeypatch.setattr(models, "ROUNDS", 40)


def music(separable: bool, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.intp], list[str], NDArray[np.intp]]:
    """90 tracks of 3 genres and 30 artists, 12 features of which 4 may tell the genre; and 3 folds of them."""
    random = np.random.default_rng(seed)
    labels = np.arange(90) // 3 % 3
    rows = random.normal(0, 1, (90, 12))
    if separable:
        rows[:, :4] += 4.0 * np.eye(3, 4)[labels]
    rows = (rows * 10.0 ** random.uniform(-3, 3, 12)).astype(np.float32)  # so that scaling matters
    groups = [f"artist {i // 3}" for i in range(90)]
    return rows, labels, groups, deal(labels, groups, 3, 0)


def accuracy(fitted: list[Fold], rows: NDArray[np.float32], labels: NDArray[np.intp]) -> float:
    return float(np.mean(np.concatenate([fold.predict(rows[fold.inside]) == labels[fold.inside] for fold in fitted])))


@pytest.mark.parametrize("approach", LEARNERS)
def test_what_can_be_learnt_is_found_and_noise_is_not(approach: models.Fit) -> None:
    rows, labels, groups, folds = music(separable=True)
    assert accuracy(list(fitted_in_folds(approach, rows, labels, groups, folds, 0)), rows, labels) > 0.7
    noise = []
    for seed in range(2):
        rows, labels, groups, folds = music(separable=False, seed=seed)
        noise.append(accuracy(list(fitted_in_folds(approach, rows, labels, groups, folds, 0)), rows, labels))
    assert np.mean(noise) < 0.5  # 180 guesses at 1/3: 0.035 is one standard deviation


@pytest.mark.parametrize("approach", LEARNERS)
def test_the_tracks_of_a_fold_have_no_part_in_what_judges_them(approach: models.Fit) -> None:
    # A scaler, a filter or components that were fitted on all rows would move with the rows of the fold.
    rows, labels, groups, folds = music(separable=True)
    asked = np.random.default_rng(1).normal(0, 2, (200, 12)).astype(np.float32) * rows.std(axis=0)
    before = next(fitted_in_folds(approach, rows, labels, groups, folds, 0))
    changed, other = rows.copy(), labels.copy()
    changed[before.inside] = 1e4 * changed[before.inside] + 1e3
    other[before.inside] = (other[before.inside] + 1) % 3
    after = next(fitted_in_folds(approach, changed, other, groups, folds, 0))
    assert after.inside.tolist() == before.inside.tolist()
    assert after.predict(asked).tolist() == before.predict(asked).tolist()
    changed = rows.copy()
    changed[folds == folds[before.inside[0]] + 1] *= -3.0
    trained = next(fitted_in_folds(approach, changed, labels, groups, folds, 0))
    assert trained.predict(asked).tolist() != before.predict(asked).tolist(), "the others do have a part"


def test_the_most_frequent_genre_is_that_of_the_training_tracks() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    folds = np.array([1, 1, 1, 0, 0, 0, 0, 1])
    nothing = np.zeros((8, 0), np.float32)
    found = {
        int(folds[fold.inside[0]]): fold.predict(nothing[fold.inside]).tolist()
        for fold in fitted_in_folds(models.majority, nothing, labels, list("abcdefgh"), folds, 0)
    }
    assert found == {0: [0] * 4, 1: [1] * 4}


@pytest.mark.parametrize("approach", LEARNERS)
def test_where_there_is_nothing_to_learn_the_most_frequent_genre_is_said(approach: models.Fit) -> None:
    rows, labels, groups, folds = music(separable=True)
    one = np.where(folds == 0, 0, 1)  # fold 0 has all of genre 0: the training tracks of the others have both
    before = {int(folds[fold.inside[0]]): fold for fold in fitted_in_folds(approach, rows, one, groups, folds, 0)}
    assert set(before[0].predict(rows).tolist()) == {1}
    flat = np.ones_like(rows)
    labels[:20] = 2  # the most frequent one
    for fold in fitted_in_folds(approach, flat, labels, groups, folds, 0):
        assert set(fold.predict(flat).tolist()) == {2}


def test_rows_in_no_fold_have_no_part() -> None:
    rows, labels, groups, folds = music(separable=True)
    folds[:10] = -1
    changed = rows.copy()
    changed[:10] = np.nan
    for one, other in zip(
        fitted_in_folds(models.nearest_centroid, rows, labels, groups, folds, 0),
        fitted_in_folds(models.nearest_centroid, changed, labels, groups, folds, 0),
        strict=True,
    ):
        assert one.inside.min() >= 10 and one.predict(rows).tolist() == other.predict(rows).tolist()


def test_inner_folds_share_no_group() -> None:
    rows, labels, groups, _ = music(separable=True)
    splits = Training(rows, labels, groups, 0).splits
    assert len(splits) == judging.INNER_FOLDS
    for train, inside in splits:
        assert not {groups[i] for i in train} & {groups[i] for i in inside}


def test_of_columns_that_say_the_same_the_first_is_kept() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(0, 1, (2, 200))
    rows = np.column_stack([np.ones(200), one, -3 * one + 1e-3 * other, other, one + other]).astype(np.float32)
    assert uncorrelated(rows).tolist() == [1, 3, 4]
    assert uncorrelated(rows[:, :2]).tolist() == [1]


@needs_xgboost
def test_a_seed_gives_the_same_answers_and_the_same_importance() -> None:
    rows, labels, groups, folds = music(separable=True)
    columns = {"first": np.arange(4), "rest": np.arange(4, 12)}
    found = []
    for _ in range(2):
        fitted = list(fitted_in_folds(models.reduced, rows, labels, groups, folds, 3))
        said = [fold.predict(rows).tolist() for fold in fitted]
        found.append((said, importance(fitted, rows, labels, columns, 3)))
    assert found[0] == found[1]


def test_importance_is_what_is_lost_without_a_group_of_features() -> None:
    rows, labels, groups, folds = music(separable=True)
    rows = np.column_stack([rows, rows[:, :4]])  # a copy in the same group must not stand in for it
    fitted = list(fitted_in_folds(models.nearest_centroid, rows, labels, groups, folds, 0))
    columns = {"rest": np.arange(4, 12), "telling": np.array([0, 1, 2, 3, 12, 13, 14, 15])}
    found = importance(fitted, rows, labels, columns, 0)
    assert list(found) == ["telling", "rest"]
    assert found["telling"] > 0.4 and abs(found["rest"]) < 0.1


def test_the_groups_of_the_518_features_are_all_of_them() -> None:
    groups = feature_groups()
    assert sorted(np.concatenate(list(groups.values())).tolist()) == list(range(FEATURE_COUNT))
    assert len(groups["mfcc"]) == 140 and len(groups["tonnetz"]) == 42 and len(groups) == 11
