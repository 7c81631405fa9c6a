"""The starter bundle's README: ``card.md`` with the figures filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix

from edge_reclass.cascade import Policy
from edge_reclass_export.plus.parts import Extra
from edge_reclass_learn.fit.heads import CLIP
from starter.catalogue import GENRES, Catalogue
from starter.embeddings import VIEWS, Asked, ClipEmbeddings
from starter.figures import MIN_CONFIDENCE, SURE, Figures, dataset_rule, duration_rule, evaluate
from starter.heard import Heard, Layout, Recipe
from starter.judging import ARTISTS, FOLD, FOLDS, REPEATS, SOURCE, Judges
from starter.measure import Answered, Elsewhere
from starter.policies import AGREEMENT, AGREEMENT_ELSEWHERE, LONG, LOSS, Accepts, Costs, named, replays
from starter.tables import table

_TERMS = {"gtzan": "research only", "emotify": "CC BY-NC-SA", "speech": "research only"}
_HEADER = (
    "clips",
    "accuracy",
    "balanced",
    "macro-F1",
    "unsure: outside",
    "unsure: low",
    "right of the rest",
    "ECE",
    "Brier",
    f"right above {SURE:g}",
)
_EMBARRASSING = 0.9
"""Wrong answers above this confidence are listed."""


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
    chosen: Chosen,
    costs: Costs,
    compared: Mapping[tuple[str, ...], Mapping[str, tuple[int, int]]],
    measured: Measured,
) -> str:
    """The card as Markdown.

    Args:
        compared: how many clips a head on these embeddings finds, of how many, by judge.
    """
    template = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    judges = chosen.judges
    policies = named(chosen.layout, chosen.accepts[None])
    default, thorough = policies["progressive"], policies["thorough"]
    recipe, fold = judges.recipes[None], judges.heard[FOLD]
    unsure = [evaluate(recipe, one, default).outside for one in fold.values()]
    return template.format(
        count=len(GENRES),
        genres=", ".join(GENRES),
        accepts=_accepts(chosen.accepts[None]),
        min_confidence=f"{MIN_CONFIDENCE:g}",
        temperatures=", ".join(f"{stage} {value:.3f}" for stage, value in recipe.temperatures.items()),
        datasets=_datasets(catalogue),
        left_out=catalogue.left_out,
        index=catalogue.index_sha256,
        clip=f"{CLIP:g}",
        folds=FOLDS,
        repeats=REPEATS,
        agreement=f"{AGREEMENT:.1%}",
        elsewhere_agreement=f"{AGREEMENT_ELSEWHERE:.0%}",
        loss=f"{LOSS:.1%}",
        long=f"{LONG:g}",
        outside=f"{max(unsure):.1%}",
        compared=_compared(compared),
        figures=_figures(recipe, fold, thorough),
        by_list=_figures(judges.recipes[ARTISTS], judges.heard[ARTISTS], thorough),
        by_source=_figures(judges.recipes[SOURCE], judges.heard[SOURCE], thorough),
        rules=_rules(clips),
        policies=_by_judge({"": chosen}),
        cost=_cost(chosen, costs),
        parts=_parts(costs),
        funnel=_funnel(recipe, fold["whole"], policies),
        reliability=_reliability(chosen),
        genres_table=_per_genre(recipe, fold["whole"], default),
        embarrassing=_embarrassing(chosen),
        levels=_levels(*measured.levels),
        nonsense=_nonsense(measured),
        elsewhere=_elsewhere(measured.elsewhere),
    )


@dataclass(frozen=True)
class PlusBundle:
    """What was found of the starter with some extra encoders (``name``); the fields as in :func:`model_card`."""

    name: str
    chosen: Chosen
    costs: Costs
    elsewhere: Sequence[Elsewhere]


def plus_card(extras: Mapping[str, Extra], bundles: Sequence[PlusBundle], starter: Chosen) -> str:
    """The card of starter plus as Markdown; it is compared with ``starter``."""
    folder = Path(__file__).parent
    section = (folder / "plus_section.md").read_text(encoding="utf-8")
    rows = [
        (stage, ", ".join(f"{name} ({digest})" for name, digest in one.checkpoints.items()), one.source, one.licence)
        for stage, one in extras.items()
    ]
    return (
        (folder / "plus.md")
        .read_text(encoding="utf-8")
        .format(
            extras=table(("stage", "file of the weights (sha256)", "from", "licence"), rows),
            sections="\n".join(section.format(**_plus_section(one, starter)) for one in bundles),
        )
    )


def _plus_section(bundle: PlusBundle, starter: Chosen) -> dict[str, str]:
    chosen = bundle.chosen
    policies = named(chosen.layout, chosen.accepts[None])
    recipe, fold = chosen.judges.recipes[None], chosen.judges.heard[FOLD]
    return {
        "name": bundle.name,
        "order": ", ".join(chosen.layout),
        "accepts": _accepts(chosen.accepts[None]),
        "temperatures": ", ".join(f"{stage} {value:.3f}" for stage, value in recipe.temperatures.items()),
        "policies": _by_judge({"starter, ": starter, "plus, ": chosen}),
        "cost": _cost(chosen, bundle.costs),
        "parts": _parts(bundle.costs),
        "funnel": _funnel(recipe, fold["whole"], policies),
        "reliability": _reliability(chosen),
        "genres_table": _per_genre(recipe, fold["whole"], policies["progressive"]),
        "embarrassing": _embarrassing(chosen),
        "elsewhere": _elsewhere(bundle.elsewhere),
    }


def _row(name: str, one: Figures) -> tuple[object, ...]:
    return (
        name,
        one.clips,
        f"{one.accuracy:.3f}",
        f"{one.balanced:.3f}",
        f"{one.macro_f1:.3f}",
        f"{one.outside:.1%}",
        f"{one.low:.1%}",
        f"{one.right_when_sure:.3f}",
        f"{one.error:.3f}",
        f"{one.brier:.3f}",
        f"{one.above[1]} of {one.above[0]}",
    )


def _figures(recipe: Recipe, heard: Mapping[str, Heard], policy: Policy) -> str:
    return table(("heard", *_HEADER), [_row(view, evaluate(recipe, one, policy)) for view, one in heard.items()])


@dataclass(frozen=True)
class Chosen:
    """A layout, its judges, and the thresholds that all of them choose (None) and that all but one choose."""

    layout: Layout
    judges: Judges
    accepts: Mapping[str | None, Accepts]

    def policies(self, judge: str) -> dict[str, Policy]:
        """With thresholds that ``judge`` has no part in; out of fold has a part in its own."""
        return named(self.layout, self.accepts[None if judge == FOLD else judge])

    def recipe(self, judge: str) -> Recipe:
        """As :meth:`policies`."""
        return self.judges.recipes[None if judge == FOLD else judge]


def _by_judge(bundles: Mapping[str, Chosen]) -> str:
    """All policies on whole clips, a table for each judge; ``bundles`` by what stands before the policies' names."""
    tables = []
    for judge in next(iter(bundles.values())).judges.heard:
        rows = [
            _row(prefix + name, evaluate(one.recipe(judge), one.judges.heard[judge]["whole"], policy))
            for prefix, one in bundles.items()
            for name, policy in one.policies(judge).items()
        ]
        tables.append(f"{judge}:\n\n{table(('policy', *_HEADER), rows)}")
    return "\n\n".join(tables)


def _compared(compared: Mapping[tuple[str, ...], Mapping[str, tuple[int, int]]]) -> str:
    rows = [
        (" + ".join(inputs), *(f"{right} of {n} ({right / n:.3f})" for right, n in found.values()))
        for inputs, found in compared.items()
    ]
    return table(("a head on", *next(iter(compared.values()))), rows)


def _datasets(catalogue: Catalogue) -> str:
    rows = []
    for dataset in sorted({clip.dataset for clip in catalogue.clips}):
        own = [clip for clip in catalogue.clips if clip.dataset == dataset]
        rows.append((dataset, len(own), len({clip.group for clip in own}), _TERMS.get(dataset, "see its source")))
    return table(("data set", "clips", "groups", "terms"), rows)


def _rules(clips: Sequence[ClipEmbeddings]) -> str:
    views = [view.name for view in VIEWS if any(view.name in clip.views for clip in clips)]
    rows = [(view, f"{dataset_rule(clips, view):.2f}", f"{duration_rule(clips, view):.2f}") for view in views]
    return table(("heard", "source", "duration"), rows)


def _cost(chosen: Chosen, costs: Costs) -> str:
    """The default beside ``thorough``: thresholds that all judges chose, and those that all but this one chose."""
    rows = []
    for judge in chosen.judges.heard:
        for left_out in (None, judge):
            one = replays(chosen.judges, chosen.layout, left_out)[judge].attempt(chosen.accepts[left_out], costs)
            said, by = _accepts(chosen.accepts[left_out]), "all" if left_out is None else "the others"
            lost = f"{one.accuracy - one.full_accuracy:+.3f}"
            rows.append((judge, by, said, f"{one.cost:.2f}", f"{one.agreement:.3f}", lost))
    return table(("judged on", "chosen by", "accepts above", "cost", "agreement", "accuracy"), rows)


def _accepts(accepts: Accepts) -> str:
    return ", ".join(f"{_after(asked)} {accept:g}" for asked, accept in accepts.items())


def _after(asked: Asked) -> str:
    stage, windows = asked
    if windows is None:
        return stage
    return f"{windows} window{'s' * (windows > 1)} of {stage}"


def _parts(costs: Costs) -> str:
    return table(("stops after", "ms"), [(_after(asked), f"{cost:.0f}") for asked, cost in costs.items()])


def _funnel(recipe: Recipe, heard: Heard, policies: Mapping[str, Policy]) -> str:
    long = heard.where(heard.seconds >= LONG)
    found = {name: evaluate(recipe, long, policy).funnel for name, policy in policies.items()}
    total = len(long.labels)
    rows = []
    places = dict.fromkeys((step.after, step.windows) for policy in policies.values() for step in policy.steps)
    for asked in places:
        shares = [f"{one[asked] / total:.1%}" if one[asked] else "–" for one in found.values()]
        rows.append((_after(asked), *shares))
    return table(("stops after", *found), rows)


def _reliability(chosen: Chosen) -> str:
    rows = []
    for judge, heard in chosen.judges.heard.items():
        one = evaluate(chosen.recipe(judge), heard["whole"], chosen.policies(judge)["progressive"])
        rows += [(judge, f"{mean:.2f}", f"{share:.2f}", count) for count, mean, share in one.reliability]
    return table(("judged on", "mean confidence", "right", "answers"), rows)


def _per_genre(recipe: Recipe, heard: Heard, policy: Policy) -> str:
    decisions = recipe.decide(heard, policy, min_confidence=0.0)
    counts = confusion_matrix(heard.labels, [one.genre for one, _ in decisions], labels=np.arange(len(GENRES)))
    rows = []
    for g, genre in enumerate(GENRES):
        row, said = counts[g].copy(), counts[:, g].sum()
        if total := row.sum():
            found, row[g] = row[g], 0
            other = f"{GENRES[row.argmax()]} ({row.max() / total:.2f})" if row.any() else "–"
            clips = len(set(heard.clips[heard.labels == g].tolist()))
            rows.append((genre, clips, f"{found / total:.2f}", f"{found / said:.2f}" if said else "–", other))
    return table(("genre", "clips", "found", "right when said", "most often taken for"), rows)


def _embarrassing(chosen: Chosen) -> str:
    """How often which genre is taken for which, with a confidence that should not be."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for judge, views in chosen.judges.heard.items():
        heard, policy = views["whole"], chosen.policies(judge)["progressive"]
        decisions = chosen.recipe(judge).decide(heard, policy, min_confidence=0.0)
        for label, (decision, _) in zip(heard.labels, decisions, strict=True):
            if decision.genre != label and decision.confidence > _EMBARRASSING:
                found.setdefault((judge, GENRES[label], GENRES[decision.genre]), []).append(decision.confidence)
    rows = [(*key, len(values), f"{max(values):.2f}") for key, values in sorted(found.items())]
    return table(("judged on", "genre", "taken for", "answers", "highest confidence"), rows) if rows else "None."


def _levels(clips: int, kept: Mapping[float, int]) -> str:
    rows = [[f"{same} of {clips}" for same in kept.values()]]
    return table([f"{level:g} dB" for level in kept], rows)


def _nonsense(measured: Measured) -> str:
    rows = [
        (family, one.sure, one.unsure, one.silent, _of(measured.missed.get(family)))
        for family, one in measured.nonsense.items()
    ]
    every = measured.nonsense.values()
    sums = (sum(one.sure for one in every), sum(one.unsure for one in every), sum(one.silent for one in every))
    missed = measured.missed.values()
    rows.append(("all", *sums, f"{sum(one for one, _ in missed)} of {sum(all_ for _, all_ in missed)}"))
    return table(("family", "get a genre", "unsure", "silent", "missed if this family is unknown"), rows)


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
        + table(("track", "label", "answer", "score", "by"), rows)
    )
