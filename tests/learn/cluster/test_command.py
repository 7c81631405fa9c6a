"""The whole way: unlabelled music, clusters, names, labelled tracks, a bundle that knows the names."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("sklearn", reason="clustering needs the extra [fit]")
pytest.importorskip("onnx", reason="clustering needs the extra [fit]")
pytest.importorskip("onnxruntime", reason="clustering needs the extra [fit]")

import bundles
import labelled_music as made
import synth
from command import run
from edge_reclass import Cascade
from edge_reclass_learn.cluster import finding, stability
from edge_reclass_learn.cluster.clustering import Numbers, k_means
from edge_reclass_learn.cluster.record import Record
from edge_reclass_learn.cluster.space import Points
from edge_reclass_learn.fit import judging

EACH = 10
HOSTILE = "1 <img src=x onerror=alert(1)> & \"'.wav"


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """What is chosen from fewer parts and strengths does not matter here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "STRENGTHS", (0.01, 0.1))
        patch.setattr(stability, "PAIRS", 3)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``music``: tracks of three kinds in one folder, numbered so that number % 3 is the kind; ``base``; ``out``."""
    root = tmp_path_factory.mktemp("cluster")
    (root / "music").mkdir()
    for number in range(3 * EACH):
        synth.write(root / "music" / f"{number}.wav", made.track(number % 3, number), made.RATE)
    (root / "music" / "1.wav").rename(root / "music" / HOSTILE)
    made.base(root / "base")
    done = run("cluster", root / "music", "-o", root / "out", *options(root))
    assert done.returncode == 0, done.stderr
    (root / "said.txt").write_text(done.stdout, encoding="utf-8")
    return root


def options(place: Path) -> tuple[object, ...]:
    return ("--bundle", place / "base", "--cache", place / "cache", "--threads", 1, "--stage", "low")


def kind(path: str) -> int:
    found = re.match(r"\d+", Path(path).name)
    assert found is not None
    return int(found[0]) % 3


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "clusters.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def record(folder: Path) -> Record:
    return msgspec.json.decode((folder / "record.json").read_bytes(), type=Record)


def names(folder: Path, target: Path) -> Path:
    """A name for each cluster, by what most of its tracks are."""
    lines = ["cluster,genre,clustering"]
    for group in record(folder).clusters:
        own = Counter(kind(row["path"]) for row in rows(folder) if row["cluster"] == str(group.number))
        lines.append(f"{group.number},{made.GENRES[own.most_common(1)[0][0]]},{record(folder).name}")
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def test_clusters_are_what_sounds_alike(place: Path) -> None:
    found = record(place / "out")
    assert found.tracks == 3 * EACH == len(rows(place / "out")) and found.stages == ["low"]
    assert [one.clusters for one in found.curve] == stability.tried(3 * EACH)
    for group in found.clusters:
        own = [kind(row["path"]) for row in rows(place / "out") if row["cluster"] == str(group.number)]
        assert len(own) == group.tracks and len(set(own)) == 1
    said = (place / "said.txt").read_text(encoding="utf-8")
    assert f"{len(found.clusters)} clusters of {found.tracks} tracks" in said and "clusters.html" in said


def test_the_same_seed_gives_the_same_files(place: Path, tmp_path: Path) -> None:
    done = run("cluster", place / "music", "-o", tmp_path / "again", *options(place))
    assert done.returncode == 0, done.stderr
    for file in ("record.json", "clusters.csv", "clusters.html"):
        assert (tmp_path / "again" / file).read_bytes() == (place / "out" / file).read_bytes()


def test_names_and_order_of_the_files_change_nothing(place: Path, tmp_path: Path) -> None:
    found = {}
    for name, step in (("one", 1), ("other", -1)):
        own = tmp_path / name
        own.mkdir()
        files = sorted((place / "music").iterdir())[::step]
        for i, path in enumerate(files):
            os.link(path, own / f"{i}.wav")
        (tmp_path / f"{name}.csv").write_text("path\n" + "".join(f"{name}/{i}.wav\n" for i in range(len(files))))
        done = run("cluster", tmp_path / f"{name}.csv", "-o", tmp_path / f"{name}.out", *options(place))
        assert done.returncode == 0, done.stderr
        paths = {str(own / f"{i}.wav"): path.name for i, path in enumerate(files)}
        found[name] = {
            (paths[row["path"]], row["cluster"], row["distance"], row["far"], row["next_cluster"])
            for row in rows(tmp_path / f"{name}.out")
        }
        found[f"{name} curve"] = record(tmp_path / f"{name}.out").curve
    assert found["one"] == found["other"] and len(found["one"]) == 3 * EACH
    assert found["one curve"] == found["other curve"]


def test_names_become_genres_of_a_bundle(place: Path, tmp_path: Path) -> None:
    done = run("cluster", "-o", place / "out", "--names", names(place / "out", tmp_path / "names.csv"))
    assert done.returncode == 0, done.stderr
    new = tmp_path / "new"
    fitted = run("fit", place / "out" / "labelled.csv", "-o", new, *options(place)[:6])
    assert fitted.returncode == 0, fitted.stderr
    with Cascade.open(new, min_confidence=0.0) as cascade:
        for genre, name in enumerate(made.GENRES):
            file = tmp_path / f"{genre}.wav"
            synth.write(file, made.track(genre, 500), made.RATE)
            assert cascade.classify(file).genre == name


def test_the_page_shows_tracks_and_runs_nothing_from_a_name(place: Path) -> None:
    text = (place / "out" / "clusters.html").read_text(encoding="utf-8")
    found = record(place / "out")
    assert text.count("<script") == 1 and "<img" not in text and "http:" not in text and "https:" not in text
    assert len(re.findall(r"<input [^>]*data-cluster=", text)) == len(found.clusters)
    shown = re.findall(r'<audio controls preload="none" src="file://([^"]*)"', text)
    files = {one.as_uri().removeprefix("file://") for one in (place / "music").iterdir()}
    assert len(shown) == len(set(shown)) >= 3 * 5 and set(shown) <= files
    assert f'dataset.clustering="{found.name}"' in text and "names.csv" in text


def test_fewer_clusters_than_chosen(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def merged(points: Points, clusters: int, seed: int) -> Numbers:
        labels = k_means(points, clusters, seed)
        return np.where(labels == clusters - 1, 0, labels)

    monkeypatch.setattr(finding, "k_means", merged)
    done = run("cluster", place / "music", "-o", tmp_path / "out", *options(place))
    assert done.returncode == 0, done.stderr
    found = record(tmp_path / "out")
    assert found.asked in stability.tried(3 * EACH) and len(found.clusters) == found.asked - 1
    assert f"warning: K-Means left {len(found.clusters)} of {found.asked} clusters" in done.stdout
    assert f"{found.asked} (the upright line)" in (tmp_path / "out" / "clusters.html").read_text(encoding="utf-8")


def test_hdbscan(place: Path, tmp_path: Path) -> None:
    done = run("cluster", place / "music", "-o", tmp_path / "out", *options(place), "--method", "hdbscan")
    assert done.returncode == 0, done.stderr
    found = record(tmp_path / "out")
    assert (found.method, found.smallest, found.curve) == ("hdbscan", 5, [])
    assert sum(group.tracks for group in found.clusters) + found.loose == found.tracks
    for group in found.clusters:
        assert len({kind(row["path"]) for row in rows(tmp_path / "out") if row["cluster"] == str(group.number)}) == 1


def test_an_artist_is_not_taken_for_a_genre(place: Path, tmp_path: Path) -> None:
    table = tmp_path / "music.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "artist", "source", "genre"])
        for path in sorted((place / "music").iterdir()):
            artist = "Band 0" if kind(path.name) == 0 else f"Band {path.name}"
            writer.writerow([path, artist, "tape" if kind(path.name) == 1 else "disc", "not looked at"])
    done = run("cluster", table, "-o", tmp_path / "out", *options(place), "--clusters", 3)
    assert done.returncode == 0, done.stderr
    found = record(tmp_path / "out")
    warned = {kind(next(r["path"] for r in rows(tmp_path / "out") if r["cluster"] == str(one.number))): one.warnings
              for one in found.clusters}  # fmt: skip
    assert len(warned[0]) == 1 and "by the artist band 0" in warned[0][0]
    assert len(warned[1]) == 1 and "come from tape" in warned[1][0]
    assert warned[2] == [] and found.follows["source"] > 0.5
    assert "warning: cluster" in done.stdout and "the clusters follow the source" in done.stdout


def test_a_state_file_with_kept_embeddings(place: Path, tmp_path: Path) -> None:
    state = tmp_path / "music.state"
    arguments = ("--bundle", place / "base", "--state", state, "--workers", 0)
    assert run("classify", place / "music", *arguments).returncode == 0
    none = run("cluster", state, "-o", tmp_path / "out", *options(place))
    assert none.returncode == 2 and "it keeps none" in none.stderr and not (tmp_path / "out").exists()
    assert run("classify", place / "music", *arguments, "--keep-embeddings", "--redo").returncode == 0
    done = run("cluster", state, "-o", tmp_path / "out", *options(place))
    assert done.returncode == 0, done.stderr
    assert {(row["path"], kind(row["path"])) for row in rows(tmp_path / "out")} == {
        (str(path), kind(path.name)) for path in (place / "music").iterdir()
    }
    for group in record(tmp_path / "out").clusters:
        assert len({kind(row["path"]) for row in rows(tmp_path / "out") if row["cluster"] == str(group.number)}) == 1
    made.base(tmp_path / "other", accept=0.7)
    bundles.edit_manifest(tmp_path / "other", name="other")
    wrong = run("cluster", state, "-o", tmp_path / "no", "--bundle", tmp_path / "other")
    assert wrong.returncode == 2 and "those of another bundle" in wrong.stderr and not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("{music}", "--clusters", "1"), "expected auto or a number from 2 to 200, got '1'"),
        (("{music}", "--clusters", "1" * 5000), "expected auto or a number from 2 to 200, got '111"),
        (("{music}", "--clusters", "30"), "expected at least 2 for each of 30 clusters, got 30"),
        (("{music}", "--clusters", "3", "--method", "hdbscan"), "hdbscan finds their number itself"),
        (("{music}", "--smallest", "3"), "--smallest goes with --method hdbscan"),
        (("{music}", "--stage", "middle"), "--stage: expected one of low, high, got 'middle'"),
        (("{few}",), "expected at least 20 tracks, got 2; 1 left out, "),
        (("{few}/list.csv",), "expected a header with path or file; got name"),
        (("{few}/none",), "cannot be read (No such file"),
        ((), "expected DATA"),
        (("--names", "{few}/list.csv"), "expected clusters to name"),
        (("{music}", "--names", "x", "--clusters", "3"), "leave the options of clustering away"),
    ],
)
def test_what_cannot_be_clustered_is_refused(
    place: Path, tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for number in range(2):
        synth.write(few / f"{number}.wav", made.track(0, number), made.RATE)
    (few / "broken.wav").write_bytes(b"RIFF")
    (few / "list.csv").write_text("name\na.wav\n")
    given = [one.format(music=place / "music", few=few) for one in arguments]
    own = options(place)[: 6 if {"--stage", "--names"} & {*given} else 8]
    done = run("cluster", *given, "-o", tmp_path / "out", *own[:2], "--cache", tmp_path / "cache", *own[4:])
    assert done.returncode == 2 and expected in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_names_of_other_music_are_refused(place: Path, tmp_path: Path) -> None:
    done = run("cluster", tmp_path, "-o", place / "out", "--names", names(place / "out", tmp_path / "names.csv"))
    assert done.returncode == 2 and f"expected the clusters of {tmp_path}" in done.stderr


def test_a_name_that_is_not_utf8_is_clustered_but_not_labelled(place: Path, tmp_path: Path) -> None:
    music = tmp_path / "music"
    music.mkdir()
    for path in (place / "music").iterdir():
        os.link(path, music / path.name)
    try:
        (music / "2.wav").rename(music / os.fsdecode(b"2 \xff.wav"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    done = run("cluster", music, "-o", tmp_path / "out", *options(place), "--clusters", 3)
    assert done.returncode == 0, done.stderr
    (tmp_path / "names.csv").write_text("cluster,genre\n1,A\n2,B\n3,C\n")
    named = run("cluster", "-o", tmp_path / "out", "--names", tmp_path / "names.csv")
    assert named.returncode == 0, named.stderr
    assert "left out, with a name that a CSV cannot hold: 1" in named.stdout


def test_a_folder_whose_name_is_not_utf8_is_clustered_and_known_again(place: Path, tmp_path: Path) -> None:
    music = tmp_path / os.fsdecode(b"odd \xff")
    try:
        music.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for path in (place / "music").iterdir():
        os.link(path, music / path.name)
    done = run("cluster", music, "-o", tmp_path / "out", *options(place), "--clusters", 3)
    assert done.returncode == 0, done.stderr
    assert record(tmp_path / "out").data.endswith("odd \\udcff")
    (tmp_path / "names.csv").write_text("cluster,genre\n1,A\n2,B\n3,C\n")
    named = run("cluster", music, "-o", tmp_path / "out", "--names", tmp_path / "names.csv")
    assert named.returncode == 2 and "with a name that a CSV cannot hold" in named.stderr, "it is the same music"
