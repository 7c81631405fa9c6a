"""``library similar``: the nearest by cosine, which stage's embeddings, and what is said where there are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from command import run
from edge_reclass.library.similar import similar
from edge_reclass.library.state import State
from filled import absent, answer, failure, fill


def state_of(tmp_path: Path, vectors: np.ndarray, stage: str = "musicnn") -> Path:
    return fill(
        tmp_path / "library.state",
        [
            answer(tmp_path / f"{i}.flac", {"Pop": 0.9}, stages=("fma", stage), embeddings={stage: vector})
            for i, vector in enumerate(vectors)
        ],
    )


def found(file: Path, *arguments: object) -> list[tuple[str, float]]:
    done = run("library", "similar", file, *arguments, "-f", "jsonl")
    assert done.returncode == 0, done.stderr
    plain = [json.loads(line) for line in done.stdout.splitlines()]
    return [(Path(one["path"]).stem, one["similarity"]) for one in plain]


def test_the_nearest_are_those_of_plain_numpy_also_over_several_blocks(tmp_path: Path, monkeypatch) -> None:
    random = np.random.default_rng(0)
    # Scales as those of the 518 features: without being brought to one scale, the largest value would decide alone.
    vectors = (random.normal(0, 1, (300, 12)) * 10.0 ** np.linspace(-2, 3, 12) + 50).astype(np.float16)
    file = state_of(tmp_path, vectors)
    plain = vectors.astype(np.float64)
    plain = (plain - plain.mean(0)) / plain.std(0)
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    scores = plain @ plain[7]
    expected = [i for i in np.argsort(-scores) if i != 7][:15]
    for rows in (4096, 64, 1):
        monkeypatch.setattr(State.embeddings, "__defaults__", (rows,))
        got = found(file, tmp_path / "7.flac", "--top", 15)
        assert [int(name) for name, _ in got] == expected, rows
        assert np.allclose([score for _, score in got], scores[expected], atol=1e-5)


def test_the_last_stage_that_heard_the_track_is_compared_unless_another_is_asked_for(tmp_path: Path) -> None:
    def track(name: str, **embeddings: list[float]):
        return answer(tmp_path / f"{name}.flac", {"Pop": 0.9}, stages=tuple(embeddings), embeddings=embeddings)

    file = fill(
        tmp_path / "s",
        [
            track("a", zulu=[0, 1], alpha=[1, 0]),  # asked in this order
            track("b", zulu=[0, 1], alpha=[0, 1]),
            track("c", zulu=[1, 0], alpha=[1, 0]),
            track("d", zulu=[0.1, 1]),
        ],
    )
    assert [name for name, _ in found(file, tmp_path / "a.flac")] == ["c", "b"]
    assert [name for name, _ in found(file, tmp_path / "a.flac", "--stage", "zulu")] == ["b", "d", "c"]
    assert found(file, tmp_path / "d.flac")[0][0] in "ab"
    assert "by alpha, which heard 2 other tracks" in run("library", "similar", file, tmp_path / "a.flac").stderr
    done = run("library", "similar", file, tmp_path / "a.flac", "--stage", "nope")
    assert done.returncode == 2 and "expected one of alpha, zulu" in done.stderr


def test_absent_tracks_are_not_listed(tmp_path: Path) -> None:
    file = state_of(tmp_path, np.eye(4))
    absent(file, tmp_path / "2.flac")
    assert {name for name, _ in found(file, tmp_path / "0.flac")} == {"1", "3"}
    done = run("library", "similar", file, tmp_path / "2.flac")
    assert done.returncode == 2 and "was not there" in done.stderr


def test_values_that_float16_cannot_hold_spoil_nothing(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).normal(0, 1, (20, 4))
    vectors[3, 1], vectors[5, 2], vectors[:, 3] = np.inf, np.nan, 7.0
    got = found(state_of(tmp_path, vectors), tmp_path / "0.flac")
    assert len(got) == 19 and np.isfinite([score for _, score in got]).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("tracks", [1, 2])
def test_libraries_of_one_or_two_tracks(tmp_path: Path, tracks: int) -> None:
    file = state_of(tmp_path, np.ones((tracks, 3)))
    assert len(found(file, tmp_path / "0.flac")) == tracks - 1


def test_what_is_missing_is_said_with_the_command_that_helps(tmp_path: Path) -> None:
    file = fill(tmp_path / "s", [answer(tmp_path / "a.flac", {"Pop": 0.9}), failure(tmp_path / "b.flac", "corrupt")])
    for name, words in (("a", "(ok)"), ("b", "(corrupt)"), ("c", "is not in")):
        done = run("library", "similar", file, tmp_path / f"{name}.flac")
        assert done.returncode == 2 and done.stdout == ""
        assert words in done.stderr and "--keep-embeddings" in done.stderr and f"--state {file}" in done.stderr


def test_a_playlist_of_the_nearest(tmp_path: Path) -> None:
    file = state_of(tmp_path, np.array([[1, 0], [0.9, 0.1], [0, 1]]))
    target = tmp_path / "mix.m3u8"
    done = run("library", "similar", file, tmp_path / "0.flac", "--top", 1, "-o", target)
    assert done.returncode == 0 and done.stdout == ""
    assert target.read_text() == "#EXTM3U\n#EDGE-RECLASS:similar\n#EXTINF:-1,1\n1.flac\n"
    assert run("library", "similar", file, tmp_path / "0.flac", "-o", target).returncode == 0, "ours is replaced"
    other = tmp_path / "other.m3u8"
    other.write_text("#EXTM3U\nmine.flac\n")
    done = run("library", "similar", file, tmp_path / "0.flac", "-o", other)
    assert done.returncode == 2 and "was not made by similar" in done.stderr
    assert other.read_text() == "#EXTM3U\nmine.flac\n"
    track = tmp_path / "track.flac"
    track.write_bytes(b"fLaC music")
    (tmp_path / "link.m3u8").symlink_to(track)
    for name in ("track.flac", "link.m3u8", "mix.txt"):
        assert run("library", "similar", file, tmp_path / "0.flac", "-o", tmp_path / name).returncode == 2, name
    assert track.read_bytes() == b"fLaC music" and not (tmp_path / "mix.txt").exists()


def test_real_embeddings_bring_the_same_genre_together(tmp_path: Path, data: Path) -> None:
    from edge_reclass import Cascade

    # Short ones: what is decoded and heard takes longest.
    kinds = ("hiphop", "metal", "reggae")
    clips = [
        clip
        for kind in kinds
        for clip in sorted((data / "gtzan" / kind).glob("*.ogg"), key=lambda clip: clip.stat().st_size)[:8]
    ]
    with Cascade.open() as cascade:
        made = [
            answer(clip, {clip.parent.name: 0.9}, stages=("fma", "musicnn"), embeddings=cascade.embed(clip))
            for clip in clips
        ]
    with State.open(fill(tmp_path / "s", made)) as state:
        shares = []
        for clip in clips:
            near = similar(state, clip, 5)
            assert near.stage == "musicnn"
            shares.append(np.mean([row.genre == clip.parent.name for _, row in near.found]))
    assert np.mean(shares) > 0.6, "chance is 7 of 23"
