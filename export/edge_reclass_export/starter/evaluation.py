"""Grouped cross-validation of both stages and of the cascade, per length, beside what a confounder alone would get.

The clips differ in length and source by genre, so every figure is for cuts of one length, and stands next to what a
rule reaches that knows only the data set, or only the clip's original duration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reclass.policy import Answer, Policy, Step, decide
from edge_reclass_export.starter.embeddings import LENGTHS, LOW_RATES, ClipEmbeddings
from edge_reclass_export.starter.fitting import Head, balanced_weights, fit_mlp, fit_temperature, softmax

__all__ = [
    "CHOSEN_LENGTH",
    "CLIP",
    "FOLDS",
    "REPEATS",
    "STAGES",
    "Evaluation",
    "Figures",
    "Operation",
    "alone",
    "cross_validate",
    "dataset_baseline",
    "duration_baseline",
    "everything",
    "fit_stage",
    "majority_baseline",
    "make_policy",
    "operate",
]

STAGES = ("fma", "musicnn")
FOLDS, REPEATS = 5, 3
CHOSEN_LENGTH = 10.0
"""Temperatures and thresholds are chosen at this length: the longest that every genre has clips of."""
CLIP = 5.0
"""Standardised features are limited to ± this many standard deviations."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """Logits from out of fold: ``logits[stage][view]`` is float64[repeats, clips, genres], NaN where a clip is too
    short; a view is a length in seconds, or a low rate in Hz (an int) at LOW_RATE_LENGTH. And the temperatures."""

    clips: tuple[ClipEmbeddings, ...]
    labels: NDArray[np.intp]
    genres: tuple[str, ...]
    logits: Mapping[str, Mapping[float, Array]]
    temperatures: Mapping[str, float]

    def has(self, view: float) -> NDArray[np.bool_]:
        """Which clips are long enough."""
        return np.array([_row(clip, view) is not None for clip in self.clips])

    def probabilities(self, stage: str, length: float) -> Array:
        """Calibrated probabilities float64[repeats, clips of that length, genres]."""
        logits = self.logits[stage][length][:, self.has(length)]
        flat = softmax(logits.reshape(-1, logits.shape[-1]), self.temperatures[stage])
        return flat.reshape(logits.shape)


@dataclass(frozen=True)
class Figures:
    """Accuracy, and the mean over genres of the share found (balanced accuracy), of one rule on one set of clips."""

    clips: int
    accuracy: float
    balanced: float


@dataclass(frozen=True)
class Operation:
    """How a policy does at one length: figures, and the share of tracks that the first stage decides."""

    figures: Figures
    first_exit: float


def _row(clip: ClipEmbeddings, view: float) -> NDArray[np.float32] | None:
    """A clip's embeddings for a length or a low rate; None if it is too short."""
    return clip.low_rates.get(view) if isinstance(view, int) else clip.lengths.get(view)


def columns(stage: str, widths: Sequence[int]) -> slice:
    """A stage's head takes its own embedding; musicnn's head takes both."""
    return slice(0, widths[0]) if stage == "fma" else slice(0, sum(widths))


def fit_stage(
    stage: str,
    clips: Sequence[ClipEmbeddings],
    labels: NDArray[np.intp],
    genres: int,
    widths: Sequence[int],
    seed: int,
) -> Head:
    """Fit one stage's head on all cuts of ``clips``."""
    rows = np.concatenate([np.stack(clip.cuts) for clip in clips])[:, columns(stage, widths)]
    owners = np.repeat(np.arange(len(clips)), [len(clip.cuts) for clip in clips])
    weights = balanced_weights(labels[owners], owners, genres)
    return fit_mlp(rows, labels[owners], weights, genres, clip=CLIP, seed=seed)


def cross_validate(
    clips: Sequence[ClipEmbeddings],
    genres: Sequence[str],
    widths: Sequence[int],
    progress: Callable[[str], None],
) -> Evaluation:
    """Grouped, stratified cross-validation, repeated: no artist (or clip) is on both sides of any fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    labels = np.array([genres.index(clip.clip.genre) for clip in clips])
    groups = np.array([clip.clip.group for clip in clips])
    shape = (REPEATS, len(clips), len(genres))
    logits = {stage: {view: np.full(shape, np.nan) for view in (*LENGTHS, *LOW_RATES)} for stage in STAGES}
    for repeat in range(REPEATS):
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=repeat)
        for fold, (train, test) in enumerate(folds.split(labels, labels, groups)):
            progress(f"repeat {repeat + 1} of {REPEATS}, fold {fold + 1} of {FOLDS}")
            for stage in STAGES:
                head = fit_stage(stage, [clips[i] for i in train], labels[train], len(genres), widths, seed=repeat)
                for view, answers in logits[stage].items():
                    rows = {i: row for i in test if (row := _row(clips[i], view)) is not None}
                    if rows:
                        chosen = np.stack(list(rows.values()))[:, columns(stage, widths)]
                        answers[repeat, list(rows)] = head.logits(chosen)
    temperatures = {stage: _temperature(logits[stage][CHOSEN_LENGTH], labels, len(genres)) for stage in STAGES}
    return Evaluation(tuple(clips), labels, tuple(genres), logits, temperatures)


def _temperature(logits: Array, labels: NDArray[np.intp], genres: int) -> float:
    here = ~np.isnan(logits[0, :, 0])
    known = labels[here]
    weights = balanced_weights(known, np.arange(len(known)), genres)
    flat = logits[:, here].reshape(-1, genres)
    return fit_temperature(flat, np.tile(known, len(logits)), np.tile(weights, len(logits)))


def make_policy(accept: float, weight: float) -> Policy:
    """Stop after fma above ``accept``; else the soft vote with ``weight`` for fma and the rest for musicnn."""
    weights = {"fma": weight, "musicnn": 1.0 - weight} if weight else {"musicnn": 1.0}
    return Policy("progressive", "soft", (Step("fma", {"fma": 1.0}, accept), Step("musicnn", weights)))


def everything(_: ClipEmbeddings) -> bool:
    """Leaves no clip out."""
    return True


def operate(
    evaluation: Evaluation, policy: Policy, length: float, *, only: Callable[[ClipEmbeddings], bool] = everything
) -> tuple[Operation, NDArray[np.intp]]:
    """Run the runtime's own policy code on the answers from out of fold.

    Gives the figures and the confusion matrix [true, decided], summed over the repeats.
    """
    here = evaluation.has(length)
    chosen = np.array([only(clip) for clip in evaluation.clips])[here]
    labels = evaluation.labels[here]
    answers = {stage: evaluation.probabilities(stage, length) for stage in STAGES}
    confusion = np.zeros((len(evaluation.genres), len(evaluation.genres)), np.intp)
    first = total = 0
    for repeat in range(REPEATS):
        for row in np.flatnonzero(chosen):
            said: list[Answer] = []
            for stage in policy.stages:
                said.append(Answer(stage, tuple(answers[stage][repeat, row].tolist())))
                decision = decide(policy, said)
                if decision.stop:
                    break
            confusion[labels[row], decision.genre] += 1
            first += len(said) == 1
            total += 1
    return Operation(_figures(confusion, REPEATS), first / max(total, 1)), confusion


def alone(
    evaluation: Evaluation, stage: str, length: float, *, only: Callable[[ClipEmbeddings], bool] = everything
) -> Figures:
    """Figures of one stage by itself."""
    here = evaluation.has(length)
    chosen = np.array([only(clip) for clip in evaluation.clips])[here]
    labels = evaluation.labels[here][chosen]
    confusion = np.zeros((len(evaluation.genres), len(evaluation.genres)), np.intp)
    for repeat in range(REPEATS):
        np.add.at(confusion, (labels, evaluation.probabilities(stage, length)[repeat, chosen].argmax(axis=1)), 1)
    return _figures(confusion, REPEATS)


def majority_baseline(evaluation: Evaluation, length: float) -> Figures:
    """Always the most frequent genre among the clips of that length: all that a constant duration can tell."""
    here = np.flatnonzero(evaluation.has(length))
    common = Counter(evaluation.labels[here].tolist()).most_common(1)[0][0]
    return _rule(evaluation, here, [common] * len(here))


def dataset_baseline(evaluation: Evaluation, length: float) -> Figures:
    """The most frequent genre of the clip's data set: what a head could gain by hearing the source alone."""
    here = np.flatnonzero(evaluation.has(length))
    most = {}
    for dataset in {evaluation.clips[i].clip.dataset for i in here}:
        counts = Counter(int(evaluation.labels[i]) for i in here if evaluation.clips[i].clip.dataset == dataset)
        most[dataset] = counts.most_common(1)[0][0]
    return _rule(evaluation, here, [most[evaluation.clips[i].clip.dataset] for i in here])


def duration_baseline(evaluation: Evaluation, length: float) -> Figures:
    """The genre of the other group's clip whose original duration is nearest: what uncut clips would have leaked."""
    here = np.flatnonzero(evaluation.has(length))
    seconds = np.array([clip.seconds for clip in evaluation.clips])
    groups = np.array([clip.clip.group for clip in evaluation.clips])
    guesses = []
    for i in here:
        others = here[groups[here] != groups[i]]
        guesses.append(int(evaluation.labels[others[np.argmin(np.abs(seconds[others] - seconds[i]))]]))
    return _rule(evaluation, here, guesses)


def _rule(evaluation: Evaluation, here: NDArray[np.intp], guesses: Sequence[int]) -> Figures:
    confusion = np.zeros((len(evaluation.genres), len(evaluation.genres)), np.intp)
    np.add.at(confusion, (evaluation.labels[here], np.array(guesses)), 1)
    return _figures(confusion, 1)


def _figures(confusion: NDArray[np.intp], repeats: int) -> Figures:
    totals = confusion.sum(axis=1)
    present = totals > 0
    recalls = np.diag(confusion)[present] / totals[present]
    return Figures(int(totals.sum() // repeats), float(np.trace(confusion) / totals.sum()), float(recalls.mean()))
