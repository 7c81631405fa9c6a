"""The encoders of bundles, each with a linear probe on the same folds."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="evaluation needs the extra [fit]")
pytest.importorskip("onnx", reason="evaluation needs the extra [fit]")
pytest.importorskip("onnxruntime", reason="evaluation needs the extra [fit]")

import bundles
import labelled_music as made
from edge_reclass import Cascade
from edge_reclass.bundle import load
from edge_reclass_learn.evaluate.encoders import encoders
from edge_reclass_learn.evaluate.hearing import HeardBundle, Options, hear_bundles
from edge_reclass_learn.evaluate.trial import Trial
from edge_reclass_learn.fit import judging


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "STRENGTHS", (0.01, 0.1))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("encoders")
    made.folders(root / "music")
    made.base(root / "one")
    made.base(root / "other")
    return root


def heard(place: Path, data: Path, *roots: Path) -> tuple[Trial, list[HeardBundle]]:
    options = Options(place / "cache", threads=1)
    found = hear_bundles(roots or [place / "one", place / "other"], data, options, lambda _: None)
    examples = list(found[0].examples.values())
    return Trial(examples, sorted({one.genre for one in examples}), 3, 0, draws=50), found


def test_a_probe_for_every_encoder(place: Path) -> None:
    trial, bundles = heard(place, place / "music")
    found = encoders(trial, bundles, lambda _: None)
    assert [(row.bundle, row.stage) for row in found] == [
        (name, stage) for name in ("test", "test (2)") for stage in ("low", "high")
    ]
    manifest = load(place / "one").manifest
    for row in found:
        assert row.accuracy is not None and row.accuracy.of == 24 and row.accuracy.value > 0.8
        assert row.balanced is not None and row.macro_f1 is not None and row.dim == made.PARTS
        assert row.milliseconds is not None and row.milliseconds > 0
        assert row.megabytes == manifest.files[f"encoders/{row.stage}.fp32.onnx"].bytes / 1e6
        assert f"at {made.RATE} Hz" in row.note
    assert found[0].accuracy == found[2].accuracy, "the same encoder on the same folds"


def test_no_more_windows_are_timed_than_are_probed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = made.base(tmp_path / "hasty")
    policies = bundles.read_manifest(root)["policies"]
    del policies["thorough"]
    bundles.edit_manifest(root, policies=policies)
    windows: dict[str, set[int]] = {"low": set(), "high": set()}
    hear = Cascade.step_answers

    def watched(*arguments: object) -> object:
        found = hear(*arguments)  # type: ignore[arg-type]
        for answer in found[1]:
            windows[answer.stage].add(answer.windows.heard)
        return found

    trial, bundle = heard(place, place / "music", root)
    monkeypatch.setattr(Cascade, "step_answers", watched)
    low, high = encoders(trial, bundle, lambda _: None)
    assert windows == {"low": {1}, "high": {3}}
    assert "at most 1 window" in low.note and "at most" not in high.note


def test_labels_that_say_nothing_are_not_found(place: Path, tmp_path: Path) -> None:
    table, random = tmp_path / "music.csv", np.random.default_rng(1)
    with table.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "genre", "artist"])
        for path in sorted((place / "music").rglob("*.wav")):
            rows.writerow([path, random.choice(["Left", "Right"]), path.stem])
    trial, bundles = heard(place, table)
    (first, *_) = encoders(trial, bundles[:1], lambda _: None)
    assert first.accuracy is not None and first.accuracy.value < 0.8


def test_tracks_whose_file_is_gone_are_probed_but_not_timed(place: Path) -> None:
    trial, (one, _) = heard(place, place / "music")
    gone = {f"gone {name}": replace(example, name=f"gone {name}") for name, example in one.examples.items()}
    trial = replace(trial, examples=list(gone.values()))
    (row, *_) = encoders(trial, [replace(one, examples=gone)], lambda _: None)
    assert row.accuracy is not None and row.milliseconds is None and "not timed" in row.note


def test_other_tracks_than_those_of_the_trial_are_refused(place: Path) -> None:
    trial, bundles = heard(place, place / "music")
    with pytest.raises(ValueError, match="expected the examples of the trial"):
        encoders(replace(trial, examples=trial.examples[::-1]), bundles, lambda _: None)
