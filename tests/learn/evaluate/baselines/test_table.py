"""The table: every row on the same tracks and folds, those that cannot be measured with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="baselines need the extra [fit]")
pytest.importorskip("onnx", reason="baselines need the extra [fit]")

import labelled_music as made
import synth
from edge_reclass_learn.evaluate.baselines import models, sources, table
from edge_reclass_learn.evaluate.baselines.table import Row, baselines
from edge_reclass_learn.evaluate.record import Baseline
from edge_reclass_learn.evaluate.trial import Trial
from edge_reclass_learn.fit import judging
from edge_reclass_learn.hearing.examples import Example, Facts

GENRES = ("High", "Low", "Middle")
CENTROID = Row("nearest centroid", models.nearest_centroid, "fma518", grouped=True)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """18 tones of 0.6 s, whose height is their genre; two of each artist."""
    root = tmp_path_factory.mktemp("tones")
    examples = []
    for number in range(18):
        genre = number // 2 % 3
        hertz = (3000, 200, 900)[genre] * (1 + 0.02 * number)
        t = np.arange(round(0.6 * made.RATE)) / made.RATE
        noise = np.random.default_rng(number).normal(0, 0.02, len(t))
        path = root / f"{number}.wav"
        synth.write(path, (0.3 * np.sin(2 * np.pi * hertz * t) + noise)[:, None].astype(np.float32), made.RATE)
        facts = Facts(0.6, made.RATE, -10.0 - number % 5, 256.0)
        examples.append(Example(str(path), GENRES[genre], f"artist {number // 2}", {}, {}, facts))
    return Trial(examples, GENRES, 3, 0, draws=50)


def measured(trial: Trial, cache: Path, *rows: Row, **more: object) -> dict[str, Baseline]:
    return {one.name: one for one in baselines(trial, cache, lambda _: None, rows=rows, **more)}  # type: ignore[arg-type]


def test_rows_have_figures_versions_and_what_they_rest_on(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "STRENGTHS", (0.01, 0.1))
    logistic = Row("logistic", models.logistic, "fma518", note="by hand")
    found = measured(trial, tmp_path / "cache", CENTROID, logistic)
    for name in ("nearest centroid", "logistic"):
        row = found[name]
        assert row.accuracy is not None and row.accuracy.value > 0.7 and row.accuracy.of == 18
        assert row.accuracy.interval == "wilson" and row.accuracy.low < row.accuracy.value
        assert row.balanced is not None and row.macro_f1 is not None
        assert (row.dim, row.milliseconds is not None and row.milliseconds > 0) == (518, True)
        assert "edge-reclass 0" in row.version and "scikit-learn 1" in row.version
    assert found["logistic"].note == "by hand" and found["logistic"].importance is None
    rests = found["nearest centroid"].importance
    assert rests is not None and len(rests) == 11 and list(rests.values()) == sorted(rests.values(), reverse=True)
    frequent, level = found["most frequent genre"], found["without listening: level"]
    assert frequent.accuracy is not None and frequent.accuracy.value <= 0.5 and frequent.dim is None
    assert level.accuracy is not None and level.balanced is None
    again = measured(trial, tmp_path / "cache", CENTROID)
    assert again["nearest centroid"] == found["nearest centroid"], "the same seed gives the same row"


def test_a_row_that_cannot_be_measured_says_what_to_install(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(name: str, package: str) -> object:
        raise sources.Missing(f"{package} cannot be imported: pip install {package}")

    monkeypatch.setattr(sources, "_module", gone)
    known = sources.version
    monkeypatch.setattr(sources, "version", lambda package: "1.0" if package == "essentia" else known(package))
    absent = Row("absent", models.nearest_centroid, "fma518", "no-such-library")
    essentia = Row("essentia", models.nearest_centroid, "essentia")
    tags = Row("tags", models.nearest_centroid, "tags")
    found = measured(trial, tmp_path / "cache", absent, essentia, tags, CENTROID)
    for name, command in {
        "absent": "pip install no-such-library",
        "essentia": "pip install essentia",
        "tags": "edge-reclass export musicnn",
    }.items():
        assert found[name].accuracy is None and found[name].milliseconds is None
        assert found[name].note.startswith("not measured: ") and command in found[name].note
    assert found["nearest centroid"].accuracy is not None, "the others are measured all the same"


def test_a_track_without_features_counts_as_wrong(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract = table.extract

    def lossy(*arguments: object) -> object:
        found = extract(*arguments)  # type: ignore[arg-type]
        found.there[0] = False
        return found

    always = Row("always high", lambda _: lambda rows: np.zeros(len(rows), np.intp), "fma518")
    before = measured(trial, tmp_path / "cache", always)["always high"].accuracy
    monkeypatch.setattr(table, "extract", lossy)
    after = measured(trial, tmp_path / "cache", always)["always high"].accuracy
    assert before is not None and after is not None and before.of == after.of == 18
    assert (before.value, after.value) == (6 / 18, 5 / 18)


def test_tracks_of_some_genres_stay_in_their_folds_and_one_genre_alone_is_no_error(
    trial: Trial, tmp_path: Path
) -> None:
    two = trial.of({"Low", "High"})
    fold_of = dict(zip((one.name for one in trial.examples), trial.dealt.tolist(), strict=True))
    assert list(two.genres) == ["High", "Low"] and len(two.examples) == 12
    assert two.dealt.tolist() == [fold_of[one.name] for one in two.examples]
    found = measured(trial.of({"Low"}), tmp_path / "cache", CENTROID)
    only = found["nearest centroid"].accuracy
    assert only is not None and (only.value, only.of) == (1.0, 6)


def test_every_row_of_the_table_has_a_source_and_a_name_of_its_own() -> None:
    assert {row.source for row in table.ROWS} == set(sources.sources(None))
    assert len({row.name for row in table.ROWS}) == len(table.ROWS)
