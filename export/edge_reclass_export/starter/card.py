"""The starter bundle's README: ``card.md`` with the figures filled in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_reclass.bundle import Fma518Entry, WaveformEntry
from edge_reclass.policy import Policy
from edge_reclass_export.starter.catalogue import Catalogue
from edge_reclass_export.starter.embeddings import LENGTHS, LOW_RATE_LENGTH, LOW_RATES, ClipEmbeddings
from edge_reclass_export.starter.evaluation import (
    CHOSEN_LENGTH,
    CLIP,
    FOLDS,
    REPEATS,
    STAGES,
    Evaluation,
    Figures,
    alone,
    dataset_baseline,
    duration_baseline,
    everything,
    majority_baseline,
    make_policy,
    operate,
)

__all__ = ["Choice", "Outside", "model_card", "sweep"]

_TERMS = {"gtzan": "research only", "emotify": "CC BY-NC-SA", "speech": "research only"}


@dataclass(frozen=True)
class Choice:
    """One setting of the policy that was weighed: threshold, weight of fma, and what came of it."""

    accept: float
    weight: float
    accuracy: float
    balanced: float
    first_exit: float


@dataclass(frozen=True)
class Outside:
    """What the finished bundle says of a labelled track that it was not made from."""

    track: str
    label: str
    genre: str
    score: float
    decided_by: str


def sweep(evaluation: Evaluation, weight: float, accepts: Sequence[float]) -> list[Choice]:
    """What each threshold gives at the length at which the policy is chosen."""
    choices = []
    for accept in accepts:
        operation, _ = operate(evaluation, make_policy(accept, weight), CHOSEN_LENGTH)
        figures = operation.figures
        choices.append(Choice(accept, weight, figures.accuracy, figures.balanced, operation.first_exit))
    return choices


def model_card(
    catalogue: Catalogue,
    evaluation: Evaluation,
    policy: Policy,
    choices: Sequence[Choice],
    features: Fma518Entry,
    waveform: WaveformEntry,
    outside: Sequence[Outside],
) -> str:
    """The card as Markdown; ``outside`` is what the bundle says of clips from elsewhere."""
    if features.rate == "native" or features.window_samples is None:
        raise ValueError("the starter's features need a fixed rate and windows")
    template = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    return template.format(
        count=len(evaluation.genres),
        genres=", ".join(evaluation.genres),
        fma_rate=f"{features.rate:,}".replace(",", " "),
        fma_window=f"{features.window_samples / features.rate:g}",
        musicnn_window=f"{waveform.window_samples / waveform.rate:g}",
        policy=policy.name,
        accept=f"{policy.steps[0].accept:g}",
        weights=", ".join(f"{name} {weight:g}" for name, weight in policy.steps[1].weights.items()),
        chosen_length=f"{CHOSEN_LENGTH:g}",
        temperatures=", ".join(f"{stage} {value:.3f}" for stage, value in evaluation.temperatures.items()),
        datasets=_datasets(catalogue),
        left_out=catalogue.left_out,
        index=catalogue.index_sha256,
        clip=f"{CLIP:g}",
        folds=FOLDS,
        repeats=REPEATS,
        figures=_figures(evaluation, policy),
        figures_gtzan=_figures(evaluation, policy, only=lambda clip: clip.clip.dataset == "gtzan"),
        figures_long=_figures(evaluation, policy, only=lambda clip: max(LENGTHS) in clip.lengths),
        low_rates=_low_rates(evaluation, policy),
        low_length=f"{LOW_RATE_LENGTH:g}",
        per_genre=_per_genre(evaluation, policy),
        thresholds=_thresholds(choices, policy),
        outside=_outside(outside),
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def _datasets(catalogue: Catalogue) -> str:
    rows = []
    for dataset in sorted({clip.dataset for clip in catalogue.clips}):
        own = [clip for clip in catalogue.clips if clip.dataset == dataset]
        rows.append((dataset, len(own), len({clip.group for clip in own}), _TERMS.get(dataset, "see its source")))
    return _table(("data set", "clips", "groups", "terms"), rows)


def _figures(evaluation: Evaluation, policy: Policy, only: Callable[[ClipEmbeddings], bool] = everything) -> str:
    """One line per length; the baselines stand beside the figures of all clips."""
    header = ["cut", "clips", "fma balanced", "musicnn balanced", "cascade accuracy", "cascade balanced", "fma decides"]
    rules = (dataset_baseline, duration_baseline, majority_baseline) if only is everything else ()
    rows = []
    for length in LENGTHS:
        if not any(length in clip.lengths and only(clip) for clip in evaluation.clips):
            continue
        operation, _ = operate(evaluation, policy, length, only=only)
        figures = operation.figures
        row = [f"{length:g} s", str(figures.clips)]
        row += [f"{alone(evaluation, stage, length, only=only).balanced:.3f}" for stage in STAGES]
        row += [f"{figures.accuracy:.3f}", f"{figures.balanced:.3f}", f"{operation.first_exit:.0%}"]
        rows.append(row + [_both(rule(evaluation, length)) for rule in rules])
    return _table([*header, *("source", "duration", "majority")[: len(rules)]], rows)


def _low_rates(evaluation: Evaluation, policy: Policy) -> str:
    """The same cuts at full and at low rates."""
    rows = []
    for view in (LOW_RATE_LENGTH, *reversed(LOW_RATES)):
        operation, _ = operate(evaluation, policy, view)
        name = "the file's own" if view == LOW_RATE_LENGTH else f"{view:,} Hz".replace(",", " ")
        stages = [f"{alone(evaluation, stage, view).balanced:.3f}" for stage in STAGES]
        figures = operation.figures
        rows.append(
            (name, *stages, f"{figures.accuracy:.3f}", f"{figures.balanced:.3f}", f"{operation.first_exit:.0%}")
        )
    header = ("rate", "fma balanced", "musicnn balanced", "cascade accuracy", "cascade balanced", "fma decides")
    return _table(header, rows)


def _both(figures: Figures) -> str:
    return f"{figures.accuracy:.2f} ({figures.balanced:.2f})"


def _per_genre(evaluation: Evaluation, policy: Policy) -> str:
    _, confusion = operate(evaluation, policy, CHOSEN_LENGTH)
    rows = []
    for g, genre in enumerate(evaluation.genres):
        row, said = confusion[g], confusion[:, g].sum()
        if row.sum():
            right = f"{row[g] / said:.2f}" if said else "–"
            found = f"{row[g] / row.sum():.2f}"
            rows.append((genre, row.sum() // REPEATS, found, right, _confused(row, g, evaluation.genres)))
    return _table(("genre", "clips", "found", "right when said", "most often taken for"), rows)


def _confused(row: NDArray[np.intp], g: int, genres: Sequence[str]) -> str:
    others = row.copy()
    others[g] = 0
    worst = int(others.argmax())
    return f"{genres[worst]} ({others[worst] / row.sum():.2f})" if others[worst] else "–"


def _thresholds(choices: Sequence[Choice], policy: Policy) -> str:
    rows = []
    for choice in choices:
        name = "never" if choice.accept >= 1 else f"{choice.accept:.2f}"
        mark = " (chosen)" if choice.accept == policy.steps[0].accept else ""
        rows.append((name + mark, f"{choice.accuracy:.3f}", f"{choice.balanced:.3f}", f"{choice.first_exit:.0%}"))
    return _table(("fma accepts above", "accuracy", "balanced", "fma decides"), rows)


def _outside(outside: Sequence[Outside]) -> str:
    if not outside:
        return "None were at hand when this bundle was built."
    right = sum(one.label == one.genre for one in outside)
    rows = [(one.track, one.label, one.genre, f"{one.score:.2f}", one.decided_by) for one in outside]
    return (
        f"Clips of 30 s from another source, never used for fitting or choosing: {right} of {len(outside)} right.\n"
        "A sample this small says that nothing is broken, not how good the bundle is.\n\n"
        + _table(("track", "label", "decided", "score", "by"), rows)
    )
