"""Approaches: how each learns genres from rows of features. Whatever is fitted or chosen comes from the training rows.

Genres count the same in all of them, as in the heads of edge-reclass. Whatever draws is seeded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass.cascade import Policy, Step
from edge_reclass_learn.data.folds import deal
from edge_reclass_learn.fit.judging import INNER_FOLDS, Task, fit
from edge_reclass_learn.hearing.examples import Example
from edge_reclass_learn.hearing.listening import Listening

CORRELATED: Final = 0.95
COMPONENTS: Final = 60
"""Of the principal component analysis behind the correlation filter."""
SVM_STRENGTHS: Final = (0.3, 1.0, 3.0, 10.0, 30.0)
"""C of the SVM, of which one is chosen in inner folds."""

ROUNDS: Final = 150
"""Of boosted trees; each has a tree for each genre."""

Rows = NDArray[np.float32]
Labels = NDArray[np.intp]
Predict = Callable[[Rows], Labels]


@dataclass(frozen=True)
class Training:
    """What an approach is given: float32[n, dim], labels intp[n], and the group of each row."""

    rows: Rows
    labels: Labels
    groups: Sequence[str]
    seed: int

    @property
    def splits(self) -> list[tuple[Labels, Labels]]:
        """Rows to fit on and rows to judge by, for each inner fold; groups stay together."""
        inner = deal(self.labels, self.groups, INNER_FOLDS, self.seed)
        found = [(np.flatnonzero(inner != fold), np.flatnonzero(inner == fold)) for fold in np.unique(inner)]
        return [(train, inside) for train, inside in found if len(np.unique(self.labels[train])) > 1]


Fit = Callable[[Training], Predict]


def majority(training: Training) -> Predict:
    """The most frequent genre."""
    from sklearn.dummy import DummyClassifier

    return _predict(DummyClassifier(strategy="most_frequent"), training)


def nearest_centroid(training: Training) -> Predict:
    """The genre whose mean is nearest, of standardised features."""
    from sklearn.neighbors import NearestCentroid
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        # It warns of features that are constant within a genre, which matters for shrunken centroids alone.
        warnings.simplefilter("ignore", UserWarning)
        return _predict(make_pipeline(StandardScaler(), NearestCentroid()), training)


def logistic(training: Training) -> Predict:
    """The recipe of a stage's head: multinomial logistic regression whose strength is chosen in inner folds."""
    asked = ("features", None)
    policy = Policy("probe", "soft", (Step("features", {"features": 1.0}),))
    heard = Listening({"features": ("features",)}, {"features": (None,)}, {"features": ((asked,),)}, {}, policy)
    genres = [str(number) for number in range(int(training.labels.max()) + 1)]
    examples = [
        Example("", genres[label], group, {asked: row}, {})
        for row, label, group in zip(training.rows, training.labels.tolist(), training.groups, strict=True)
    ]
    head = fit(Task(examples, genres, heard, {}), np.arange(len(examples))).heads["features"]
    return lambda rows: np.asarray(head.logits(rows).argmax(axis=1), np.intp)


def svm(training: Training) -> Predict:
    """Support vectors with a radial kernel; C is chosen in the inner folds."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    machine = make_pipeline(StandardScaler(), SVC(class_weight="balanced"))
    if splits := training.splits:
        machine = GridSearchCV(machine, {"svc__C": SVM_STRENGTHS}, scoring=_mean_recall, cv=splits)
    return _predict(machine, training)


def histogram_trees(training: Training) -> Predict:
    """scikit-learn's gradient-boosted trees."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    trees = HistGradientBoostingClassifier(
        max_iter=ROUNDS, max_leaf_nodes=15, max_features=0.2, class_weight="balanced", early_stopping=False,
        random_state=training.seed,
    )  # fmt: skip
    return _predict(trees, training)


def xgboost_trees(training: Training) -> Predict:
    """XGBoost, trees of depth 4. Raises ``ImportError`` where it is not installed."""
    from sklearn.utils.class_weight import compute_sample_weight
    from xgboost import XGBClassifier

    trees = XGBClassifier(
        n_estimators=ROUNDS, max_depth=4, learning_rate=0.1, subsample=0.8, colsample_bytree=0.2, tree_method="hist",
        n_jobs=1, random_state=training.seed,
    )  # fmt: skip
    known, labels = np.unique(training.labels, return_inverse=True)  # it wants all numbers from 0 on
    trees.fit(training.rows, labels, sample_weight=compute_sample_weight("balanced", labels))
    return lambda rows: np.asarray(known[trees.predict(rows)], np.intp)


def reduced(training: Training) -> Predict:
    """Correlation filter, 60 principal components of the standardised rest, XGBoost on those."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kept = uncorrelated(training.rows)
    parts = min(COMPONENTS, len(kept), len(training.rows))
    turned = make_pipeline(StandardScaler(), PCA(parts, svd_solver="full"))
    components = turned.fit_transform(training.rows[:, kept])
    predict = xgboost_trees(replace(training, rows=components))
    return lambda rows: predict(turned.transform(rows[:, kept]))


def uncorrelated(rows: Rows, most: float = CORRELATED) -> Labels:
    """Numbers of the columns that vary, and that no earlier such column correlates with by more than ``most``."""
    varies = np.flatnonzero(rows.std(axis=0) > 1e-12)
    alike = np.abs(np.corrcoef(rows[:, varies], rowvar=False)).reshape(len(varies), len(varies)) > most
    kept: list[int] = []
    for column in range(len(varies)):
        if not alike[column, kept].any():
            kept.append(column)
    return np.asarray(varies[kept], np.intp)


@dataclass(frozen=True)
class Fold:
    """A fold, and what was fitted on the others: the numbers of the fold's rows, and what predicts."""

    inside: Labels
    predict: Predict


def fitted_in_folds(
    approach: Fit, rows: Rows, labels: Labels, groups: Sequence[str], folds: Labels, seed: int
) -> Iterator[Fold]:
    """For each fold, ``approach`` fitted to the rows of the others. Rows in fold -1 have no part in anything.

    Where the others have one genre, or no column that varies, there is nothing to learn but the most frequent genre.
    """
    for fold in np.unique(folds[folds >= 0]):
        train = np.flatnonzero((folds >= 0) & (folds != fold))
        if len(train):
            own = Training(rows[train], labels[train], [groups[i] for i in train.tolist()], seed)
            able = len(np.unique(own.labels)) > 1 and (own.rows.std(axis=0) > 1e-12).any()
            yield Fold(np.flatnonzero(folds == fold), (approach if able else majority)(own))


def _predict(model: Any, training: Training) -> Predict:
    model.fit(training.rows, training.labels)
    return lambda rows: np.asarray(model.predict(rows), np.intp)


def _mean_recall(model: Any, rows: Rows, labels: Labels) -> float:
    """The mean recall of the genres that ``labels`` have."""
    right = model.predict(rows) == labels
    return float(np.mean([right[labels == genre].mean() for genre in np.unique(labels)]))
