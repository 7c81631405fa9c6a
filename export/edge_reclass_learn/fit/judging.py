"""What heads say of tracks that they were not fitted on.

The examples are dealt into folds that share no group. What is said of a fold comes from heads that were fitted on the
others. How strongly a head is held back (scikit-learn's C) is chosen anew within those others, by inner folds, so that
no fold has a say in the heads that it judges. Temperatures, the limit of the range test, and how much new genres are
held back, come from these answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from edge_reclass_learn.data.folds import deal
from edge_reclass_learn.fit import mlp, trees
from edge_reclass_learn.fit.heads import Array, add_genres, balanced_weights, fit_head, fit_temperature
from edge_reclass_learn.fit.held_back import AnyHead, held_back, new_genres
from edge_reclass_learn.fit.ranges import RangeTest, fit_range
from edge_reclass_learn.hearing.examples import Example, numbers, rows
from edge_reclass_learn.hearing.listening import Given, Listening
from edge_reclass_learn.progress import Say

STRENGTHS: Final = (0.001, 0.003, 0.01, 0.03, 0.1)
"""scikit-learn's C for weights of mean 1; small ones hold the weights back more."""
INNER_FOLDS: Final = 3
FALSE_ALARMS: Final = 0.01
"""Share of the tracks, out of fold, that the range test may call outside."""
KINDS: Final = ("logistic", "mlp", "trees")
"""Of heads: multinomial logistic regression, k → 256 → 128 → genres, gradient-boosted trees."""
_SEED: Final = 1
"""Of the inner folds."""

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class RangeInputs:
    """What the range test of a stage is given, and the made signals that it tells from music: float32[n, width]."""

    given: Given
    nonsense: NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """What is to be fitted: examples, their genres' numbers, and what each stage's head and range test are given.

    kinds: of the heads by stage; logistic where it says nothing
    """

    examples: Sequence[Example]
    genres: Sequence[str]
    heard: Listening
    ranges: Mapping[str, RangeInputs]
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> Rows:
        """The number of each example's genre."""
        return numbers(self.examples, self.genres)

    @property
    def groups(self) -> list[str]:
        """The group of each example."""
        return [example.group for example in self.examples]


@dataclass(frozen=True)
class Fitted:
    """Heads by stage, how strongly each is held back, and range tests by stage."""

    heads: Mapping[str, AnyHead]
    strengths: Mapping[str, float]
    ranges: Mapping[str, RangeTest]


@dataclass(frozen=True)
class Said:
    """What heads and range tests say of examples.

    logits: float64[n, genres], by stage and by what its head was given
    distances: float64[n], by stage that has a range test
    """

    logits: Mapping[str, Mapping[Given, Array]]
    distances: Mapping[str, Array]


@dataclass(frozen=True)
class Judged:
    """Everything that was found out of fold, and the fold of each example.

    held_back: by stage, what is taken off the logits of new genres; what is ``said`` is after that
    """

    said: Said
    folds: Rows
    temperatures: Mapping[str, float]
    limits: Mapping[str, float]
    held_back: Mapping[str, float]


def fit(task: Task, train: Rows) -> Fitted:
    """Heads and range tests on the examples ``train``, held back as inner folds of them advise."""
    strengths = {stage: choose_strength(task, stage, train) for stage in task.heard.inputs}
    heads = {stage: fit_stage(task, stage, train, strengths[stage]) for stage in task.heard.inputs}
    ranges = {}
    for stage, inputs in task.ranges.items():
        own = [task.examples[i] for i in train]
        weights = balanced_weights(task.labels[train], np.arange(len(train)), len(task.genres))
        ranges[stage] = fit_range(rows(own, inputs.given), weights, inputs.nonsense)
    return Fitted(heads, strengths, ranges)


def fit_stage(task: Task, stage: str, train: Rows, strength: float, givens: Sequence[Given] | None = None) -> AnyHead:
    """The head of a stage, on all that it may be given of the examples ``train``.

    Genres that no remembered track has are added beside the others, which logistic heads alone can do.
    """
    asked = task.heard.givens[stage] if givens is None else givens
    own = [task.examples[i] for i in train]
    copies = [(i, copy) for i, one in enumerate(own) for copy in one.copies]
    parts = [rows(own, given) for given in asked]
    owners = np.tile(np.arange(len(train)), len(asked))
    if copies:
        parts += [np.stack([np.concatenate([copy[one] for one in given]) for _, copy in copies]) for given in asked]
        owners = np.concatenate([owners, np.tile([i for i, _ in copies], len(asked))])
    features = np.concatenate(parts)
    labels = task.labels[train][owners]
    weights = balanced_weights(labels, owners, len(task.genres))
    kind = task.kinds.get(stage, "logistic")
    if kind != "logistic":
        fit_other = mlp.fit_mlp if kind == "mlp" else trees.fit_trees
        return fit_other(features, labels, weights, len(task.genres), strength=strength)
    widths = [len(own[0].embeddings[one]) for one in asked[0]]
    new = new_genres(task.examples, task.genres)
    added = new[labels]
    old = ~added
    classes = len(task.genres)
    first = balanced_weights(labels[old], owners[old], classes) if added.any() else weights
    head = fit_head(features[old], labels[old], first, classes, strength=strength, widths=widths)
    return add_genres(head, features, labels, weights, new, strength=strength, widths=widths) if added.any() else head


def choose_strength(task: Task, stage: str, train: Rows) -> float:
    """The strength of the least loss in inner folds of ``train``, genres counting the same; the first of equals."""
    given = task.heard.fullest(stage)
    dealt = deal(task.labels, task.groups, INNER_FOLDS, _SEED, train)
    classes = len(task.genres)
    tried = {"mlp": mlp.STRENGTHS, "trees": trees.STRENGTHS}.get(task.kinds.get(stage, ""), STRENGTHS)
    losses = np.zeros(len(tried))
    for fold in range(INNER_FOLDS):
        inside, others = np.flatnonzero(dealt == fold), train[dealt[train] != fold]
        if not len(inside) or len(set(task.labels[others].tolist())) < 2:
            continue
        known = np.isin(task.labels[inside], task.labels[others])  # of others nothing was learnt
        features = rows([task.examples[i] for i in inside[known]], given) if known.any() else None
        labels = task.labels[inside[known]]
        weights = balanced_weights(labels, np.arange(len(labels)), classes)
        for number, strength in enumerate(tried):
            if features is not None:
                logits = fit_stage(task, stage, others, strength, [given]).logits(features)
                losses[number] -= weights @ log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return tried[int(losses.argmin())]


def ask(task: Task, fitted: Fitted, some: Rows) -> Said:
    """What ``fitted`` says of the examples ``some``."""
    own = [task.examples[i] for i in some]
    return Said(
        {
            stage: {given: head.logits(rows(own, given)) for given in task.heard.givens[stage]}
            for stage, head in fitted.heads.items()
        },
        {stage: test.distance(rows(own, task.ranges[stage].given)) for stage, test in fitted.ranges.items()},
    )


def judge(task: Task, folds: int, seed: int, say: Say, fixed: Rows | None = None) -> Judged:
    """What is said of every example by heads that have not heard its group; temperatures and limits from that.

    ``fixed``: folds of examples that are dealt already, see ``deal``.
    """
    labels = task.labels
    dealt = deal(labels, task.groups, folds, seed, fixed=fixed)
    every = np.arange(len(labels))
    said = Said(
        {s: {g: np.zeros((len(every), len(task.genres))) for g in gs} for s, gs in task.heard.givens.items()},
        {stage: np.zeros(len(every)) for stage in task.ranges},
    )
    for fold in range(folds):
        say(f"fold {fold + 1} of {folds}")
        inside = np.flatnonzero(dealt == fold)
        if not len(inside):
            continue
        part = ask(task, fit(task, np.flatnonzero(dealt != fold)), inside)
        for stage, by_given in part.logits.items():
            for given, logits in by_given.items():
                said.logits[stage][given][inside] = logits
        for stage, distances in part.distances.items():
            said.distances[stage][inside] = distances
    remembered, new = np.array([one.remembered for one in task.examples]), new_genres(task.examples, task.genres)
    amounts = {}
    for stage, by_given in said.logits.items():
        amounts[stage] = held_back(by_given[task.heard.fullest(stage)], labels, remembered, new)
        for logits in by_given.values():
            logits[:, new] -= amounts[stage]
    learnt = learnt_elsewhere(labels, dealt)
    weights = balanced_weights(labels, every, len(task.genres))[learnt]
    temperatures = {
        stage: fit_temperature(said.logits[stage][task.heard.fullest(stage)][learnt], labels[learnt], weights)
        for stage in task.heard.inputs
    }
    limits = {stage: float(np.quantile(found, 1.0 - FALSE_ALARMS)) for stage, found in said.distances.items()}
    return Judged(said, dealt, temperatures, limits, amounts)


def learnt_elsewhere(labels: Rows, dealt: Rows) -> NDArray[np.bool_]:
    """Of which examples another fold has the genre: bool[n].

    Where all of a genre lies in one fold, its heads have not heard the genre: that is nothing to calibrate with.
    """
    several = [len(np.unique(dealt[labels == one])) > 1 for one in range(int(labels.max()) + 1)]
    return np.array(several, np.bool_)[labels]
