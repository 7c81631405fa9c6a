"""What came out of a fit: figures out of fold, comparisons, warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reclass import Bundle
from edge_reclass.cascade import Policy
from edge_reclass_export.own_genres import same_genres
from edge_reclass_learn.fit.contest import Contest
from edge_reclass_learn.fit.doubts import Rule, WrongLabel, source_warnings, without_listening, wrong_labels
from edge_reclass_learn.fit.gain import Gain, base_answers, gain
from edge_reclass_learn.fit.judging import Fitted, Judged, Task
from edge_reclass_learn.fit.policies import Answers, judged_anew, patient
from edge_reclass_learn.hearing.gather import Gathered


@dataclass(frozen=True)
class Outcome:
    """What came out of a fit. Accuracies are out of fold, of the tracks that were given, without ``unsure``.

    policies: of the new bundle, the default one first
    stages: accuracy of each stage alone, after all that it is asked for
    accuracies: of each policy, and of the same without an early exit
    balanced: mean of the genres' accuracies under the default policy
    genres: per genre its tracks, its groups, and how many tracks the default policy finds
    exits: how many tracks stop after which stage under the default policy
    unsure: how many tracks get no genre under the default policy
    old: tracks that the base remembers, and how many of them are found
    without_listening: what finds genres without listening; nothing where the tracks have one genre
    gain: against the base; None where they have no genre in common
    contests: how another kind of head did against logistic ones; none where none was asked for
    """

    task: Task
    fitted: Fitted
    judged: Judged
    base: Bundle
    read: Gathered
    policies: Mapping[str, Policy]
    stages: Mapping[str, float]
    accuracies: Mapping[str, tuple[float, float]]
    balanced: float
    genres: Mapping[str, tuple[int, int, int]]
    exits: Mapping[str, int]
    unsure: int
    old: tuple[int, int]
    without_listening: Sequence[Rule]
    warnings: Sequence[str]
    doubts: Sequence[WrongLabel]
    gain: Gain | None
    contests: Sequence[Contest] = ()

    @property
    def tracks(self) -> int:
        """How many tracks were given and heard."""
        return sum(not example.remembered for example in self.task.examples)


def outcome(
    task: Task,
    fitted: Fitted,
    judged: Judged,
    base: Bundle,
    read: Gathered,
    compared: Sequence[Contest] = (),
    *,
    comparable: bool = True,
) -> Outcome:
    """Judge the policies anew, and see what they and the heads are worth.

    comparable: the base's heads take what the new ones take
    """
    heard, examples, labels = task.heard, task.examples, task.labels
    answers = Answers(heard, examples, judged.said, judged.temperatures, judged.limits, base.manifest.min_confidence)
    policies = {name: judged_anew(answers, policy) for name, policy in heard.policies.items()}
    own = np.array([not example.remembered for example in examples])
    chosen = [example for example in examples if not example.remembered]

    def right(policy: Policy) -> NDArray[np.bool_]:
        return np.asarray(answers.genres(policy) == labels)

    accuracies = {n: (float(right(p)[own].mean()), float(right(patient(p))[own].mean())) for n, p in policies.items()}
    default = next(iter(policies.values()))
    found = right(default)
    by_genre = {}
    for label, genre in enumerate(task.genres):
        rows = own & (labels == label)
        groups = {example.group for example, row in zip(examples, rows, strict=True) if row}
        by_genre[genre] = int(rows.sum()), len(groups), int(found[rows].sum())
    stages = {s: float((answers.probabilities(s).argmax(axis=1) == labels)[own].mean()) for s in heard.inputs}
    decided = [one for one, mine in zip(answers.decide(default, sure=True), own, strict=True) if mine]
    several = len({example.genre for example in chosen}) > 1
    rules = without_listening(chosen, labels[own], judged.folds[own], len(task.genres)) if several else []
    weights = default.steps[-1].weights
    probabilities = np.average([answers.probabilities(s) for s in weights], axis=0, weights=list(weights.values()))
    return Outcome(
        task=task,
        fitted=fitted,
        judged=judged,
        base=base,
        read=read,
        policies=policies,
        stages=stages,
        accuracies=accuracies,
        balanced=float(np.mean([n / total for total, _, n in by_genre.values() if total])),
        genres=by_genre,
        exits=Counter(default.steps[number].after for _, number in decided),
        unsure=sum(decision.unsure for decision, _ in decided),
        old=(int((~own).sum()), int(found[~own].sum())),
        without_listening=rules,
        warnings=source_warnings(chosen, rules, accuracies[default.name][0]),
        doubts=wrong_labels(chosen, labels[own], probabilities[own], task.genres),
        gain=_gain(task, base, default, found) if comparable else None,
        contests=compared,
    )


def _gain(task: Task, base: Bundle, policy: Policy, right: NDArray[np.bool_]) -> Gain | None:
    """Against the base's policy, on the tracks that are new and of a genre of the base; None without any."""
    known = same_genres(task.genres, base.manifest.genres)
    both = [i for i, one in enumerate(task.examples) if not one.remembered and one.genre in known]
    if not both:
        return None
    examples = [task.examples[i] for i in both]
    said = base_answers(base, task.heard, examples).genres(task.heard.policies[policy.name])
    names = base.manifest.genres
    theirs = [names[g] == known[example.genre] for g, example in zip(said.tolist(), examples, strict=True)]
    return gain(theirs, right[both].tolist())
