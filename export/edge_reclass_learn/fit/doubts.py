"""What makes the figures doubtful: files whose source gives their genre away, and labels that look wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass_learn.hearing.examples import Example

_GIVEN_AWAY: Final = 0.5
"""A warning where a rule comes this far from knowing nothing to the heads' accuracy."""


@dataclass(frozen=True)
class Rule:
    """Share of the tracks that a rule finds which does not listen: from one property, on the same folds."""

    name: str
    accuracy: float


@dataclass(frozen=True)
class WrongLabel:
    """A track whose label looks wrong: ``loss`` is -log of the probability of its label out of fold."""

    example: Example
    said: str
    confidence: float
    loss: float


def without_listening(
    examples: Sequence[Example], labels: NDArray[np.intp], folds: NDArray[np.intp], genres: int
) -> list[Rule]:
    """Accuracy of the most frequent genre, and of the source, length, level, rate and bit rate of files alone.

    ``folds``: of each example. Each property is given to a small decision tree, fitted on the other folds with the
    genres counting the same. Only properties that are known of every example are tried.
    """
    from sklearn.tree import DecisionTreeClassifier

    def accuracy(columns: NDArray[np.float64] | None) -> float:
        right = 0
        for fold in np.unique(folds):
            inside, others = folds == fold, folds != fold
            if not others.any():
                continue
            if columns is None:
                right += int((labels[inside] == np.bincount(labels[others]).argmax()).sum())
                continue
            tree = DecisionTreeClassifier(max_leaf_nodes=2 * genres, class_weight="balanced", random_state=0)
            right += int((tree.fit(columns[others], labels[others]).predict(columns[inside]) == labels[inside]).sum())
        return right / len(labels)

    found = [Rule("most frequent genre", accuracy(None))]
    if all(example.source for example in examples):
        names = sorted({example.source or "" for example in examples})
        if len(names) > 1:
            columns = np.array([[example.source == name for name in names] for example in examples], np.float64)
            found.append(Rule("source", accuracy(columns)))
    facts = [example.facts for example in examples if example.facts is not None]
    if len(facts) == len(examples):
        for name, values in (
            ("length", [one.seconds for one in facts]),
            ("level", [one.level for one in facts]),
            ("sampling rate", [float(one.rate) for one in facts]),
            ("bit rate", [one.kilobits for one in facts]),
        ):
            found.append(Rule(name, accuracy(np.array(values, np.float64)[:, None])))
        together = np.array([[f.seconds, f.level, float(f.rate), f.kilobits] for f in facts], np.float64)
        found.append(Rule("these four together", accuracy(together)))
    return found


def source_warnings(examples: Sequence[Example], found: Sequence[Rule], accuracy: float) -> list[str]:
    """Warnings where the source of the files may be learnt in place of the genre."""
    said = []
    sources = {example.source for example in examples}
    if len(sources) > 1:
        by_genre: dict[str, Counter[str | None]] = {}
        for example in examples:
            by_genre.setdefault(example.genre, Counter())[example.source] += 1
        alone = [genre for genre, counts in sorted(by_genre.items()) if len(counts) == 1]
        if alone:
            said.append(
                f"warning: all tracks of {', '.join(alone)} come from one source each: what is learnt may be the"
                " source; add tracks of these genres from another one"
            )
    for rule in found[1:]:
        nothing = found[0].accuracy
        if accuracy > nothing and rule.accuracy - nothing > _GIVEN_AWAY * (accuracy - nothing):
            said.append(
                f"warning: {rule.name} alone finds {rule.accuracy:.1%} of the genres: the figures above are too"
                " high for music from elsewhere"
            )
    return said


def wrong_labels(
    examples: Sequence[Example], labels: NDArray[np.intp], probabilities: NDArray[np.float64], genres: Sequence[str]
) -> list[WrongLabel]:
    """All examples by how little the answers out of fold believe their labels, the least believed first."""
    own = probabilities[np.arange(len(labels)), labels]
    said = probabilities.argmax(axis=1)
    order = np.argsort(own, kind="stable")
    return [
        WrongLabel(examples[i], genres[said[i]], float(probabilities[i, said[i]]), float(-np.log(max(own[i], 1e-12))))
        for i in order.tolist()
    ]
