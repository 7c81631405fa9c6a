"""Heads by stage, what they say of clips, and the runtime's own decision on that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from edge_reclass.cascade import Answer, Decision, Policy, decide
from edge_reclass_learn.fit.heads import Array, Head, balanced_weights, fit_head
from edge_reclass_learn.fit.ranges import RangeTest, fit_range
from starter.catalogue import GENRES
from starter.embeddings import Asked, ClipEmbeddings, NonsenseEmbedding

Layout = Mapping[str, tuple[str, ...]]
"""By stage: the embeddings that its head takes."""

STARTER: Final[Layout] = {"fma": ("fma",), "musicnn": ("fma", "musicnn")}
PLUS: Final[Sequence[Layout]] = (
    {"fma": ("fma",), "efficientat": ("efficientat",), "musicnn": ("fma", "musicnn")},
    {"fma": ("fma",), "efficientat": ("efficientat",), "yamnet": ("yamnet",), "musicnn": ("fma", "musicnn")},
)
"""The starter with encoders whose weights the user brings; the cheap ones first."""
FEATURE_WINDOWS: Final = 3
"""How many windows of fma are heard, but by ``thorough``: all ten of 30 s cost three times as much and find no more."""
HEAD_VIEWS: Final = ("whole", "10 s at 8 kHz")
RANGE_VIEWS: Final = ("whole", "2 s", "10 s at 8 kHz")
"""Views that heads and range test are fitted on; a clip counts the same however many it has."""
STRENGTH: Final = 0.01
"""scikit-learn's C."""


@dataclass(frozen=True)
class Heard:
    """What fitted heads say of one view of some clips.

    clips, labels: intp[n], numbers of the clips and of their genres
    logits: float64[n, genres] by what the stage's head was given: its inputs, each after how many windows
    windows: intp[n], how many the stage has in the clip, by stage
    distances: float64[n], of the range test
    seconds: float64[n], length of the clip
    """

    clips: NDArray[np.intp]
    labels: NDArray[np.intp]
    logits: Mapping[tuple[Asked, ...], Array]
    windows: Mapping[str, NDArray[np.intp]]
    distances: Array
    seconds: Array

    def of(self, numbers: NDArray[np.intp]) -> Heard:
        """The same under other numbers: ``numbers[i]`` is that of clip i."""
        return replace(self, clips=numbers[self.clips])

    def where(self, rows: NDArray[np.bool_]) -> Heard:
        """Some of its rows."""
        return Heard(
            self.clips[rows],
            self.labels[rows],
            {asked: logits[rows] for asked, logits in self.logits.items()},
            {stage: windows[rows] for stage, windows in self.windows.items()},
            self.distances[rows],
            self.seconds[rows],
        )

    @classmethod
    def joined(cls, parts: Sequence[Heard]) -> Heard:
        """One after another."""
        return cls(
            np.concatenate([part.clips for part in parts]),
            np.concatenate([part.labels for part in parts]),
            {asked: np.concatenate([part.logits[asked] for part in parts]) for asked in parts[0].logits},
            {stage: np.concatenate([part.windows[stage] for part in parts]) for stage in parts[0].windows},
            np.concatenate([part.distances for part in parts]),
            np.concatenate([part.seconds for part in parts]),
        )


@dataclass(frozen=True)
class Fitted:
    """Heads by stage, and the range test on the embedding of the stage fma."""

    layout: Layout
    heads: Mapping[str, Head]
    range: RangeTest

    def hear(self, clips: Sequence[ClipEmbeddings], view: str) -> Heard | None:
        """What it says of those clips that have the view; None if there are none."""
        there = [i for i, clip in enumerate(clips) if view in clip.views]
        if not there:
            return None
        found = [clips[i].views[view] for i in there]
        counts = {stage: [count for name, count in found[0].embeddings if name == stage] for stage in self.layout}
        logits = {
            given: self.heads[stage].logits(np.stack([one.row(given) for one in found]))
            for stage, inputs in self.layout.items()
            for given in product(*([(name, count) for count in counts[name]] for name in inputs))
        }
        labels = np.array([GENRES.index(clips[i].clip.genre) for i in there])
        windows = {stage: np.array([one.windows[stage] for one in found]) for stage in self.layout}
        distances = self.range.distance(np.stack([one.row(usual(("fma",))) for one in found]))
        seconds = np.array([clips[i].seconds for i in there])
        return Heard(np.array(there), labels, logits, windows, distances, seconds)


@dataclass(frozen=True)
class Recipe:
    """What is fitted to answers of heads that have not heard the clips; ``limit`` is the range test's."""

    layout: Layout
    temperatures: Mapping[str, float]
    limit: float

    def decide(
        self, heard: Heard, policy: Policy, *, min_confidence: float
    ) -> list[tuple[Decision, tuple[str, int | None]]]:
        """The runtime's own decision on each clip, and after which stage and how many windows (None: all) it fell."""
        found = []
        for row in range(len(heard.labels)):
            for number, decision in self.steps(heard, row, policy, min_confidence=min_confidence):
                if decision.stop:
                    step = policy.steps[number]
                    found.append((decision, (step.after, step.windows)))
                    break
        return found

    def steps(self, heard: Heard, row: int, policy: Policy, *, min_confidence: float) -> Iterator[tuple[int, Decision]]:
        """What is decided on one clip after each of the policy's steps, by the step's number, stop or not."""
        said: dict[str, Answer] = {}
        counts: dict[str, int | None] = {}
        for number, step in enumerate(policy.steps):
            more = step.windows is not None and heard.windows[step.after][row] > step.windows
            if not more and step is not policy.step(step.after):
                continue  # as the runtime: what has no more windows is judged by the stage's last step
            counts[step.after] = step.windows
            given = tuple((name, counts[name]) for name in self.layout[step.after])
            logits = heard.logits[given][row] / self.temperatures[step.after]
            outside = step.after == "fma" and not heard.distances[row] <= self.limit
            said[step.after] = Answer(step.after, tuple(softmax(logits).tolist()), outside)
            windows = step.windows if more else None
            yield number, decide(policy, list(said.values()), windows=windows, min_confidence=min_confidence)


def fit(clips: Sequence[ClipEmbeddings], nonsense: Sequence[NonsenseEmbedding], layout: Layout) -> Fitted:
    """Heads and range test on all of ``clips``."""
    heads = {stage: fit_one(clips, inputs) for stage, inputs in layout.items()}
    return Fitted(layout, heads, fit_range_to(clips, [signal.row for signal in nonsense]))


def usual(inputs: Sequence[str]) -> tuple[Asked, ...]:
    """What a head is given where nothing stops early: fma after FEATURE_WINDOWS, the others after all."""
    return tuple((name, FEATURE_WINDOWS if name == "fma" else None) for name in inputs)


def fit_one(clips: Sequence[ClipEmbeddings], inputs: Sequence[str]) -> Head:
    """The head that takes the embeddings ``inputs``."""
    rows, owners = _rows(clips, inputs, HEAD_VIEWS)
    labels = np.array([GENRES.index(clip.clip.genre) for clip in clips])[owners]
    weights = balanced_weights(labels, owners, len(GENRES))
    one = clips[0].views[HEAD_VIEWS[0]]
    widths = [len(one.embeddings[name, None]) for name in inputs]
    return fit_head(rows, labels, weights, len(GENRES), strength=STRENGTH, widths=widths)


def fit_range_to(clips: Sequence[ClipEmbeddings], nonsense: Sequence[NDArray[np.float32]]) -> RangeTest:
    """The range test between the clips and made signals."""
    rows, owners = _rows(clips, ("fma",), RANGE_VIEWS)
    labels = np.array([GENRES.index(clip.clip.genre) for clip in clips])[owners]
    return fit_range(rows, balanced_weights(labels, owners, len(GENRES)), np.stack(list(nonsense)))


def _rows(
    clips: Sequence[ClipEmbeddings], inputs: Sequence[str], views: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    there = [(i, view) for i, clip in enumerate(clips) for view in views if view in clip.views]
    return np.stack([clips[i].views[view].row(usual(inputs)) for i, view in there]), np.array([i for i, _ in there])
