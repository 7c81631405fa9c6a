"""The starter bundle's builder: its fitting on made-up numbers, and the whole command on a made-up data set."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="fitting needs the extra [fit]")

from scipy.special import softmax

import synth
from edge_reclass import Cascade
from edge_reclass.bundle.loading import MANIFEST, load
from edge_reclass.errors import UsageError
from edge_reclass_export.heads import head_interface, head_mlp
from edge_reclass_export.musicnn_wheel import MusicnnWheel
from edge_reclass_export.onnx_writer import model_bytes
from edge_reclass_export.parity import run_graph
from edge_reclass_learn.fit.heads import (
    balanced_weights,
    fit_head,
    fit_scaler,
    fit_temperature,
)
from edge_reclass_learn.fit.ranges import fit_range
from edge_reclass_learn.hearing import nonsense
from starter import judging, measure, policies
from starter.build import build_starter
from starter.catalogue import GENRES, read_catalogue
from starter.heard import STARTER
from starter.policies import THOROUGH, Replay


def blobs(seed: int, rows: int = 300, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, rows)
    centres = np.random.default_rng(99).normal(0, 2, (classes, 12))
    return (centres[labels] + random.normal(0, 1, (rows, 12))) * 10.0 ** np.arange(-6, 6), labels


def test_clips_and_genres_count_the_same_however_many_rows_they_have() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1])
    clips = np.array([0, 0, 0, 1, 2, 2, 2])
    weights = balanced_weights(labels, clips, 2)
    assert weights.mean() == pytest.approx(1)
    assert weights[labels == 0].sum() == pytest.approx(weights[labels == 1].sum())
    assert weights[clips == 0].sum() == pytest.approx(weights[clips == 1].sum())


def test_scaler_is_weighted_and_leaves_constants_alone() -> None:
    scaler = fit_scaler(np.array([[0.0, 5.0], [1.0, 5.0]]), np.array([3.0, 1.0]))
    np.testing.assert_allclose(scaler.mean, [0.25, 5.0])
    np.testing.assert_allclose(scaler.scale, [np.sqrt(0.1875), 1.0])


def test_a_head_learns_and_becomes_the_same_graph() -> None:
    (x, y), (x_new, y_new) = blobs(1), blobs(2)
    head = fit_head(x, y, balanced_weights(y, np.arange(len(y)), 4), 4, strength=1.0)
    assert (head.logits(x_new).argmax(axis=1) == y_new).mean() > 0.9
    assert (head.logits(1e3 * x_new).argmax(axis=1) != 3).all(), "a genre without rows never wins"
    content = model_bytes(head_mlp([head.layer], head.scaler), expect=head_interface([head.layer]))
    features = x_new.astype(np.float32)
    np.testing.assert_allclose(run_graph(content, features)[0], head.logits(features), atol=1e-3)


def test_a_head_learns_two_genres_and_survives_one() -> None:
    x, y = blobs(1, classes=2)
    head = fit_head(x, y, np.ones(len(y)), 3, strength=1.0)
    assert (head.logits(x).argmax(axis=1) == y).mean() > 0.9
    alone = fit_head(x, np.ones_like(y), np.ones(len(y)), 3, strength=1.0)
    assert (alone.logits(x).argmax(axis=1) == 1).all()


def test_a_range_test_tells_two_sides_of_the_middle_and_becomes_the_same_graph() -> None:
    random = np.random.default_rng(0)
    music = random.normal(0, 1, (400, 6)) * 10.0 ** np.arange(-3, 3)
    # The made signals lie on both sides along the first column; nothing was made along the second.
    made = music[:60].copy()
    made[:, 0] += 5e-3 * np.where(np.arange(60) % 2, 1, -1)
    test = fit_range(music, np.ones(len(music)), made)
    far = music[:4].copy()
    far[:, 1] += [0.08, -0.08, 0.4, -0.4]
    inside, outside = test.distance(music[60:]), test.distance(made)
    assert np.quantile(inside, 0.95) < np.quantile(outside, 0.05)
    assert ((test.distance(far) >= 0) & (test.distance(far) <= 1)).all()
    content = model_bytes(test.graph(), expect=test.interface)
    for rows in (music[:5], made[:5], far):
        features = rows.astype(np.float32)
        np.testing.assert_allclose(run_graph(content, features)[0][:, 0], test.distance(features), atol=1e-4)


def test_made_signals() -> None:
    signals = list(nonsense.nonsense(8_000, 2.0))
    assert len({signal.name for signal in signals}) == len(signals) > 80
    for signal in signals:
        assert signal.samples.shape == (16_000,)
        assert np.abs(signal.samples).max() == pytest.approx(1) or signal.name == "silence"
    quiet = nonsense.played(signals[0].samples, -40.0, np.random.default_rng(0))
    assert quiet.dtype == np.float32
    assert np.abs(quiet).max() == pytest.approx(0.01, abs=1e-4)
    np.testing.assert_array_equal(quiet * 32_768, np.round(quiet * 32_768))


def test_temperature_undoes_a_scaling_of_calibrated_logits() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20_000, 4))
    labels = np.array([random.choice(4, p=row) for row in softmax(logits, axis=1)])
    assert fit_temperature(3 * logits, labels, np.ones(len(labels))) == pytest.approx(3.0, rel=0.05)


def replayed(agree_above: float, clips: int = 400) -> Replay:
    """One step and the full answer: the step is right only where its confidence is above ``agree_above``."""
    confidences = np.stack([np.linspace(0.36, 0.99, clips), np.ones(clips)])
    full = np.zeros(clips, np.intp)
    genres = np.stack([np.where(confidences[0] > agree_above, 0, 1), full])
    may_stop = np.ones(genres.shape, np.bool_)
    asked = (("fma", 3), ("musicnn", None))
    return Replay(asked, genres, confidences, may_stop, full, full, np.ones(clips, np.bool_))


def test_what_stops_early_is_counted_where_it_stops() -> None:
    found = replayed(0.675).attempt({("fma", 3): 0.8}, {("fma", 3): 1.0, ("musicnn", None): 9.0, THOROUGH: 10.0})
    share = (0.99 - 0.8) / (0.99 - 0.36)
    assert (found.agreement, found.accuracy, found.full_accuracy) == (1.0, 1.0, 1.0)
    assert found.cost == pytest.approx((share * 1.0 + (1 - share) * 9.0) / 10.0, abs=0.01)


def test_a_threshold_satisfies_every_judge_but_the_one_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    easy, hard = replayed(0.36), replayed(0.89)
    judged = {judging.FOLD: easy, judging.ARTISTS: easy, judging.SOURCE: hard}
    monkeypatch.setattr(policies, "replays", lambda *_: judged)
    spent = {("fma", 3): 1.0, ("musicnn", None): 9.0, THOROUGH: 10.0}
    assert policies.choose(None, STARTER, spent)["fma", 3] == 0.9
    assert policies.choose(None, STARTER, spent, left_out=judging.SOURCE)["fma", 3] == 0.8


@pytest.fixture(scope="module")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips of a known sound per genre, of 2.1, 10.2 and 30.2 s, an index, and a labelled clip from elsewhere."""
    root = tmp_path_factory.mktemp("data")
    known = {
        "Blues": ("gtzan", "blues"),
        "Classical": ("emotify", "classical"),
        "Country": ("gtzan", "country"),
        "Disco": ("gtzan", "disco"),
        "Electronic": ("emotify", "electronic"),
        "Hip-Hop": ("gtzan", "hiphop"),
        "Jazz": ("gtzan", "jazz"),
        "Pop": ("gtzan", "pop"),
        "Reggae": ("gtzan", "reggae"),
        "Rock": ("gtzan", "metal"),
        "Spoken": ("speech", "spoken"),
    }
    rows = []
    for g, (dataset, label) in enumerate(known.values()):
        for i in range(4):
            seconds = 30.2 if (label, i) == ("blues", 1) else 10.2 if i % 2 else 2.1
            noise = np.random.default_rng([g, i]).standard_normal(round(seconds * 22_050))
            t = np.arange(len(noise)) / 22_050
            signal = 0.2 * np.sin(2 * np.pi * 110 * 1.4**g * t) + 0.01 * noise
            path = f"{label}{i}.wav"
            synth.write(root / path, signal.astype(np.float32), 22_050)
            split = "valid" if dataset == "gtzan" and i == 3 else "train"
            rows.append([path, dataset, label, f"{label}{i // 2 if dataset == 'emotify' else i}", split, seconds])
    rows.append(["left_out.wav", "emotify", "pop", "someone", "train", 16.0])
    with (root / "index.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "dataset", "genre", "group", "split", "seconds"], *rows])
    outside = root / "audio" / "fma"
    outside.mkdir(parents=True)
    synth.write(outside / "1.wav", synth.music(10.5), 44_100)
    (outside / "labels.csv").write_text("file,top_genre\n1.wav,Rock\n", encoding="utf-8")
    return root


def test_the_whole_command(
    made_data: Path, made_wheel: MusicnnWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "FOLDS", 2)
    monkeypatch.setattr(judging, "REPEATS", 1)
    monkeypatch.setattr(nonsense, "FITTED", ((16_000, 3.0),))
    monkeypatch.setattr(nonsense, "MEASURED", ((16_000, 3.0),))
    monkeypatch.setattr(measure, "SOFTER", (-20.0,))
    said: list[str] = []
    target = tmp_path / "starter"
    target.mkdir()
    (target / MANIFEST).write_text("an earlier bundle, to be replaced as a whole", encoding="utf-8")
    (target / "stale.onnx").write_bytes(b"x")
    assert build_starter(made_data, made_wheel, target, threads=1, say=said.append) == target
    assert not (target / "stale.onnx").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["starter"]
    bundle = load(target)
    bundle.verify()
    assert bundle.manifest.genres == list(GENRES)
    card = bundle.path("README.md").read_text(encoding="utf-8")
    assert card.count("| 10 s | 22 |") == 1
    assert "| fma + musicnn + mtt |" in card, "what a head could take, by judge"
    assert "| 10 s | 8 |" in card, "the list of other artists"
    assert "| whole | 4 |" in card, "the source that is left out"
    assert "1 Emotify clips labelled pop are left out" in card
    assert "| fma/1.wav | Rock |" in card
    with Cascade.open(target, policy="thorough", min_confidence=0.0) as cascade:
        right = [cascade.classify(made_data / f"{name}1.wav").genre for name in ("blues", "disco", "metal")]
    assert right == ["Blues", "Disco", "Rock"]


def test_refusals(made_data: Path, made_wheel: MusicnnWheel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"index\.csv: cannot be read"):
        read_catalogue(tmp_path)
    (tmp_path / "index.csv").write_text("path,dataset,genre,group\nx.ogg,gtzan,polka,1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="polka"):
        read_catalogue(tmp_path)
    with pytest.raises(UsageError, match="a bundle to replace"):
        build_starter(made_data, made_wheel, tmp_path, threads=1, say=print)
