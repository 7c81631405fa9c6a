"""What goes in and out of the routes that look at the state and change it."""

from __future__ import annotations

import base64
import binascii
import os
from typing import Annotated, Any, Literal

import msgspec

from edge_reclass.library import TrackRow

_GENRE = "^[^\\x00-\\x20\\x7f-\\xa0]([^\\x00-\\x1f\\x7f-\\x9f]*[^\\x00-\\x20\\x7f-\\xa0])?$"
_PATH = "^/[^\\x00]*$"
Genre = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=_GENRE)]
Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]
"""A cursor or an id: exact in any JSON."""
Name = Annotated[str, msgspec.Meta(max_length=4096, pattern=_PATH)]
"""An absolute path."""


class TrackName(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A track: its absolute path, or Base64 of its bytes where it is not valid UTF-8."""

    path: Name | None = None
    path_bytes: str | None = None

    def __post_init__(self) -> None:
        """One of the two, an absolute path. One with a NUL is the name of no file, and so of no track.

        Raises:
            ValueError: it is not so.
        """
        if (self.path is None) == (self.path_bytes is None):
            raise ValueError("expected path or path_bytes, one of them")
        file = self.file
        if not file.startswith("/"):
            raise ValueError(f"expected an absolute path, got {file!r}")

    @property
    def file(self) -> str:
        """The path as Python has it.

        Raises:
            ValueError: it is no path.
        """
        if self.path is not None:
            os.fsencode(self.path)
            return self.path
        try:
            return os.fsdecode(base64.b64decode(self.path_bytes or "", validate=True))
        except binascii.Error as error:
            raise ValueError(f"path_bytes: {error}") from error


def one_name(**more: Any) -> dict[str, Any]:
    """The JSON Schema of an object that names a track in one of the two ways, with what ``more`` requires."""
    encoded = {
        "type": "string",
        "contentEncoding": "base64",
        "pattern": "^L[w-z0-9+/][A-Za-z0-9+/]{2}([A-Za-z0-9+/]{4})*$",  # its first byte is a slash
    }
    ways = {"path": {"type": "string", "pattern": _PATH, "maxLength": 4096}, "path_bytes": encoded}
    return {
        "oneOf": [
            {
                "type": "object",
                "properties": {name: schema, **more},
                "required": [name, *more],
                "additionalProperties": False,
            }
            for name, schema in ways.items()
        ]
    }


GENRE_SCHEMA = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": _GENRE}


class Correction(TrackName, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What a person says of the genre of a track."""

    genre: Genre


class Said(msgspec.Struct):
    """A track after somebody said something of it."""

    path: str
    genre: str | None
    """What counts: what a person said, else what the verdict says."""
    corrected: str | None
    skipped: bool
    cursor: int | None


class ScanRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What to look at: files and folders below the roots, by default the roots."""

    paths: Annotated[list[Name], msgspec.Meta(max_length=2000)] = []
    redo: bool = False
    """Classify what has not changed, too."""
    retry_failed: bool = False
    """Try again what failed, in whatever way."""


class Counts(msgspec.Struct):
    """What a scan found, and what it did so far."""

    found: int = 0
    to_do: int = 0
    done: int = 0
    failed: int = 0
    unchanged: int = 0
    moved: int = 0
    retagged: int = 0
    linked: int = 0
    absent: int = 0
    hidden: int = 0
    other: int = 0
    """Files that are no audio by their names."""
    outside: int = 0
    """Files and folders that a link leads to outside of the roots; they are left out."""


class Scan(msgspec.Struct, kw_only=True):
    """A scan, and how far it is. ``since``: the cursor before its first verdict."""

    id: int
    status: Literal["waiting", "running", "done", "failed", "cancelled"]
    paths: list[str]
    redo: bool
    retry_failed: bool
    asked: str
    began: str | None
    ended: str | None
    since: int
    counts: Counts
    problems: list[tuple[str, str]] = []
    """What could not be searched, or was left out, and why."""
    error: str | None
    """Why it failed, as of folders that are not there."""


class ScanList(msgspec.Struct):
    """Scans, newest first."""

    scans: list[Scan]


class StateNews(msgspec.Struct):
    """The event that a stream begins with, and that comes when something of it changes."""

    cursor: int
    running: int | None
    """The scan that runs."""
    lent_to: str | None
    """The process that writes the state now, in words; None: the service."""


def described(row: TrackRow, *, corrected: bool = True) -> dict[str, Any]:
    """A row as plain values: its verdict's JSON, and what else a reader needs; a person's correction wins, or not."""
    verdict = row.final_verdict if corrected else row.verdict
    return {
        **(verdict.to_dict() if verdict is not None else {"path": os.fsdecode(row.path)}),
        "cursor": row.change,
        "corrected": row.corrected,
        "absent_since": row.absent_since,
        "scan": row.scan,
    }
