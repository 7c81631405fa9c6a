"""Vectors that somebody computed before as data: FMA's tables in their layout, arrays with their labels."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="fitting needs the extra [fit]")
pytest.importorskip("onnx", reason="fitting needs the extra [fit]")
pytest.importorskip("onnxruntime", reason="fitting needs the extra [fit]")

import labelled_music as made
from command import run
from edge_reclass import Cascade
from edge_reclass.bundle import load
from edge_reclass.errors import UsageError
from edge_reclass.features import FEATURE_NAMES
from edge_reclass_export.recipes.fma_mlp_model import RMSE_COLUMNS, RMSE_RATIO
from edge_reclass_learn.data.features import is_vectors, read_vectors
from edge_reclass_learn.fit import judging
from edge_reclass_learn.hearing.memory import fitted_sounds

WORDS = ("Folk", "Noise")


@pytest.fixture(scope="module", autouse=True)
def quick() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "STRENGTHS", (0.1,))
        yield


def features(count: int = 24) -> np.ndarray:
    """float32[count, 518] as this program computes them; every second track is louder at every feature."""
    random = np.random.default_rng(0)
    rows = random.normal(0, 1, (count, len(FEATURE_NAMES))) + 2.0 * (np.arange(count) % 2)[:, None]
    rows[:, list(RMSE_COLUMNS)] = 0.1 + 0.01 * np.abs(rows[:, list(RMSE_COLUMNS)])
    return rows.astype(np.float32)


def tables(root: Path, rows: np.ndarray, *, scale: float = RMSE_RATIO, seed: int = 1) -> Path:
    """features.csv and tracks.csv as pandas writes FMA's, the columns in an order of their own."""
    root.mkdir()
    order = np.random.default_rng(seed).permutation(len(FEATURE_NAMES))
    published = rows.copy()
    published[:, list(RMSE_COLUMNS)] *= scale
    parts = [FEATURE_NAMES[i].split("/") for i in order]
    with (root / "features.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        for level, title in enumerate(("feature", "statistics", "number")):
            out.writerow([title, *(part[level] for part in parts)])
        out.writerow(["track_id", *[""] * len(parts)])
        for i, row in enumerate(published):
            out.writerow([i + 2, *(f"{value:.9g}" for value in row[order])])
    with (root / "tracks.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["", "album", "artist", "artist", "set", "set", "track", "track"])
        out.writerow(["", "id", "id", "name", "split", "subset", "genre_top", "title"])
        out.writerow(["track_id", *[""] * 7])
        for i in range(len(rows)):
            genre = "" if i == len(rows) - 1 else WORDS[i % 2]
            out.writerow([i + 2, i // 4, i // 2 % 6 + 100 * (i % 2), "A, B", "training", "small", genre, 'a "title"'])
    return root


def test_fmas_tables_are_read_by_name_and_brought_to_our_scale(tmp_path: Path) -> None:
    rows = features()
    found = read_vectors(tables(tmp_path / "fma", rows))
    assert np.allclose(found.rows, rows[:-1], rtol=1e-6), "one track has no genre_top"
    assert [track.genre for track in found.tracks[:3]] == ["Folk", "Noise", "Folk"]
    assert found.tracks[0].belongs == (("artist", "0"), ("album", "0"))
    assert found.published and any("45.23" in note for note in found.notes)
    assert any("1 tracks without a genre_top" in note for note in found.notes)
    other = read_vectors(tables(tmp_path / "other", rows, seed=5) / "features.csv")
    assert np.array_equal(found.rows, other.rows), "the order of the columns does not matter"


def test_a_bundle_from_fmas_tables(tmp_path: Path) -> None:
    rows = features()
    made.base(tmp_path / "base")
    done = run("fit", tables(tmp_path / "fma", rows), "-o", tmp_path / "new", "--bundle", tmp_path / "base")
    assert done.returncode == 0, done.stderr
    assert "rmse" in done.stderr and "policy alone" in done.stdout
    bundle = load(tmp_path / "new")
    bundle.verify()
    (stage,) = bundle.manifest.stages
    assert (stage.name, stage.encoder.rate, stage.loudness, stage.head.range) == ("fma", 44_100, None, None)
    assert stage.excerpt is not None and stage.excerpt.full and stage.encoder.window_samples is None
    assert bundle.manifest.genres == ["Folk", "Noise"]
    told = bundle.manifest.provenance["fit"]
    assert told["sounds_unknown"] == 23 and not fitted_sounds(bundle), "vectors are no sounds"
    assert (told["tracks"], told["published_by_fma"]) == (23, True) and told["out_of_fold_accuracy"] > 0.9
    # The head takes what the runtime computes: an rms of at most 1.
    from edge_reclass_export.parity import run_graph

    said = run_graph((tmp_path / "new" / "heads" / "fma.onnx").read_bytes(), rows)[0].argmax(axis=1)
    assert (said == np.arange(24) % 2).mean() > 0.9
    with Cascade.open(tmp_path / "new", min_confidence=0.0) as cascade:
        verdict = cascade.classify_samples(made.track(0, 0, 4.0), made.RATE)
    assert verdict.genre in WORDS and verdict.stages[0].excerpt.seconds == pytest.approx(4.0, abs=0.01)
    assert run("verify", tmp_path / "new").returncode == 0


def broken(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def change_file(root: Path) -> None:
        lines = (root / name).read_text(encoding="utf-8").splitlines()
        (root / name).write_text("\n".join(change(lines)) + "\n", encoding="utf-8")

    return change_file


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (broken("features.csv", lambda x: [x[0].replace("rmse", "rms"), *x[1:]]), "no rmse/kurtosis/01"),
        (
            broken("features.csv", lambda x: [*x[:5], x[5].rsplit(",", 1)[0], *x[6:]]),
            "row 6: expected 519 cells, got 518",
        ),
        (broken("features.csv", lambda x: [*x[:5], x[5].rsplit(",", 1)[0] + ",loud"]), "row 6: expected numbers"),
        (broken("features.csv", lambda x: [*x[:5], x[5].rsplit(",", 1)[0] + ",1e300"]), "is not finite"),
        (broken("features.csv", lambda x: [*x, x[-2]]), "stands there twice"),
        (broken("features.csv", lambda x: x[:4]), "none of its tracks has a genre_top"),
        (broken("features.csv", lambda x: x[:1]), "expected the 518 features by name"),
        (
            broken("tracks.csv", lambda x: [*x[:6], x[6].split(",")[0] + ",1,2", *x[7:]]),
            "row 7: expected at least 7 cells",
        ),
        (broken("tracks.csv", lambda x: [x[0], x[1].replace("genre_top", "genre"), *x[2:]]), "no track/genre_top"),
        (broken("tracks.csv", lambda x: [x[0].replace("artist", "band"), *x[1:]]), "no artist/id"),
    ],
)
def test_tables_that_are_not_fmas_are_refused(tmp_path: Path, change: Callable[[Path], None], said: str) -> None:
    root = tables(tmp_path / "fma", features())
    change(root)
    with pytest.raises(UsageError, match=said):
        read_vectors(root)


def test_features_on_our_scale_in_fmas_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="computed it anew"):
        read_vectors(tables(tmp_path / "fma", features(), scale=1.0))


def test_a_folder_that_may_not_be_searched_has_no_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", locked)
    assert not is_vectors(tmp_path)


def vectors(count: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the second stage of the made base might make of tracks, their genres and groups."""
    random = np.random.default_rng(0)
    rows = random.normal(0, 1, (count, made.PARTS)) + 2.0 * (np.arange(count) % 2)[:, None]
    return rows.astype(np.float32), np.array(WORDS)[np.arange(count) % 2], np.arange(count) // 2 % 6


def test_arrays_make_a_bundle_with_that_stage_alone(tmp_path: Path) -> None:
    rows, genre, group = vectors()
    made.base(tmp_path / "base")
    np.savez(tmp_path / "some.npz", embeddings=rows, genre=genre, group=group, stage=np.array("high"))
    done = run("fit", tmp_path / "some.npz", "-o", tmp_path / "one", "--bundle", tmp_path / "base")
    assert done.returncode == 0, done.stderr
    bundle, base = load(tmp_path / "one"), load(tmp_path / "base")
    bundle.verify()
    (stage,) = bundle.manifest.stages
    assert stage.encoder == base.manifest.stage("high").encoder and stage.head.inputs == ["high"]
    assert bundle.manifest.provenance["fit"]["groups"] == 6 and "heads/low.onnx" not in bundle.manifest.files
    with Cascade.open(tmp_path / "one", min_confidence=0.0) as cascade:
        assert cascade.classify_samples(made.track(0, 0), made.RATE).genre in WORDS
    # The same as .npy, its labels beside it, and the stage said by the user.
    np.save(tmp_path / "some.npy", rows.astype(np.float64))
    with (tmp_path / "some.csv").open("w", encoding="utf-8", newline="") as file:
        # A column of which only an archive may have an array of that name does not matter.
        csv.writer(file).writerows([["genre", "group", "columns"], *zip(genre, group, genre, strict=True)])
    again = run("fit", tmp_path / "some.npy", "-o", tmp_path / "two", "--bundle", tmp_path / "base", "--stage", "high")
    assert again.returncode == 0, again.stderr
    assert load(tmp_path / "two").manifest.files["heads/high.onnx"] == bundle.manifest.files["heads/high.onnx"]


def test_vectors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    rows, genre, _ = vectors()
    made.base(tmp_path / "base")

    def refused(*options: object, **arrays: object) -> str:
        np.savez(tmp_path / "some.npz", **arrays)
        done = run("fit", tmp_path / "some.npz", "-o", tmp_path / "new", "--bundle", tmp_path / "base", *options)
        assert done.returncode == 2, done.stdout
        assert not (tmp_path / "new").exists()
        return done.stderr

    assert "say with --stage whose they are" in refused(embeddings=rows, genre=genre)
    assert "one of the stages low (64), high (64)" in refused("--stage", "mid", embeddings=rows, genre=genre)
    assert "it says that stage low" in refused("--stage", "high", embeddings=rows, genre=genre, stage=np.array("low"))
    assert "got 63 values for high" in refused("--stage", "high", embeddings=rows[:, 1:], genre=genre)
    assert "no 'embeddings'" in refused(genre=genre)
    assert "expected a genre of each track" in refused(embeddings=rows)
    assert "genre: expected texts [24], got" in refused(embeddings=rows, genre=genre[:5])
    escaping = np.where(genre == WORDS[0], "Fo\x1blk", genre)
    assert "no control characters; rename it" in refused("--stage", "high", embeddings=rows, genre=escaping)
    assert "expected numbers [tracks, width]" in refused(embeddings=rows[0], genre=genre)
    holed = rows.astype(np.float64)
    holed[3, 7] = 1e300
    assert "row 3: column 7 is not finite" in refused(embeddings=holed, genre=genre)
    assert "--augment needs audio" in refused("--augment", 2, "--stage", "high", embeddings=rows, genre=genre)
    assert "--keep-genres needs audio" in refused("--keep-genres", "--stage", "high", embeddings=rows, genre=genre)
    assert "at least 5 tracks of each genre" in refused("--stage", "high", embeddings=rows[:8], genre=genre[:8])
    music = made.folders(tmp_path / "music", made.GENRES[:2], artists=1, each=1)
    told = run("fit", music, "-o", tmp_path / "new", "--bundle", tmp_path / "base", "--stage", "high")
    assert told.returncode == 2 and "--stage high: only for vectors" in told.stderr


def test_damaged_arrays_are_refused(tmp_path: Path) -> None:
    rows, genre, _ = vectors(200)
    file = tmp_path / "some.npz"
    np.savez_compressed(file, embeddings=rows, genre=genre)
    sound = file.read_bytes()

    def refused(path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(UsageError, match="cannot be read as arrays"):
            read_vectors(path)

    refused(file, sound[:300] + bytes(200) + sound[500:])
    refused(file, sound[: len(sound) // 2])
    central = sound.index(b"PK\x01\x02")
    for offset, value in ((6, 1), (8, 99)):  # encrypted; a compression that nobody knows
        changed = bytearray(sound)
        changed[offset] = changed[central + offset + 2] = value
        refused(file, bytes(changed))
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 51800), }".ljust(117) + b"\n"
    refused(tmp_path / "huge.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(100))


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("unpickled"),)  # type: ignore[return-value]


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_no_pickle_is_opened(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"evil{suffix}"
    if suffix == ".npz":
        np.savez(file, embeddings=np.array([Evil()], object), genre=np.array(["Folk"]))
    else:
        file.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UsageError, match="without pickled objects"):
        read_vectors(file)
    assert not (tmp_path / "unpickled").exists()


def test_an_array_of_named_features_is_reordered_and_fmas_scale_is_refused(tmp_path: Path) -> None:
    rows = features()
    names = np.array(FEATURE_NAMES)
    genre = np.array(WORDS)[np.arange(24) % 2]
    np.savez(tmp_path / "some.npz", embeddings=rows[:, ::-1], columns=names[::-1], genre=genre)
    found = read_vectors(tmp_path / "some.npz")
    assert np.array_equal(found.rows, rows) and not found.unscaled
    rows[:, list(RMSE_COLUMNS)] *= RMSE_RATIO
    np.savez(tmp_path / "some.npz", embeddings=rows, columns=names, genre=genre)
    done = run("fit", tmp_path / "some.npz", "-o", tmp_path / "new")
    assert done.returncode == 2 and "give features.csv with tracks.csv beside it" in done.stderr
