"""The table: what others find on the same folds as bundles, and what is found without listening."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edge_reclass_learn.evaluate.baselines import models
from edge_reclass_learn.evaluate.baselines.extracting import Extraction, extract
from edge_reclass_learn.evaluate.baselines.importance import feature_groups, importance
from edge_reclass_learn.evaluate.baselines.sources import Missing, installed, sources
from edge_reclass_learn.evaluate.intervals import share
from edge_reclass_learn.evaluate.record import Baseline, Judgement
from edge_reclass_learn.evaluate.trial import Trial
from edge_reclass_learn.fit.doubts import without_listening
from edge_reclass_learn.progress import Say


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
    found = [_judged(trial, chance, nothing, installed("scikit-learn"), "")]
    for rule in without_listening(trial.examples, trial.labels, trial.dealt, len(trial.genres))[1:]:
        of = len(trial.examples)
        found.append(
            Baseline(
                name=f"without listening: {rule.name}",
                version=installed("scikit-learn"),
                accuracy=share(round(rule.accuracy * of), of),
                note="a small decision tree",
            )
        )
    tracks, extracted = [Path(example.name) for example in trial.examples], dict[str, Extraction]()
    for row in rows:
        source = given[row.source]
        try:
            used = dict.fromkeys((installed(source.package), installed(row.package)))
            if row.source not in extracted:
                extracted[row.source] = extract(source, tracks, cache, say)
        except Missing as why:
            found.append(Baseline(name=row.name, version="", note=f"not measured: {why}"))
            continue
        say(row.name)
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
        dim=features.rows.shape[1] or None,
        note="; ".join(part for part in (row.note, note, features.note) if part),
        importance=lost,
    )


def _bundle(one: Judgement) -> Baseline:
    too_high = one.judged == "as it is" and one.known_tracks
    return Baseline(
        name=f"{one.name}, {one.policy}",
        version=f"digest {one.digest[:12]}",
        accuracy=one.accuracy,
        balanced=one.balanced,
        macro_f1=one.macro_f1,
        note=f"as it is: too high, its heads were fitted on {one.known_tracks} of the tracks"
        if too_high
        else one.judged,
    )
