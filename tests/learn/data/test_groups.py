"""Which tracks belong together, and folds that keep them so."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from edge_reclass.errors import UsageError
from edge_reclass_learn.data.folds import deal
from edge_reclass_learn.data.groups import group, near_duplicates
from edge_reclass_learn.data.labelled import from_csv, from_folders, read_data


def test_a_group_reaches_through_artist_album_and_recording() -> None:
    belongs = [[("artist", "a")], [("artist", "a"), ("album", "x")], [("album", "x")], [("artist", "b")], [], []]
    found = group(belongs, [(3, 4)])
    assert found[0] == found[1] == found[2]
    assert found[3] == found[4]
    assert len({found[0], found[3], found[5]}) == 3


def test_the_same_recording_is_found_and_others_are_not() -> None:
    random = np.random.default_rng(0)
    first, second = (random.normal(0, 10.0 ** random.integers(-3, 3, 80), (120, 80)).astype(np.float32) for _ in "ab")
    # A copy in another codec: a little noise in both; and one at a low rate, that the first stage alone cannot know.
    first[100] = first[3] + 0.1 * first.std(axis=0) * random.normal(0, 1, 80)
    second[100] = second[3] + 0.1 * second.std(axis=0) * random.normal(0, 1, 80)
    second[101] = second[4]
    assert {(pair.first, pair.second) for pair in near_duplicates([first, second])} == {(3, 100), (4, 101)}


def test_whether_a_track_is_remembered_does_not_depend_on_the_tracks_beside_it() -> None:
    random = np.random.default_rng(0)
    known, beside = ([random.normal(0, spread, (40, 80)) for _ in "ab"] for spread in (1, 30))
    copies = [one[:4] + 0.2 * random.normal(0, 1, (4, 80)) for one in known]
    for others in ([one[:0] for one in beside], beside):  # beside: nothing like what the bundle knows
        stages = [np.concatenate(parts).astype(np.float32) for parts in zip(copies, others, known, strict=True)]
        own = 4 + len(others[0])
        pairs = near_duplicates(stages, remembered=40)
        assert {(pair.first, pair.second) for pair in pairs if pair.first < own} == {(i, own + i) for i in range(4)}


def test_few_remembered_tracks_have_no_spread_of_their_own() -> None:
    rows = np.random.default_rng(0).normal(0, 1, (60, 40)).astype(np.float32)
    rows[59] = rows[0]
    assert [(pair.first, pair.second) for pair in near_duplicates([rows, rows], remembered=1)] == [(0, 59)]


@pytest.mark.parametrize("seed", range(20))
def test_folds_share_no_group_and_every_genre_with_two_groups_is_in_two_folds(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 9, 24)
    group_of = np.repeat(np.arange(24), sizes)
    genre_of_group = np.concatenate([[0, 0, 1, 1, 2, 2], random.integers(0, 5, 18)])
    labels = genre_of_group[group_of]
    names = [f"group {number}" for number in group_of]
    folds = deal(labels, names, 5, seed)
    assert set(folds.tolist()) <= set(range(5))
    for number in range(24):
        assert len(set(folds[group_of == number].tolist())) == 1
    for genre in range(5):
        own = len(set(group_of[labels == genre].tolist()))
        assert len(set(folds[labels == genre].tolist())) == min(5, own)
    some = np.flatnonzero(folds != 0)
    inner = deal(labels, names, 3, 1, some)
    assert (inner[folds == 0] == -1).all() and (inner[some] >= 0).all()


def test_folds_that_stand_stay_and_the_others_are_dealt_around_them() -> None:
    labels = np.array([0, 0, 1, 1, 0, 1, 0, 0])
    names = ["a", "a", "b", "b", "c", "d", "e", "a"]
    fixed = np.array([2, 2, 0, 0, -1, -1, -1, -1])
    folds = deal(labels, names, 3, 0, fixed=fixed)
    assert folds[:4].tolist() == [2, 2, 0, 0] and folds[7] == 2, "a group stays together"
    assert folds[5] != 0 and {folds[4], folds[6]} == {0, 1}, "each genre goes where none of it is"


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_folders_are_genres_and_artists(tmp_path: Path) -> None:
    touch(tmp_path / "Rock" / "Some Band" / "Album" / "1.mp3")
    touch(tmp_path / "Rock" / "loose.mp3")
    touch(tmp_path / "Rock" / "Various Artists" / "2.mp3")
    touch(tmp_path / "Jazz" / "some  band" / "3.mp3")
    touch(tmp_path / ".hidden" / "4.mp3")
    touch(tmp_path / "notes.txt")
    found = {track.path.name: track for track in from_folders(tmp_path).tracks}
    assert {name: track.genre for name, track in found.items()} == {
        "1.mp3": "Rock",
        "loose.mp3": "Rock",
        "2.mp3": "Rock",
        "3.mp3": "Jazz",
    }
    assert found["1.mp3"].belongs == found["3.mp3"].belongs == (("artist", "some band"),)
    assert not found["loose.mp3"].belongs and not found["2.mp3"].belongs


def test_a_table_names_genre_group_and_source(tmp_path: Path) -> None:
    table = tmp_path / "all.csv"
    table.write_text("file,label,group,dataset\na.mp3,Rock,X,fma\nsub/b.mp3,Jazz,,gtzan\n", encoding="utf-8")
    first, second = from_csv(table).tracks
    assert (first.path, first.genre, first.belongs, first.source) == (
        tmp_path / "a.mp3",
        "Rock",
        (("group", "x"),),
        "fma",
    )
    assert (second.path, second.belongs) == (tmp_path / "sub" / "b.mp3", ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,genre\na.mp3,Rock\na.mp3,Jazz\n", "row 3: a.mp3 stands there as Rock and as Jazz"),
        ("path,genre\na.mp3,\n", "row 2: expected a path and a genre, genre is empty"),
        ("path,genre\na.mp3\n", "row 2: expected a path and a genre, genre is empty"),
        ("name,genre\na.mp3,Rock\n", "expected a header with path or file, and with genre"),
        ("", "expected a header with path or file"),
        ("path,genre\na.mp3,Rock\nb.mp3,Rock\n", "expected tracks of at least 2 genres"),
    ],
)
def test_what_is_no_table_of_tracks_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    table = tmp_path / "all.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        read_data(table)
    assert expected in str(refused.value) and str(table) in str(refused.value)


def test_bytes_are_no_table(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(UsageError, match="DATA is a folder"):
        read_data(tmp_path / "all.csv")
    (tmp_path / "Rock").mkdir()
    with pytest.raises(UsageError, match="a folder for each genre"):
        read_data(tmp_path)


def test_a_folder_that_may_not_be_searched_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", locked)
    with pytest.raises(UsageError, match="Permission denied"):
        read_data(tmp_path)


def test_one_stage_alone_has_to_be_surer() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(0, 1, (120, 80))
    rows[100] = rows[3] + 0.3 * random.normal(0, 1, 80)  # as two tracks of one genre may lie
    rows[101] = rows[4] + 0.01 * random.normal(0, 1, 80)
    one = rows.astype(np.float32)
    assert {(pair.first, pair.second) for pair in near_duplicates([one])} == {(4, 101)}
    assert {(pair.first, pair.second) for pair in near_duplicates([one, one])} == {(3, 100), (4, 101)}


def test_groups_are_named_after_their_first_track() -> None:
    belongs = [[("a", "1")], [("b", "1")], [("b", "1"), ("a", "1")], [("c", "1")]]
    assert group(belongs, []) == ["group 0", "group 0", "group 0", "group 3"]
    assert group([keys[::-1] for keys in belongs], []) == group(belongs, [])


@pytest.mark.parametrize("name", ["Ro\u202eck", "x" * 5000, "Rock\x1b[2J", "Ro\nck"])
def test_names_that_no_bundle_can_have_are_refused_at_once(tmp_path: Path, name: str) -> None:
    table = tmp_path / "data.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["path", "genre"], ["a.wav", "Jazz"], ["b.wav", name]])
    with pytest.raises(UsageError, match="rename it") as refused:
        read_data(table)
    assert len(str(refused.value)) < 400 and str(refused.value).isprintable()


def test_a_folder_that_is_not_utf8_is_no_genre(tmp_path: Path) -> None:
    try:
        for genre in ("Jazz", os.fsdecode(b"R\xf6ck")):
            (tmp_path / genre).mkdir()
            (tmp_path / genre / "a.wav").write_bytes(b"RIFF")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(UsageError, match="no surrogates; rename it"):
        read_data(tmp_path)
