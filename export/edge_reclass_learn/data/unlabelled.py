"""Unlabelled tracks: a folder of music, or a table of paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from edge_reclass.errors import UsageError
from edge_reclass.run import TrackSearch, printable
from edge_reclass_learn.data.labelled import Data, Labelled, labelled_row, read_table, with_tags

_EXPECTED: Final = "DATA is a folder of music, a CSV with the column path, or a state file"


def read_unlabelled(path: Path) -> Data:
    """The tracks of a folder or of a CSV, each once; the genre of each is "", whatever the table says.

    Raises:
        UsageError: there is no audio in the folder, or the table is not as it has to be.
    """
    return _folder(path) if path.is_dir() else _table(path)


def _folder(root: Path) -> Data:
    search = TrackSearch([Path(os.path.abspath(root))])  # noqa: PTH100 - keeps links
    found = [Labelled(track.path, "") for track in search]
    if not found:
        raise UsageError(f"{root}: no audio found")
    read = with_tags(found)
    problems = (f"warning: {printable(str(path))}: cannot be searched ({why})" for path, why in search.problems)
    return Data(read.tracks, (*problems, *read.notes))


def _table(table: Path) -> Data:
    rows, column, header = read_table(table, _EXPECTED)
    if column is None:
        raise UsageError(
            f"{table}: expected a header with path or file; got {printable(', '.join(map(str, header))) or 'nothing'}"
        )
    tracks: dict[Path, Labelled] = {}
    for number, row in enumerate(rows, start=2):
        if not (name := (row[column] or "").strip()):
            raise UsageError(f"{table}: row {number}: expected a path, {column} is empty")
        track = labelled_row(table, name, "", row)
        tracks.setdefault(track.path, track)
    if not tracks:
        raise UsageError(f"{table}: no track in it")
    return with_tags(list(tracks.values()))
