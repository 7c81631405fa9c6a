"""The starter bundle's README: ``card.md`` with the figures filled in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_reclass.cascade import Policy, Step
from starter.catalogue import GENRES, Catalogue
from starter.embeddings import VIEWS, ClipEmbeddings
from starter.evaluation import (
    ACCEPT,
    CHOSEN,
    FOLDS,
    MIN_CONFIDENCE,
    REPEATS,
    Figures,
    Heard,
    Recipe,
    dataset_rule,
    duration_rule,
    evaluate,
    make_policy,
)
from starter.fitting import CLIP
from starter.measure import Answered, Elsewhere

_TERMS = {"gtzan": "research only", "emotify": "CC BY-NC-SA", "speech": "research only"}
_ACCEPTS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
_HEADER = (
    "heard",
    "clips",
    "accuracy",
    "balanced",
    "unsure: outside",
    "unsure: low",
    "right of the rest",
    "fma decides",
    "ECE",
)


@dataclass(frozen=True)
class Measured:
    """What the finished bundle was asked.

    missed: per family of nonsense, what a range test misses that has heard none of it, and of how many
    nonsense: per family, the answers to signals at other rates, lengths and levels than those of the fit
    levels: how many clips, and how many keep their answer at each level
    """

    missed: Mapping[str, tuple[int, int]]
    nonsense: Mapping[str, Answered]
    levels: tuple[int, Mapping[float, int]]
    elsewhere: Sequence[Elsewhere]


def model_card(
    catalogue: Catalogue,
    clips: Sequence[ClipEmbeddings],
    recipe: Recipe,
    heard: Mapping[str, Heard],
    by_list: tuple[Recipe, Mapping[str, Heard]],
    by_source: tuple[Recipe, Mapping[str, Heard]],
    measured: Measured,
) -> str:
    """The card as Markdown; ``heard`` are the answers out of fold."""
    template = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    policy = make_policy(ACCEPT)
    unsure = [evaluate(recipe, one, policy) for one in heard.values()]
    return template.format(
        count=len(GENRES),
        genres=", ".join(GENRES),
        accept=f"{ACCEPT:g}",
        min_confidence=f"{MIN_CONFIDENCE:g}",
        chosen=CHOSEN,
        temperatures=", ".join(f"{stage} {value:.3f}" for stage, value in recipe.temperatures.items()),
        datasets=_datasets(catalogue),
        left_out=catalogue.left_out,
        index=catalogue.index_sha256,
        clip=f"{CLIP:g}",
        folds=FOLDS,
        repeats=REPEATS,
        outside=f"{max(one.outside for one in unsure):.1%}",
        figures=_figures(recipe, heard),
        by_list=_figures(*by_list),
        by_source=_figures(*by_source),
        rules=_rules(clips),
        policies=_policies(recipe, heard[CHOSEN]),
        genres_table=_per_genre(recipe, heard[CHOSEN]),
        thresholds=_thresholds({"out of fold": (recipe, heard), "other artists": by_list, "left out": by_source}),
        levels=_levels(*measured.levels),
        nonsense=_nonsense(measured),
        elsewhere=_elsewhere(measured.elsewhere),
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def _row(name: str, one: Figures) -> tuple[object, ...]:
    return (
        name,
        one.clips,
        f"{one.accuracy:.3f}",
        f"{one.balanced:.3f}",
        f"{one.outside:.1%}",
        f"{one.low:.1%}",
        f"{one.right_when_sure:.3f}",
        f"{one.first:.0%}",
        f"{one.error:.3f}",
    )


def _figures(recipe: Recipe, heard: Mapping[str, Heard]) -> str:
    return _table(_HEADER, [_row(view, evaluate(recipe, one, make_policy(ACCEPT))) for view, one in heard.items()])


def _policies(recipe: Recipe, heard: Heard) -> str:
    fast = Policy("fast", "soft", (Step("fma", {"fma": 1.0}),))
    rows = (("fast", fast), ("progressive", make_policy(ACCEPT)), ("thorough", make_policy(1.0)))
    return _table(_HEADER, [_row(name, evaluate(recipe, heard, policy)) for name, policy in rows])


def _datasets(catalogue: Catalogue) -> str:
    rows = []
    for dataset in sorted({clip.dataset for clip in catalogue.clips}):
        own = [clip for clip in catalogue.clips if clip.dataset == dataset]
        rows.append((dataset, len(own), len({clip.group for clip in own}), _TERMS.get(dataset, "see its source")))
    return _table(("data set", "clips", "groups", "terms"), rows)


def _rules(clips: Sequence[ClipEmbeddings]) -> str:
    views = [view.name for view in VIEWS if any(view.name in clip.views for clip in clips)]
    rows = [(view, f"{dataset_rule(clips, view):.2f}", f"{duration_rule(clips, view):.2f}") for view in views]
    return _table(("heard", "source", "duration"), rows)


def _per_genre(recipe: Recipe, heard: Heard) -> str:
    from sklearn.metrics import confusion_matrix

    decisions = recipe.decide(heard, make_policy(ACCEPT), min_confidence=0.0)
    table = confusion_matrix(heard.labels, [one.genre for one, _ in decisions], labels=np.arange(len(GENRES)))
    rows = []
    for g, genre in enumerate(GENRES):
        row, said = table[g].copy(), table[:, g].sum()
        if total := row.sum():
            found, row[g] = row[g], 0
            other = f"{GENRES[row.argmax()]} ({row.max() / total:.2f})" if row.any() else "–"
            clips = len(set(heard.clips[heard.labels == g].tolist()))
            rows.append((genre, clips, f"{found / total:.2f}", f"{found / said:.2f}" if said else "–", other))
    return _table(("genre", "clips", "found", "right when said", "most often taken for"), rows)


def _thresholds(judged: Mapping[str, tuple[Recipe, Mapping[str, Heard]]]) -> str:
    """Accuracy on whole clips, and how many fma decides."""
    rows = []
    for accept in _ACCEPTS:
        row = ["never" if accept == 1.0 else f"{accept:.2f}{' (chosen)' if accept == ACCEPT else ''}"]
        for recipe, heard in judged.values():
            one = evaluate(recipe, heard["whole"], make_policy(accept))
            row.append(f"{one.accuracy:.3f} ({one.first:.0%})")
        rows.append(row)
    return _table(("fma accepts above", *judged), rows)


def _levels(clips: int, kept: Mapping[float, int]) -> str:
    rows = [[f"{same} of {clips}" for same in kept.values()]]
    return _table([f"{level:g} dB" for level in kept], rows)


def _nonsense(measured: Measured) -> str:
    rows = [
        (family, one.sure, one.unsure, one.silent, _of(measured.missed.get(family)))
        for family, one in measured.nonsense.items()
    ]
    every = measured.nonsense.values()
    sums = (sum(one.sure for one in every), sum(one.unsure for one in every), sum(one.silent for one in every))
    missed = measured.missed.values()
    rows.append(("all", *sums, f"{sum(one for one, _ in missed)} of {sum(all_ for _, all_ in missed)}"))
    return _table(("family", "get a genre", "unsure", "silent", "missed if this family is unknown"), rows)


def _of(pair: tuple[int, int] | None) -> str:
    return f"{pair[0]} of {pair[1]}" if pair else "all silent"


def _elsewhere(tracks: Sequence[Elsewhere]) -> str:
    if not tracks:
        return "None were at hand when this bundle was built."
    rows = []
    for one in tracks:
        verdict = one.verdict
        answer = verdict.genre or f"unsure ({verdict.top[0].genre})"
        rows.append((one.track, one.label, answer, f"{verdict.confidence:.2f}", verdict.decided_by))
    right = sum(one.label == one.verdict.genre for one in tracks)
    unsure = sum(one.verdict.genre is None for one in tracks)
    return (
        f"Clips of 30 s from another source, never used for fitting or choosing: {right} of {len(tracks)} right, "
        f"{unsure} unsure.\nA sample this small says that nothing is broken, not how good the bundle is.\n\n"
        + _table(("track", "label", "answer", "score", "by"), rows)
    )
