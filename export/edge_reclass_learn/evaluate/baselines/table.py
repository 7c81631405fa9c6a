"""The table: what others find on the same folds as bundles, and what is found without listening."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
from msgspec.structs import replace

from edge_reclass_learn.evaluate.baselines import models
from edge_reclass_learn.evaluate.baselines.extracting import Extraction, extract
from edge_reclass_learn.evaluate.baselines.importance import feature_groups, importance
from edge_reclass_learn.evaluate.baselines.sources import Missing, sources
from edge_reclass_learn.evaluate.intervals import share
from edge_reclass_learn.evaluate.record import Baseline, Judgement
from edge_reclass_learn.evaluate.trial import Trial
from edge_reclass_learn.fit.doubts import without_listening

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """An approach on the features of a source.

    package: that the approach rests on, beside that of the source
    grouped: how much it rests on each group of the 518 features is asked
    """

    name: str
    approach: models.Fit
    source: str
    package: str = "scikit-learn"
    note: str = ""
    grouped: bool = False


ROWS: Final = (
    Row("nearest centroid, 518 features", models.nearest_centroid, "fma518"),
    Row("logistic, 518 features", models.logistic, "fma518"),
    Row("SVM (RBF), 518 features", models.svm, "fma518"),
    Row("histogram trees, 518 features", models.histogram_trees, "fma518"),
    Row("XGBoost, 518 features", models.xgboost_trees, "fma518", "xgboost"),
    Row(
        "correlation filter, PCA 60, XGBoost",
        models.reduced,
        "fma518",
        "xgboost",
        f"of the 518 columns that correlate above {models.CORRELATED} the first is kept",
        grouped=True,
    ),
    Row("logistic, openSMILE eGeMAPS", models.logistic, "egemaps"),
    Row("logistic, openSMILE ComParE", models.logistic, "compare"),
    Row("logistic, Essentia MusicExtractor", models.logistic, "essentia"),
    Row("logistic, musicnn tags", models.logistic, "tags"),
)


def baselines(
    trial: Trial,
    cache: Path,
    say: Say,
    *,
    judgements: Sequence[Judgement] = (),
    tags: Path | None = None,
    rows: Sequence[Row] = ROWS,
) -> list[Baseline]:
    """All rows of the table. Where a library is not there, a row has no figures, and its note says what to install.

    Args:
        cache: file that keeps what was extracted
        judgements: of bundles, to stand in the same table
        tags: graph of ``edge-reclass export musicnn --tags``

    Raises:
        UsageError: the cache or ``tags`` cannot be used.
    """
    given = sources(tags)
    nothing = Extraction(
        np.zeros((len(trial.examples), 0), np.float32), np.ones(len(trial.examples), np.bool_), None, ""
    )
    chance = Row("most frequent genre", models.majority, "")
    found = [_judged(trial, chance, nothing, _version("scikit-learn"), "")]
    for rule in without_listening(trial.examples, trial.labels, trial.dealt, len(trial.genres))[1:]:
        of = len(trial.examples)
        alone = _empty(f"without listening: {rule.name}", _version("scikit-learn"), "a small decision tree")
        found.append(replace(alone, accuracy=share(round(rule.accuracy * of), of)))
    tracks, extracted = [Path(example.name) for example in trial.examples], dict[str, Extraction]()
    for row in rows:
        source = given[row.source]
        try:
            if row.source not in extracted:
                extracted[row.source] = extract(source, tracks, cache, say)
            models.require(row.package)
        except Missing as why:
            found.append(_empty(row.name, "", f"not measured: {why}"))
            continue
        say(row.name)
        used = dict.fromkeys((source.version(), _version(row.package)))
        found.append(_judged(trial, row, extracted[row.source], ", ".join(used), source.note))
    return found + [_bundle(one) for one in judgements]


def _judged(trial: Trial, row: Row, features: Extraction, used: str, note: str) -> Baseline:
    folds = np.where(features.there, trial.dealt, -1)
    fitted = list(models.fitted_in_folds(row.approach, features.rows, trial.labels, trial.groups, folds, trial.seed))
    said = np.full(len(trial.examples), len(trial.genres), np.intp)  # where nothing was heard, nothing is said
    for fold in fitted:
        said[fold.inside] = fold.predict(features.rows[fold.inside])
    worth = trial.worth(said)
    lost = importance(fitted, features.rows, trial.labels, feature_groups(), trial.seed) if row.grouped else None
    return Baseline(
        name=row.name,
        version=used,
        accuracy=worth.accuracy,
        balanced=worth.balanced,
        macro_f1=worth.macro_f1,
        milliseconds=features.milliseconds,
        megabytes=None,
        dim=features.rows.shape[1] or None,
        note="; ".join(part for part in (row.note, note, features.note) if part),
        importance=lost,
    )


def _bundle(one: Judgement) -> Baseline:
    row = _empty(f"{one.name}, {one.policy}", f"digest {one.digest[:12]}", one.judged)
    if one.judged == "as it is" and one.known_tracks:
        row = replace(row, note=f"as it is: too high, its heads were fitted on {one.known_tracks} of the tracks")
    return replace(row, accuracy=one.accuracy, balanced=one.balanced, macro_f1=one.macro_f1)


def _empty(name: str, used: str, note: str) -> Baseline:
    return Baseline(
        name=name, version=used, accuracy=None, balanced=None, macro_f1=None, milliseconds=None, megabytes=None,
        dim=None, note=note,
    )  # fmt: skip


def _version(package: str) -> str:
    return f"{package} {version(package)}"
