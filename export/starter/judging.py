"""What heads are worth: out of fold, on artists that they have not heard, and on a source that they have not heard.

Clips of one source share its sound, so that out of fold a head looks good that hears the source and not the genre.
Nothing is therefore chosen by that figure alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from edge_reclass_learn.fit.heads import fit_temperature, fit_vote_temperature
from starter.catalogue import GENRES
from starter.embeddings import VIEWS, ClipEmbeddings, NonsenseEmbedding
from starter.heard import Heard, Layout, Recipe, fit, fit_one, fit_range_to, usual

FOLDS, REPEATS = 5, 3
FALSE_ALARMS: Final = 0.01
"""Share of the clips' views, out of fold, that the range test may call outside."""
FOLD, ARTISTS, SOURCE = "out of fold", "other artists", "other source"

Judged = Mapping[str, Heard]
"""By view."""


@dataclass(frozen=True)
class Judges:
    """Answers of heads that have not heard the clips, by judge (FOLD, ARTISTS, SOURCE) and view, and the recipe.

    ``recipes``: for each judge what the others choose; with None as the key what all choose.
    """

    heard: Mapping[str, Judged]
    recipes: Mapping[str | None, Recipe]


def split(clips: Sequence[ClipEmbeddings]) -> dict[str, tuple[list[int], list[int]]]:
    """Numbers of the clips to fit on and to judge on, for the judges that need one fit.

    ARTISTS: GTZAN's artist-disjoint validation list. SOURCE: Emotify's classical and rock; its electronic clips are the
    only ones of that genre.
    """
    every = range(len(clips))
    return {
        ARTISTS: ([i for i in every if not clips[i].clip.valid], [i for i in every if clips[i].clip.valid]),
        SOURCE: (
            [i for i in every if clips[i].clip.dataset != "emotify"],
            [i for i in every if clips[i].clip.dataset == "emotify" and clips[i].clip.genre != "Electronic"],
        ),
    }


def folds(clips: Sequence[ClipEmbeddings], repeats: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Grouped, stratified folds: no artist (or clip) is on both sides of any."""
    labels = np.array([GENRES.index(clip.clip.genre) for clip in clips])
    groups = np.array([clip.clip.group for clip in clips])
    for repeat in range(repeats):
        yield from StratifiedGroupKFold(FOLDS, shuffle=True, random_state=repeat).split(labels, labels, groups)


def judge(
    clips: Sequence[ClipEmbeddings],
    nonsense: Sequence[NonsenseEmbedding],
    layout: Layout,
    progress: Callable[[str], None],
) -> Judges:
    """The answers of all three judges, and the temperatures and the limit that they lead to."""

    def answers(train: Sequence[int], test: Sequence[int]) -> dict[str, Heard]:
        fitted = fit([clips[i] for i in train], nonsense, layout)
        said = {view.name: fitted.hear([clips[i] for i in test], view.name) for view in VIEWS}
        return {view: one.of(np.asarray(test)) for view, one in said.items() if one is not None}

    parts = []
    for number, (train, test) in enumerate(folds(clips, REPEATS)):
        progress(f"fold {number + 1} of {FOLDS * REPEATS}")
        parts.append(answers(train.tolist(), test.tolist()))
    views = [view.name for view in VIEWS if any(view.name in part for part in parts)]
    heard = {FOLD: {view: Heard.joined([part[view] for part in parts if view in part]) for view in views}}
    heard |= {name: answers(*sides) for name, sides in split(clips).items()}
    limit = float(np.quantile(np.concatenate([one.distances for one in heard[FOLD].values()]), 1.0 - FALSE_ALARMS))
    recipes = {}
    for left_out in (None, *heard):
        told_by = [one for name, one in heard.items() if name not in (FOLD, left_out)]
        recipes[left_out] = Recipe(layout, _temperatures(told_by, layout), limit)
    return Judges(heard, recipes)


def _temperatures(told_by: Sequence[Judged], layout: Layout) -> dict[str, float]:
    """Fitted to whole clips; each of the judges counts the same, however many clips it has.

    Not out of fold: there the answers are surer than they may be of artists and sources that nobody has heard. The mean
    of several calibrated answers is less sure than it is right, so that the stages that vote together get one factor.
    """
    whole = [one["whole"] for one in told_by]
    labels = np.concatenate([one.labels for one in whole])
    weights = np.concatenate([np.full(len(one.labels), 1.0 / len(one.labels)) for one in whole])
    logits = {stage: np.concatenate([one.logits[usual(layout[stage])] for one in whole]) for stage in layout}
    alone = {stage: fit_temperature(logits[stage], labels, weights) for stage in layout}
    voting = list(layout)[1:]
    if len(voting) == 1:
        return alone
    factor = fit_vote_temperature([logits[stage] / alone[stage] for stage in voting], labels, weights)
    return {stage: value * factor if stage in voting else value for stage, value in alone.items()}


def compare(clips: Sequence[ClipEmbeddings], inputs: Sequence[str]) -> dict[str, tuple[int, int]]:
    """How many whole clips a head on ``inputs`` finds, of how many, by judge; one round of folds."""

    def right(train: Sequence[int], test: Sequence[int]) -> tuple[int, int]:
        head = fit_one([clips[i] for i in train], inputs)
        said = head.logits(np.stack([clips[i].views["whole"].row(usual(inputs)) for i in test])).argmax(axis=1)
        return sum(GENRES[g] == clips[i].clip.genre for g, i in zip(said, test, strict=True)), len(test)

    found = {name: right(*sides) for name, sides in split(clips).items()}
    out_of_fold = [right(train.tolist(), test.tolist()) for train, test in folds(clips, 1)]
    return {FOLD: (sum(one for one, _ in out_of_fold), sum(n for _, n in out_of_fold)), **found}


def missed(
    clips: Sequence[ClipEmbeddings], nonsense: Sequence[NonsenseEmbedding], limit: float
) -> dict[str, tuple[int, int]]:
    """Per family of nonsense: how many of its signals a range test misses that knows the others only, of how many."""
    found = {}
    for family in dict.fromkeys(signal.family for signal in nonsense):
        own = np.stack([signal.row for signal in nonsense if signal.family == family])
        test = fit_range_to(clips, [signal.row for signal in nonsense if signal.family != family])
        found[family] = int((test.distance(own) <= limit).sum()), len(own)
    return found
