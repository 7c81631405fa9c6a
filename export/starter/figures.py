"""How good and how honest a policy's answers are on some clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from sklearn.metrics import f1_score

from edge_reclass.cascade import Policy
from starter.catalogue import GENRES
from starter.embeddings import Asked, ClipEmbeddings
from starter.heard import Heard, Recipe

MIN_CONFIDENCE: Final = 0.35
BINS: Final = 10
SURE: Final = 0.9


@dataclass(frozen=True)
class Figures:
    """How one rule does on some clips, as shares of them.

    accuracy, balanced, macro_f1: with ``unsure`` turned off: of the clips, and the means over the genres
    outside, low: unsure because of the range test, and because of a low confidence
    right_when_sure: of the clips that get a genre
    error, brier: expected calibration error (BINS bins of equal width), and the mean squared error over all genres
    above: how many have a confidence above SURE, and how many of those are right
    reliability: per bin that is not empty: clips, mean confidence, share that is right
    funnel: how many stop after which stage and number of windows, None for all
    """

    clips: int
    accuracy: float
    balanced: float
    macro_f1: float
    outside: float
    low: float
    right_when_sure: float
    error: float
    brier: float
    above: tuple[int, int]
    reliability: tuple[tuple[int, float, float], ...]
    funnel: Counter[Asked]


def evaluate(recipe: Recipe, heard: Heard, policy: Policy) -> Figures:
    """Figures of a policy on what was heard."""
    always = recipe.decide(heard, policy, min_confidence=0.0)
    sure = recipe.decide(heard, policy, min_confidence=MIN_CONFIDENCE)
    genre = np.array([decision.genre for decision, _ in always])
    right = genre == heard.labels
    codes: list[str | None] = [decision.code for decision, _ in sure]
    kept = np.array([code not in ("outside_range", "low_confidence") for code in codes])
    confidence = np.array([decision.confidence for decision, _ in always])
    scores = np.array([decision.scores for decision, _ in always])
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    reliability = tuple(
        (int((bins == b).sum()), float(confidence[bins == b].mean()), float(right[bins == b].mean()))
        for b in np.unique(bins)
    )
    high = confidence > SURE
    return Figures(
        len(set(heard.clips.tolist())),
        float(right.mean()),
        float(np.mean([right[heard.labels == label].mean() for label in np.unique(heard.labels)])),
        float(f1_score(heard.labels, genre, labels=np.unique(heard.labels), average="macro", zero_division=0.0)),
        codes.count("outside_range") / len(codes),
        codes.count("low_confidence") / len(codes),
        float(right[kept].mean()) if kept.any() else 0.0,
        sum(count * abs(mean - share) for count, mean, share in reliability) / len(right),
        float(((scores - np.eye(len(GENRES))[heard.labels]) ** 2).sum(axis=1).mean()),
        (int(high.sum()), int(right[high].sum())),
        reliability,
        Counter(stop for _, stop in sure),
    )


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
