"""What the encoders of bundles are worth: a linear probe on each one's embeddings, in the same folds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from edge_reclass import Cascade
from edge_reclass.cascade import Policy, Step
from edge_reclass.errors import TrackError
from edge_reclass_learn.evaluate.baselines.models import fitted_in_folds, logistic
from edge_reclass_learn.evaluate.evenly import evenly
from edge_reclass_learn.evaluate.hearing import HeardBundle
from edge_reclass_learn.evaluate.record import Encoder
from edge_reclass_learn.evaluate.trial import Trial
from edge_reclass_learn.hearing.examples import rows
from edge_reclass_learn.progress import Say

TIMED: Final = 24
"""Tracks that are timed, evenly over all."""


def encoders(trial: Trial, bundles: Sequence[HeardBundle], say: Say) -> list[Encoder]:
    """One row for each stage of each bundle: its embedding over all windows that a policy asks for.

    The probe is the recipe of a stage's head, on this one embedding: multinomial logistic regression whose strength is
    chosen in inner folds. Times are medians of CPU time, of tracks that are heard anew on one thread, with resampling
    and without decoding.

    Raises:
        ValueError: the examples of a bundle are not those of the trial.
        BundleError, EngineError, DeviceError: see ``Cascade.open``.
    """
    found = []
    for one in bundles:
        if list(one.examples) != [example.name for example in trial.examples]:
            raise ValueError(f"{one.name}: expected the examples of the trial in its order")
        say(f"{one.name}: timing its stages")
        took = _milliseconds(one)
        for stage, counts in one.heard.counts.items():
            say(f"{one.name}: linear probe on {stage}")
            found.append(_row(trial, one, stage, counts[-1], took.get(stage)))
    return found


def _row(trial: Trial, one: HeardBundle, stage: str, count: int | None, took: float | None) -> Encoder:
    features = rows(list(one.examples.values()), ((stage, count),))
    said = np.zeros(len(features), np.intp)
    for fold in fitted_in_folds(logistic, features, trial.labels, trial.groups, trial.dealt, trial.seed):
        said[fold.inside] = fold.predict(features[fold.inside])
    worth = trial.worth(said)
    manifest = one.bundle.manifest
    entry = manifest.stage(stage)
    graphs = entry.encoder.graph_files
    notes = [
        f"at {entry.encoder.rate} Hz",
        "loudness as it comes" if entry.loudness is None else f"at {entry.loudness:g} dBFS",
        "" if count is None else f"at most {count} window{'s' * (count > 1)}",
        "" if graphs else "numpy, no graph",
        "" if took is not None else "not timed: no file to hear",
    ]
    return Encoder(
        bundle=one.name,
        stage=stage,
        accuracy=worth.accuracy,
        balanced=worth.balanced,
        macro_f1=worth.macro_f1,
        milliseconds=took,
        megabytes=manifest.files[graphs["fp32"]].bytes / 1e6 if "fp32" in graphs else None,
        dim=features.shape[1],
        note=", ".join(note for note in notes if note),
    )


def _milliseconds(one: HeardBundle) -> Mapping[str, float]:
    """Median time of each stage over the windows that are probed, of some tracks; the first one only warms up."""
    stages = {name: counts[-1] for name, counts in one.heard.counts.items()}
    last = list(stages)[-1]
    steps = [Step(name, {name: 1.0}, 1.0 if name != last else None, count) for name, count in stages.items()]
    names = list(one.examples)
    took: dict[str, list[float]] = {name: [] for name in stages}
    with Cascade.open(one.bundle, policy=Policy("timed", "soft", tuple(steps)), threads=1) as cascade:
        for number, name in enumerate([names[0], *evenly(names, TIMED)]):
            try:
                _, said = cascade.step_answers(Path(name), time.process_time)
            except TrackError:
                continue
            for answer in said:
                if number:
                    took[answer.stage].append(answer.milliseconds + answer.resample_milliseconds)
    return {name: median(found) for name, found in took.items() if found}
