"""Rows of a state as CSV for a spreadsheet: what the file's tags say beside what we say."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from typing import Final

from edge_reclass.library.rows import TrackRow
from edge_reclass.library.tags import FileTags, read

BOM: Final = "\ufeff"
"""By which a spreadsheet knows UTF-8."""

_COLUMNS: Final = (
    *("path", "artist", "title", "file_genre", "genre", "confidence", "status", "corrected", "decided_by", "reason"),
    *("then", "error", "policy", "bundle_digest", "at", "absent_since"),
)


def lines(rows: Iterable[TrackRow], *, tags: bool) -> Iterator[str]:
    """A head, and a line for each row that has a verdict.

    ``tags``: artist, title and genre are read from the file, as far as it is there; else they stay empty. ``then`` is
    the second best genre and its score. A cell that a spreadsheet would take for a formula begins with an apostrophe.

    Raises:
        MissingExtraError: ``tags``, and mutagen is not installed.
    """
    yield _line(_COLUMNS)
    for row in rows:
        verdict = row.final_verdict
        if verdict is None:
            continue
        said = read(row.file) if tags and row.absent_since is None else FileTags()
        second = verdict.top[1:2]
        values = {
            "path": os.fsdecode(row.path),
            "artist": said.artist,
            "title": said.title,
            "file_genre": "; ".join(said.genres),
            "genre": verdict.genre,
            "confidence": None if verdict.confidence is None else f"{verdict.confidence:.6f}",
            "status": verdict.status,
            "corrected": None if row.corrected is None else "yes",
            "decided_by": verdict.decided_by,
            "reason": verdict.reason,
            "then": f"{second[0].genre}={second[0].score:.6f}" if second else None,
            "error": verdict.error,
            "policy": verdict.policy,
            "bundle_digest": verdict.bundle_digest,
            "at": verdict.at,
            "absent_since": row.absent_since,
        }
        yield _line(defused(str(values[name])) if values[name] is not None else "" for name in _COLUMNS)


def defused(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") and cell[:1] else cell


def _line(values: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue()
