"""A file that keeps what was heard of tracks, so that a fit can be interrupted, and repeated with other options.

SQLite; what was heard of a track is committed at once. Tracks are known by their sound and not by their names.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from edge_reclass.errors import UsageError

_APPLICATION_ID: Final = 0x65726C66
_VERSION: Final = 1


def cache_of(output: Path) -> Path:
    """The cache of a command that writes the folder ``output``: NAME.cache, beside it."""
    folder = output.resolve()
    return folder.parent / f"{folder.name}.cache"


class HeardStage(msgspec.Struct, frozen=True):
    """What one stage heard: how many windows it has, and per count asked (0: all) its float32 embedding's bytes."""

    windows: int
    embeddings: dict[int, bytes]


class HeardTrack(msgspec.Struct, frozen=True):
    """What was heard of one track, by stage, and what its file gives away (see examples.Facts)."""

    stages: dict[str, HeardStage]
    facts: tuple[float, int, float, float]


Kept = TypeVar("Kept", bound=msgspec.Struct)


class Cache(Generic[Kept]):
    """The file, open; a context manager. ``how`` names what hears: other encoders and windows have other entries.

    ``kind`` is what is kept of a track.
    """

    def __init__(self, path: Path, how: str, kind: type[Kept]) -> None:
        """Open ``path``, or make it.

        Raises:
            UsageError: it cannot be opened, or is another kind of file.
        """
        self._path, self._how, self._kind = path, how, kind
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"{path}: cannot be opened as a cache ({error}); name another one with --cache") from error
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        connection = self._connection
        try:
            (identity,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if (identity, version, tables) == (0, 0, 0):
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS heard (sound BLOB NOT NULL, how TEXT NOT NULL, track BLOB NOT NULL,"
                    " PRIMARY KEY (sound, how)) STRICT"
                )
                connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={_VERSION}")
                connection.execute("COMMIT")
            elif (identity, version) != (_APPLICATION_ID, _VERSION):
                raise UsageError(f"{self._path}: expected a cache of what was heard, got another database")
        except sqlite3.Error as error:
            raise UsageError(f"{self._path}: expected a cache of what was heard ({error}); remove it") from error

    def get(self, sound: bytes) -> Kept | None:
        """What was heard of a sound; None where it was not heard yet. What cannot be read counts as not heard.

        Raises:
            UsageError: the file cannot be read.
        """
        try:
            found = self._connection.execute(
                "SELECT track FROM heard WHERE sound = ? AND how = ?", (sound, self._how)
            ).fetchone()
            return None if found is None else msgspec.msgpack.decode(found[0], type=self._kind)
        except sqlite3.Error as error:
            raise UsageError(f"{self._path}: cannot be read ({error}); remove it") from error
        except msgspec.DecodeError:
            return None

    def put(self, sound: bytes, track: Kept) -> None:
        """Keep what was heard.

        Raises:
            UsageError: it cannot be written.
        """
        try:
            self._connection.execute(
                "INSERT OR REPLACE INTO heard VALUES (?, ?, ?)", (sound, self._how, msgspec.msgpack.encode(track))
            )
        except sqlite3.Error as error:
            raise UsageError(
                f"{self._path}: cannot be written ({error}); what was heard before is kept, the same command goes on"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Cache[Kept]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
