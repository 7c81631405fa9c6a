"""Labels of tracks: from a CSV file, or from folders named after genres."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_reclass.errors import UsageError

__all__ = ["from_csv", "from_folders", "groups_from_csv", "judgeable"]

_PATHS = ("path", "file")
_GENRES = ("genre", "label", "top_genre")


def from_csv(file: Path, tracks: Sequence[Path]) -> list[str | None]:
    """The label of each track; None for those that the table lacks.

    The table has a header with a column ``path`` or ``file`` and one of ``genre``, ``label``, ``top_genre``. Paths are
    relative to the table's folder, or absolute.

    Raises:
        UsageError: the file cannot be read, lacks a column, gives one track two labels, or knows none of the tracks.
    """
    labels = _column(file, tracks, _GENRES)
    if not any(labels):
        raise UsageError(f"--labels {file}: none of the {len(tracks)} tracks is in it; its paths are relative to it")
    return labels


def groups_from_csv(file: Path, tracks: Sequence[Path]) -> list[str | None]:
    """What the table's column ``group`` (artist, album, …) says of each track; None where it says nothing.

    Raises:
        UsageError: as :func:`from_csv`.
    """
    return _column(file, tracks, ("group",), optional=True)


def _column(file: Path, tracks: Sequence[Path], names: Sequence[str], optional: bool = False) -> list[str | None]:
    """What the first of the columns ``names`` that the table has says of each track."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--labels {file}: cannot be read ({reason})") from error
    columns = list(rows[0]) if rows else []
    path_column = next((name for name in _PATHS if name in columns), None)
    column = next((name for name in names if name in columns), None)
    if path_column is None or (column is None and not optional):
        raise UsageError(
            f"--labels {file}: expected a header with {' or '.join(_PATHS)}, and with {', '.join(names)}; "
            f"got {', '.join(map(str, columns)) or 'no rows'}"
        )
    known: dict[str, str] = {}
    for row in rows:
        path, value = row[path_column], row.get(column) if column else None
        if not path or not value:
            continue
        key = os.path.realpath(file.parent / path)
        if known.setdefault(key, value) != value:
            raise UsageError(f"--labels {file}: {path} stands there as {known[key]} and as {value}")
    return [known.get(os.path.realpath(track)) for track in tracks]


def from_folders(tracks: Sequence[Path]) -> list[str | None]:
    """The name of the folder that each track lies in."""
    return [Path(os.path.abspath(track)).parent.name or None for track in tracks]  # noqa: PTH100 - keeps links


def judgeable(
    labels: Sequence[str | None], genres: Sequence[str], aliases: Mapping[str, str] | None = None
) -> tuple[list[str | None], dict[str, int]]:
    """Labels as the bundle spells them, and how many tracks have a label that the bundle does not know.

    Letters and digits decide, whatever their case (``hiphop`` is ``Hip-Hop``). A label that is unknown becomes None:
    such a track can only be wrong, so it is not judged, and the harness says how many there are.
    """
    spelled = {_plain(genre): genre for genre in genres}
    spelled |= {_plain(alias): genre for alias, genre in (aliases or {}).items()}
    unknown: dict[str, int] = {}
    judged: list[str | None] = []
    for label in labels:
        genre = None if label is None else spelled.get(_plain(label))
        if label is not None and genre is None:
            unknown[label] = unknown.get(label, 0) + 1
        judged.append(genre)
    return judged, unknown


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()
