"""Labelled tracks: folders named after genres, or a table."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edge_reclass.bundle import text_faults
from edge_reclass.errors import MissingExtraError, UsageError
from edge_reclass.library import FileTags, read_tags
from edge_reclass.run import TrackSearch, printable

_PATHS: Final = ("path", "file")
_GENRES: Final = ("genre", "label", "top_genre")
_NO_ARTIST: Final = frozenset({"", "unknown", "unknown artist", "various", "various artists", "va", "n/a", "-"})
_DATA: Final = "DATA is a folder with a folder for each genre, a CSV with the columns path and genre, or a state file"
_SHOWN: Final = 60
"""Characters of a wrong name that an error shows."""

Belonging = tuple[str, str]
"""What tracks have in common, as ``("artist", "kraftwerk")``: tracks that share one are one group."""


@dataclass(frozen=True)
class Labelled:
    """A track and its genre.

    belongs: what it may have in common with other tracks
    source: where it comes from, as the table says; None where it does not say
    kept: float16 embeddings by stage that a state file keeps; with them the file itself is not needed
    sound: ``audio_hash`` of the file where a state file keeps it
    """

    path: Path
    genre: str
    belongs: tuple[Belonging, ...] = ()
    source: str | None = None
    kept: Mapping[str, bytes] | None = None
    sound: bytes | None = None


@dataclass(frozen=True)
class Data:
    """Labelled tracks, and what a user should know of how they were read."""

    tracks: tuple[Labelled, ...]
    notes: tuple[str, ...] = ()


def read_data(path: Path) -> Data:
    """The labelled tracks of a folder of genres, or of a CSV.

    Raises:
        UsageError: it is neither, or not as it has to be; the message says what is expected.
    """
    found = from_folders(path) if path.is_dir() else from_csv(path)
    check_genres(path, (track.genre for track in found.tracks))
    return found


def check_genres(where: Path, genres: Iterable[str]) -> None:
    """Refuse names that a bundle cannot have.

    Raises:
        UsageError: a name is too long, or has characters that cannot be shown as they are.
    """
    for genre in dict.fromkeys(genres):
        for fault in text_faults(genre):
            raise UsageError(f"{where}: the genre {_cut(genre)}: expected no {fault}; rename it")


def _cut(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def from_folders(root: Path) -> Data:
    """Each folder in ``root`` is a genre and has its tracks, however deep they lie.

    A folder between the genre's and the track is the artist's. Where there is none, artist and album in the tags of the
    file count, if mutagen is installed. Raises ``UsageError`` where ``root`` cannot be read, or there are fewer than 2
    such folders.
    """
    try:
        genres = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    except OSError as error:
        raise UsageError(f"{root}: cannot be read ({error.strerror or error})") from error
    tracks, notes = [], []
    for folder in genres:
        search = TrackSearch([folder])
        for found in search:
            between = found.path.relative_to(folder).parts[:-1]
            belongs = (("artist", _same(between[0])),) if between and not _nobody(between[0]) else ()
            tracks.append(Labelled(found.path, folder.name, belongs))
        notes += [f"warning: {printable(str(path))}: cannot be searched ({why})" for path, why in search.problems]
    if len({track.genre for track in tracks}) < 2:
        raise UsageError(
            f"{root}: expected a folder for each genre with its tracks in it, and at least 2 of them; found"
            f" {_listed(sorted({track.genre for track in tracks})) or 'none with audio files'}"
        )
    read = with_tags(tracks)
    return Data(read.tracks, (*notes, *read.notes))


def from_csv(table: Path) -> Data:
    """A table with a header: ``path``, ``genre``, and perhaps ``group``, ``artist``, ``album`` and ``source``.

    Paths are absolute or relative to the table's folder. Raises ``UsageError`` where the table cannot be read, lacks a
    column, names a track twice with different genres, or a row lacks its path or genre.
    """
    rows, path_column, header = read_table(table)
    genre_column = next((name for name in _GENRES if name in header), None)
    if path_column is None or genre_column is None:
        raise UsageError(
            f"{table}: expected a header with {' or '.join(_PATHS)}, and with {' or '.join(_GENRES)}; got"
            f" {printable(', '.join(map(str, header))) or 'nothing'}"
        )
    tracks: dict[Path, Labelled] = {}
    for number, row in enumerate(rows, start=2):
        name, genre = (row[path_column] or "").strip(), (row[genre_column] or "").strip()
        if not name or not genre:
            missing = path_column if not name else genre_column
            raise UsageError(f"{table}: row {number}: expected a path and a genre, {missing} is empty")
        track = labelled_row(table, name, genre, row)
        path = track.path
        if (before := tracks.setdefault(path, track)).genre != genre:
            raise UsageError(f"{table}: row {number}: {printable(name)} stands there as {before.genre} and as {genre}")
    if len({track.genre for track in tracks.values()}) < 2:
        raise UsageError(f"{table}: expected tracks of at least 2 genres, got {len(tracks)} of 1")
    return with_tags(list(tracks.values()))


def read_table(table: Path, expected: str = _DATA) -> tuple[list[dict[str, str]], str | None, list[str]]:
    """The rows of a CSV, the name of its column of paths (None without one), and its header.

    Raises ``UsageError`` where it cannot be read; it ends with what was ``expected``.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            header = list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"{table}: cannot be read as a CSV ({getattr(error, 'strerror', None) or error}); {expected}"
        ) from error
    return rows, next((name for name in _PATHS if name in header), None), header


def labelled_row(table: Path, name: str, genre: str, row: Mapping[str, str]) -> Labelled:
    """The track ``name`` of a table, relative to the table's folder, with what its row says of group and source."""
    path = Path(os.path.abspath(table.parent / name))  # noqa: PTH100 - keeps links
    said = {key: row.get(key) or "" for key in ("group", "artist", "album")}
    return Labelled(path, genre, belonging(said), (row.get("source") or row.get("dataset") or "").strip() or None)


def with_tags(tracks: Sequence[Labelled]) -> Data:
    """``tracks``, those without a group with the artist and the album of their tags."""
    if all(track.belongs for track in tracks):
        return Data(tuple(tracks))
    try:
        found = [track if track.belongs else _told(track, read_tags(track.path)) for track in tracks]
    except MissingExtraError as error:
        return Data(tuple(tracks), (f"warning: the artists in the tags cannot be read: {error}",))
    return Data(tuple(found))


def _told(track: Labelled, tags: FileTags) -> Labelled:
    belongs = []
    if tags.artist and not _nobody(tags.artist):
        belongs.append(("artist", _same(tags.artist)))
    if tags.album:  # the same title may be of another album: "Greatest Hits"
        belongs.append(("album", f"{track.path.parent}/{_same(tags.album)}"))
    return replace(track, belongs=tuple(belongs))


def belonging(said: Mapping[str, str]) -> tuple[Belonging, ...]:
    """What a track has in common with others, of what is ``said`` of its group, artist and album."""
    plain = ((key, _same(value)) for key, value in said.items())
    return tuple((key, value) for key, value in plain if value and not (key == "artist" and _nobody(value)))


def _same(text: str) -> str:
    return " ".join(text.split()).casefold()


def _nobody(artist: str) -> bool:
    return _same(artist) in _NO_ARTIST


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names))
