"""``library playlists``: what is listed where, under which names, and what of others' files stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from command import run
from edge_reclass.installing import install_command
from edge_reclass.library.playlists import _names
from filled import absent, answer, correct, failure, fill
from synth import music, write


def entries(playlist: Path) -> list[str]:
    """The files that a player finds, from the playlist's own folder."""
    lines = playlist.read_bytes().decode("utf-8").splitlines()
    assert lines[0] == "#EXTM3U"
    return [os.path.normpath(playlist.parent / line) for line in lines if not line.startswith("#")]


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def songs(tmp_path: Path) -> dict[str, Path]:
    return {name: tmp_path / f"music/{name}.flac" for name in ("pop", "rock", "low", "unsure", "gone", "bad")}


@pytest.fixture
def state(tmp_path: Path, songs: dict[str, Path]) -> Path:
    file = fill(
        tmp_path / "library.state",
        [
            answer(songs["pop"], {"Pop": 0.9}),
            answer(songs["rock"], {"Rock": 0.8}),
            answer(songs["low"], {"Rock": 0.4}),
            answer(songs["unsure"], {"Pop": 0.3}, "unsure"),
            answer(songs["gone"], {"Pop": 0.9}),
            failure(songs["bad"], "corrupt"),
        ],
    )
    absent(file, songs["gone"])
    return file


def test_a_genre_has_a_playlist_of_what_is_sure_and_there(tmp_path: Path, songs: dict[str, Path], state: Path) -> None:
    folder = tmp_path / "music/lists"
    done = run("library", "playlists", state, folder)
    assert done.returncode == 0, done.stderr
    assert names(folder) == ["Pop.m3u8", "Rock.m3u8"]
    assert entries(folder / "Pop.m3u8") == [str(songs["pop"])]
    assert entries(folder / "Rock.m3u8") == [str(songs["low"]), str(songs["rock"])]
    assert "\n../pop.flac\n" in (folder / "Pop.m3u8").read_text(), "relative: the music may be mounted elsewhere"
    assert "#EXTINF:-1,pop\n" in (folder / "Pop.m3u8").read_text()
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["1", f"{folder}/Pop.m3u8"],
        ["2", f"{folder}/Rock.m3u8"],
    ]


def test_corrections_win_whatever_the_confidence(tmp_path: Path, songs: dict[str, Path], state: Path) -> None:
    correct(state, songs["unsure"], "Jazz")
    correct(state, songs["rock"], "Jazz")
    done = run("library", "playlists", state, tmp_path / "lists", "--min-confidence", 0.85)
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "lists") == ["Jazz.m3u8", "Pop.m3u8"]
    assert entries(tmp_path / "lists/Jazz.m3u8") == [str(songs["rock"]), str(songs["unsure"])]


def test_a_second_run_touches_only_what_changed_and_removes_what_is_empty(
    tmp_path: Path, songs: dict[str, Path], state: Path
) -> None:
    folder = tmp_path / "lists"
    run("library", "playlists", state, folder)
    (folder / "mine.m3u8").write_text("#EXTM3U\na.mp3\n")
    for file in folder.iterdir():
        os.utime(file, (1, 1))
    correct(state, songs["pop"], "Rock")
    done = run("library", "playlists", state, folder)
    assert names(folder) == ["Rock.m3u8", "mine.m3u8"]
    assert f"removed {folder}/Pop.m3u8" in done.stderr and "1 playlist, 1 changed, 1 removed" in done.stderr
    assert len(entries(folder / "Rock.m3u8")) == 3
    os.utime(folder / "Rock.m3u8", (1, 1))
    assert "0 changed" in run("library", "playlists", state, folder).stderr
    assert (folder / "Rock.m3u8").stat().st_mtime == 1, "a server reads again what is newer"


@pytest.mark.parametrize("theirs", ["#EXTM3U\nmine.mp3\n", "", "#EXTM3U\n#EDGE-RECLASS:/another/library.state\n"])
@pytest.mark.parametrize("taken", ["Rock.m3u8", "rock.m3u8"])
def test_a_file_that_is_not_ours_is_neither_overwritten_nor_removed(
    tmp_path: Path, state: Path, theirs: str, taken: str
) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    for name in (taken, "Old.m3u8"):
        (folder / name).write_text(theirs)
    done = run("library", "playlists", state, folder)
    assert done.returncode == 2
    assert taken in done.stderr and "not made from" in done.stderr and "Old" not in done.stderr
    assert {file.name: file.read_text() for file in folder.iterdir()} == {taken: theirs, "Old.m3u8": theirs}


def test_a_link_of_that_name_is_not_followed(tmp_path: Path, state: Path) -> None:
    track = tmp_path / "track.flac"
    track.write_bytes(b"music")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/Rock.m3u8").symlink_to(track)
    assert run("library", "playlists", state, tmp_path / "lists").returncode == 2
    assert track.read_bytes() == b"music"


def test_names_that_a_playlist_cannot_hold_are_left_out_and_said(tmp_path: Path) -> None:
    folder = tmp_path / "music"
    names = [b"caf\xe9.mp3", b"two\nlines.mp3", b"end.mp3 ", b"#1.mp3", b" blank.mp3", b"a:b.mp3", "夜.mp3".encode()]
    paths = [Path(os.fsdecode(os.fsencode(folder) + b"/" + name)) for name in names]
    state = fill(tmp_path / "s", [answer(path, {"Pop": 0.9}) for path in paths])
    done = run("library", "playlists", state, folder)
    assert done.returncode == 0, done.stderr
    assert "3 tracks left out" in done.stderr
    playlist = folder / "Pop.m3u8"
    assert entries(playlist) == sorted(str(path) for path in paths[3:])
    lines = playlist.read_text().splitlines()
    assert {"./#1.mp3", "./ blank.mp3", "./a:b.mp3", "夜.mp3"} < set(lines), "no comment, no address, no lost blank"


def test_paths_lead_through_no_link(tmp_path: Path) -> None:
    real = tmp_path / "disk/deep/music"
    real.mkdir(parents=True)
    (real / "lists").mkdir()
    (tmp_path / "short").symlink_to(real)
    track = tmp_path / "short/a.flac"
    (real / "b.flac").write_bytes(b"x")
    track.symlink_to("b.flac")
    state = fill(tmp_path / "s", [answer(track, {"Pop": 0.9})])
    assert run("library", "playlists", state, tmp_path / "short/lists").returncode == 0
    text = (real / "lists/Pop.m3u8").read_text()
    assert text.endswith("\n../a.flac\n"), text


def test_artist_title_and_length_come_from_the_file(tmp_path: Path) -> None:
    mutagen = pytest.importorskip("mutagen", reason="tags need mutagen (extra [tags])")
    path = tmp_path / "a.flac"
    write(path, music(3.0, 44_100), 44_100)
    file = mutagen.File(path)
    file["artist"], file["title"] = "Sigur\nRós", "Hoppípolla, live"
    file.save()
    state = fill(tmp_path / "s", [answer(path, {"Pop": 0.9})])
    run("library", "playlists", state, tmp_path / "lists")
    assert "\n#EXTINF:3,Sigur Rós - Hoppípolla, live\n../a.flac\n" in (tmp_path / "lists/Pop.m3u8").read_text()


def test_without_mutagen_the_names_stand_and_it_is_said(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "mutagen", None)
    done = run("library", "playlists", state, tmp_path / "lists")
    assert done.returncode == 0 and install_command("tags") in done.stderr
    assert "#EXTINF:-1,pop\n" in (tmp_path / "lists/Pop.m3u8").read_text()


def test_names_of_genres_are_names_of_files_everywhere() -> None:
    genres = ["AC/DC", "Folk: new?", "..", "con", "hip-hop", "Hip-Hop", "x" * 400, "é" * 300, "a\nb", "", "R & B."]
    found = _names(genres)
    assert (found["AC/DC"], found["con"], found["R & B."]) == ("AC_DC.m3u8", "con_.m3u8", "R & B.m3u8")
    assert len({name.casefold() for name in found.values()}) == len(genres)
    for name in found.values():
        assert len(name.encode()) <= 255 and not set(name) & set('<>:"/\\|?*\n') and name.strip(" .") == name


def test_a_folder_that_cannot_be_one(tmp_path: Path, state: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = run("library", "playlists", state, tmp_path / "file")
    assert done.returncode == 2 and "cannot be used as a folder" in done.stderr
    assert run("library", "playlists", state, tmp_path / "lists", "--min-confidence", 2).returncode == 2
    assert not (tmp_path / "lists").exists()
