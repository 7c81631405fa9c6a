"""``library list``, ``show`` and ``export``: filters, formats, corrections, and names from anywhere."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest

from command import Done, run
from edge_reclass.library.rows import Wanted
from edge_reclass.library.spreadsheet import defused
from edge_reclass.library.state import State
from edge_reclass.verdict import Verdict
from libraries import Library, library, small_bundle

__all__ = ["library", "small_bundle"]


@pytest.fixture
def known(library: Library) -> Library:
    """All three classified, and a corrupt one; three.wav is corrected, album/two.flac has gone."""
    (library.music / "bad.mp3").write_bytes(b"no sound" * 100)
    library.done(code=3)
    with State.open(library.file, write=True) as state:
        state.correct(library.rows()["three.wav"].id, "Gamma")
    (library.music / "album" / "two.flac").unlink()
    library.done()
    return library


def listed(known: Library, *options: object) -> list[Verdict]:
    ran = run("library", "list", known.file, "-f", "jsonl", *options)
    assert ran.returncode == 0, ran.stderr
    return [Verdict.from_dict(json.loads(line)) for line in ran.stdout.splitlines()]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ((), ["one.flac", "bad.mp3", "three.wav"]),
        (("--genre", "Alpha"), ["one.flac"]),
        (("--genre", "Gamma"), ["three.wav"]),
        (("--status", "corrupt"), ["bad.mp3"]),
        (("--status", "unsupported"), []),
        (("--status", "corrected"), ["three.wav"]),
        (("--absent",), ["two.flac"]),
        (("--below", "0"), []),
        (("--below", "1"), ["one.flac"]),
        (("--changed-since", "2020-01-01"), ["one.flac", "bad.mp3", "three.wav"]),
        (("--changed-since", "2999-01-01T10:00:00+02:00"), []),
    ],
)
def test_filters(known: Library, options: tuple[str, ...], names: list[str]) -> None:
    found = {Path(verdict.path).name: verdict for verdict in listed(known, *options)}
    if "bad.mp3" in found and found["bad.mp3"].status == "unsupported":  # which it is depends on the decoders
        pytest.skip("this decoder calls it unsupported")
    assert list(found) == names


def test_a_correction_wins_everywhere(known: Library) -> None:
    (verdict,) = listed(known, "--status", "corrected")
    assert (verdict.status, verdict.genre, verdict.decided_by) == ("ok", "Gamma", None)
    assert verdict.top[0].genre == "Gamma" and len(verdict.top) == 1
    table = run("library", "list", known.file).stdout
    assert any(line.startswith("Gamma") and line.endswith("three.wav") for line in table.splitlines())
    assert "corrected by a person" in run("library", "show", known.file, known.music / "three.wav").stdout
    assert run("library", "status", known.file, "-f", "json").stdout.count("Gamma") == 1


def test_every_format(known: Library) -> None:
    assert len(json.loads(run("library", "list", known.file, "-f", "json").stdout)) == 3
    assert len(list(csv.reader(io.StringIO(run("library", "list", known.file, "-f", "csv").stdout)))) == 4
    refused = run("library", "list", known.file, "-f", "xml")
    assert refused.returncode == 2 and "expected one of" in refused.stderr


def test_an_export_holds_every_track(known: Library) -> None:
    file = known.root / "all.jsonl"
    ran = run("library", "export", known.file, "-o", file)
    assert ran.returncode == 0 and "4 tracks" in ran.stderr and ran.stdout == ""
    assert len(file.read_text(encoding="utf-8").splitlines()) == 4
    assert len(run("library", "export", known.file, "--present").stdout.splitlines()) == 3
    for target in (known.music / "three.wav", known.file, known.music / "link"):
        if target.name == "link":
            target.symlink_to(known.file)
        before = target.read_bytes()
        refused = run("library", "export", known.file, "-o", target)
        assert refused.returncode == 2 and target.read_bytes() == before


def test_csv_for_a_spreadsheet(known: Library) -> None:
    flac = pytest.importorskip("mutagen.flac", reason="mutagen is not installed")
    opened = flac.FLAC(known.music / "album" / "one.flac")
    opened["artist"], opened["title"], opened["genre"] = "=cmd|' /C calc'!A0", 'Größe; "x"', ["Polka", "Ska"]
    opened.save()
    text = run("library", "list", known.file, "-f", "csv", "--bom").stdout
    assert text.startswith("\ufeffpath,")
    rows = {Path(row["path"]).name: row for row in csv.DictReader(io.StringIO(text[1:]))}
    one = rows["one.flac"]
    assert one["artist"] == "'=cmd|' /C calc'!A0" and one["title"] == 'Größe; "x"'
    assert (one["file_genre"], one["genre"]) == ("Polka; Ska", "Alpha")
    assert (rows["three.wav"]["genre"], rows["three.wav"]["corrected"]) == ("Gamma", "yes")
    refused = run("library", "list", known.file, "--bom")
    assert refused.returncode == 2 and "--format csv" in refused.stderr


@pytest.mark.parametrize(
    ("cell", "expected"), [("=1+1", "'=1+1"), ("@x", "'@x"), ("\t=1", "'\t=1"), ("", ""), ("a=1", "a=1")]
)
def test_formulas_are_defused(cell: str, expected: str) -> None:
    assert defused(cell) == expected


def shown(known: Library, *options: object) -> Done:
    return run("library", "show", known.file, *options)


def test_show_prints_a_track_in_full(known: Library) -> None:
    text = shown(known, known.music / "album" / "one.flac").stdout
    for part in ("one.flac", "mert: Alpha", "scores: Alpha", "policy ladder", "first seen 2"):
        assert part in text
    plain = json.loads(shown(known, known.music / "album" / "one.flac", "-f", "json").stdout)
    assert Verdict.from_dict(plain["verdict"]).genre == "Alpha" and plain["absent_since"] is None
    assert "not there since" in shown(known, known.music / "album" / "two.flac").stdout
    refused = shown(known, known.music / "none.flac")
    assert refused.returncode == 2 and "library list" in refused.stderr


def test_names_cannot_rewrite_the_terminal(library: Library) -> None:
    odd = library.music / os.fsdecode(b"\xe9\x1b[2J.wav")
    (library.music / "three.wav").rename(odd)
    library.done()
    for ran in (run("library", "list", library.file), shown(library, odd)):
        assert ran.returncode == 0 and "\x1b" not in ran.stdout and "\\x1b[2J.wav" in ran.stdout
    assert odd.name in {Path(verdict.path).name for verdict in listed(library)}
    assert library.rows(Wanted())[odd.name].file == odd


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--below", "60"), "0 to 1"),
        (("--changed-since", "yesterday"), "expected a date"),
        (("--status", "bad"), "corrupt"),
    ],
)
def test_wrong_filters_are_explained(known: Library, options: tuple[str, ...], said: str) -> None:
    ran = run("library", "list", known.file, *options)
    assert ran.returncode == 2 and said in ran.stderr
