"""The recipe, and what it is worth: out of fold, on GTZAN's valid list, and on a source that was left out.

The clips differ in length and source by genre, so every figure is for one view of the clips (a length, or a copy at a
low rate), and stands next to what a rule reaches that knows only the data set, or only the clip's duration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from edge_reclass.cascade import Answer, Decision, Policy, Step, decide
from edge_reclass.features import FEATURE_COUNT
from starter.catalogue import GENRES
from starter.embeddings import VIEWS, ClipEmbeddings, NonsenseEmbedding
from starter.fitting import Array, Head, balanced_weights, fit_head, fit_temperature
from starter.ranges import RangeTest, fit_range

INPUTS: Final[Mapping[str, tuple[str, ...]]] = {"fma": ("fma",), "musicnn": ("fma", "musicnn")}
STAGES: Final = tuple(INPUTS)
FOLDS, REPEATS = 5, 3
HEAD_VIEWS: Final = ("whole", "10 s at 8 kHz")
RANGE_VIEWS: Final = ("whole", "2 s", "10 s at 8 kHz")
"""Views that heads and range test are fitted on; a clip counts the same however many it has."""
CHOSEN: Final = "10 s"
"""Temperatures are fitted on this view: the longest that every genre has clips of."""
STRENGTH: Final = 0.01
"""scikit-learn's C."""
FALSE_ALARMS: Final = 0.01
"""Share of the clips' views, out of fold, that the range test may call outside."""
MIN_CONFIDENCE: Final = 0.4
ACCEPT: Final = 0.9
"""Confidence above which fma decides alone. Not chosen out of fold: there, where both sides share their sources, half
as much seems to be enough, and costs five points on other artists and on a source that was left out."""


@dataclass(frozen=True)
class Fitted:
    """Heads by stage, and the range test on the first stage's embedding."""

    heads: Mapping[str, Head]
    range: RangeTest

    def hear(self, clips: Sequence[ClipEmbeddings], view: str) -> Heard | None:
        """What it says of those clips that have the view; None if there are none."""
        there = [i for i, clip in enumerate(clips) if view in clip.views]
        if not there:
            return None
        rows = np.stack([clips[i].views[view] for i in there])
        logits = {stage: head.logits(rows[:, _columns(stage)]) for stage, head in self.heads.items()}
        labels = np.array([GENRES.index(clips[i].clip.genre) for i in there])
        return Heard(np.array(there), labels, logits, self.range.distance(rows[:, :FEATURE_COUNT]))


@dataclass(frozen=True)
class Heard:
    """What fitted heads say of one view of some clips.

    clips, labels: intp[n], numbers of the clips and of their genres
    logits: float64[n, genres] by stage
    distances: float64[n]
    """

    clips: NDArray[np.intp]
    labels: NDArray[np.intp]
    logits: Mapping[str, Array]
    distances: Array

    @classmethod
    def joined(cls, parts: Sequence[Heard]) -> Heard:
        """One after another."""
        return cls(
            np.concatenate([part.clips for part in parts]),
            np.concatenate([part.labels for part in parts]),
            {stage: np.concatenate([part.logits[stage] for part in parts]) for stage in STAGES},
            np.concatenate([part.distances for part in parts]),
        )


@dataclass(frozen=True)
class Recipe:
    """What is fitted to answers out of fold; ``limit`` is the range test's."""

    temperatures: Mapping[str, float]
    limit: float

    def decide(
        self, heard: Heard, policy: Policy, *, min_confidence: float = MIN_CONFIDENCE
    ) -> list[tuple[Decision, int]]:
        """The runtime's own decision on each clip, and after how many stages."""
        answers = {stage: softmax(heard.logits[stage] / self.temperatures[stage], axis=1).tolist() for stage in STAGES}
        found = []
        for row, distance in enumerate(heard.distances):
            said: list[Answer] = []
            for stage in policy.stages:
                said.append(Answer(stage, tuple(answers[stage][row]), stage == "fma" and not distance <= self.limit))
                decision = decide(policy, said, min_confidence=min_confidence)
                if decision.stop:
                    break
            found.append((decision, len(said)))
        return found


def fit(clips: Sequence[ClipEmbeddings], nonsense: Sequence[NonsenseEmbedding]) -> Fitted:
    """Heads and range test on all of ``clips``."""
    rows, labels, weights = _rows(clips, HEAD_VIEWS)
    heads = {
        stage: fit_head(rows[:, _columns(stage)], labels, weights, len(GENRES), strength=STRENGTH) for stage in STAGES
    }
    rows, _, weights = _rows(clips, RANGE_VIEWS)
    made = np.stack([signal.row for signal in nonsense])
    return Fitted(heads, fit_range(rows[:, :FEATURE_COUNT], weights, made))


def _rows(clips: Sequence[ClipEmbeddings], views: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.intp], Array]:
    owners = np.array([i for i, clip in enumerate(clips) for view in views if view in clip.views])
    rows = np.stack([clip.views[view] for clip in clips for view in views if view in clip.views])
    labels = np.array([GENRES.index(clip.clip.genre) for clip in clips])[owners]
    return rows, labels, balanced_weights(labels, owners, len(GENRES))


def _columns(stage: str) -> slice:
    """The first stage's head takes its own embedding; the second's takes both."""
    return slice(0, FEATURE_COUNT if stage == "fma" else None)


def cross_validate(
    clips: Sequence[ClipEmbeddings],
    nonsense: Sequence[NonsenseEmbedding],
    progress: Callable[[str], None],
    *,
    repeats: int,
) -> tuple[Recipe, dict[str, Heard]]:
    """Grouped, stratified cross-validation: no artist (or clip) is on both sides of any fold.

    Gives what is fitted to the answers, and the answers by view, those of all repeats one after another.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labels = np.array([GENRES.index(clip.clip.genre) for clip in clips])
    groups = np.array([clip.clip.group for clip in clips])
    parts: dict[str, list[Heard]] = {view.name: [] for view in VIEWS}
    for repeat in range(repeats):
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=repeat)
        for fold, (train, test) in enumerate(folds.split(labels, labels, groups)):
            progress(f"repeat {repeat + 1} of {repeats}, fold {fold + 1} of {FOLDS}")
            fitted = fit([clips[i] for i in train], nonsense)
            for view, part in parts.items():
                if (found := fitted.hear([clips[i] for i in test], view)) is not None:
                    part.append(Heard(test[found.clips], found.labels, found.logits, found.distances))
    heard = {view: Heard.joined(part) for view, part in parts.items() if part}
    chosen = heard[CHOSEN]
    weights = balanced_weights(chosen.labels, np.arange(len(chosen.labels)), len(GENRES))
    temperatures = {stage: fit_temperature(chosen.logits[stage], chosen.labels, weights) for stage in STAGES}
    distances = np.concatenate([one.distances for one in heard.values()])
    limit = float(np.quantile(distances, 1.0 - FALSE_ALARMS))
    return Recipe(temperatures, limit), heard


def make_policy(accept: float) -> Policy:
    """Stop after fma above ``accept``; else musicnn decides, whose head hears both embeddings."""
    return Policy("progressive", "soft", (Step("fma", {"fma": 1.0}, accept), Step("musicnn", {"musicnn": 1.0})))


def held_out(
    train: Sequence[ClipEmbeddings],
    test: Sequence[ClipEmbeddings],
    nonsense: Sequence[NonsenseEmbedding],
    progress: Callable[[str], None],
) -> tuple[Recipe, dict[str, Heard]]:
    """The whole recipe on ``train``, and what comes of it on ``test``."""
    recipe, _ = cross_validate(train, nonsense, progress, repeats=1)
    fitted = fit(train, nonsense)
    heard = {view.name: fitted.hear(test, view.name) for view in VIEWS}
    return recipe, {view: one for view, one in heard.items() if one is not None}


@dataclass(frozen=True)
class Figures:
    """How one rule does on some clips, as shares of them.

    accuracy, balanced: right with ``unsure`` turned off, as a share of the clips, and as the mean over the genres
    outside, low: unsure because of the range test, and because of a low confidence
    right_when_sure: of the clips that get a genre
    first: decided by the first stage
    error: expected calibration error of the confidences
    """

    clips: int
    accuracy: float
    balanced: float
    outside: float
    low: float
    right_when_sure: float
    first: float
    error: float


def evaluate(recipe: Recipe, heard: Heard, policy: Policy) -> Figures:
    """Figures of a recipe on what was heard."""
    always = recipe.decide(heard, policy, min_confidence=0.0)
    sure = recipe.decide(heard, policy)
    genre = np.array([decision.genre for decision, _ in always])
    right = genre == heard.labels
    codes: list[str | None] = [decision.code for decision, _ in sure]
    kept = np.array([code not in ("outside_range", "low_confidence") for code in codes])
    confidence = np.array([decision.confidence for decision, _ in always])
    bins = np.minimum((confidence * 10).astype(int), 9)
    error = sum(abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in set(bins))
    return Figures(
        len(set(heard.clips.tolist())),
        float(right.mean()),
        float(np.mean([right[heard.labels == label].mean() for label in np.unique(heard.labels)])),
        codes.count("outside_range") / len(codes),
        codes.count("low_confidence") / len(codes),
        float(right[kept].mean()) if kept.any() else 0.0,
        float(np.mean([stages == 1 for _, stages in sure])),
        float(error),
    )


def missed(
    clips: Sequence[ClipEmbeddings], nonsense: Sequence[NonsenseEmbedding], limit: float
) -> dict[str, tuple[int, int]]:
    """Per family of nonsense: how many of its signals a range test misses that knows the others only, of how many."""
    rows, _, weights = _rows(clips, RANGE_VIEWS)
    found = {}
    for family in dict.fromkeys(signal.family for signal in nonsense):
        others = np.stack([signal.row for signal in nonsense if signal.family != family])
        own = np.stack([signal.row for signal in nonsense if signal.family == family])
        distance = fit_range(rows[:, :FEATURE_COUNT], weights, others).distance(own)
        found[family] = int((distance <= limit).sum()), len(own)
    return found


def dataset_rule(clips: Sequence[ClipEmbeddings], view: str) -> float:
    """Accuracy of the most frequent genre of the clip's data set: what hearing the source alone would reach."""
    own = [clip.clip for clip in clips if view in clip.views]
    counts = {
        dataset: Counter(clip.genre for clip in own if clip.dataset == dataset)
        for dataset in {clip.dataset for clip in own}
    }
    return sum(count.most_common(1)[0][1] for count in counts.values()) / len(own)


def duration_rule(clips: Sequence[ClipEmbeddings], view: str) -> float:
    """Accuracy of the genre of the other group's clip whose duration is nearest: what uncut clips give away."""
    own = [clip for clip in clips if view in clip.views]
    right = 0
    for clip in own:
        others = [other for other in own if other.clip.group != clip.clip.group]
        nearest = min(others, key=lambda other: abs(other.seconds - clip.seconds))
        right += nearest.clip.genre == clip.clip.genre
    return right / len(own)
