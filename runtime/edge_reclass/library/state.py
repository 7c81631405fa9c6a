"""A state file: what is known of each track of a library, in SQLite.

One connection writes, under a lock that names its process; any number read, also while it does. What was committed
survives the death of the process; what was committed a second ago survives that of the machine.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass.host import filesystem
from edge_reclass.library.lock import InstanceLock
from edge_reclass.library.rows import TrackRow, Wanted
from edge_reclass.library.schema import APPLICATION_ID, MIGRATIONS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_JOINED = "track LEFT JOIN correction ON correction.track = id"
_SELECT = f"""SELECT id, path, size, mtime_ns, status, track.genre, correction.genre, confidence, decided_by, verdict,
bundle_digest, policy, first_seen, last_seen, absent_since, change, scan
FROM {_JOINED}"""


@dataclass(frozen=True)
class Counts:
    """How many tracks there are, absent ones not counted but in ``absent``; the most frequent first."""

    tracks: int
    absent: int
    unclassified: int
    corrected: int
    statuses: dict[str, int]
    genres: dict[str, int]
    """What a person said, else what the verdict says."""
    decided_by: dict[str, int]


class State:
    """A state file that is open. Made by :meth:`open`; a context manager."""

    def __init__(self, connection: sqlite3.Connection, path: Path, lock: InstanceLock | None = None) -> None:
        self.connection = connection
        self.path = path
        self._lock = lock

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        write: bool = False,
        create: bool = False,
        socket: str | os.PathLike[str] | None = None,
        check: bool = True,
        say: Callable[[str], None] | None = None,
    ) -> State:
        """Open a state file; with ``create``, which implies ``write``, a new one is made where there is none.

        One process at a time may write; a service names its ``socket``, by which others can ask it to. Before it is
        migrated, a file of an older program is copied to ``FILE.v1.backup`` (1: the version that it had), and ``say``
        is told, for that can take a while. Without ``check``, nobody looks for damage when it is opened to write.

        Raises:
            StateBusyError: another process writes it.
            UsageError: it is not there, is no state file, is damaged, a newer program made it, or it lies on a file
                system of another machine.
        """
        given = Path(path)
        file = Path(os.path.realpath(given))
        if file.is_dir():
            raise UsageError(f"{given}: expected a state file, got a folder; name a file in it")
        if file.exists() and not file.is_file():  # SQLite would wait for what a pipe never brings
            raise UsageError(f"{given}: expected a state file, got a pipe, a socket or a device; name another file")
        if not file.exists():
            if not create:
                raise UsageError(
                    f"{given}: there is no such state file; edge-reclass classify PATH --state {given} makes one"
                )
            if not file.parent.is_dir():
                raise UsageError(f"{given}: there is no folder {file.parent}; make it first")
        with _explained(given):
            if write or create:
                return cls._written(given, file, create, socket, check, say)
            return cls._read(given, file)

    @classmethod
    def _read(cls, given: Path, file: Path) -> State:
        # A state that was closed in good order can be read on a read-only medium too, where SQLite could not lock it.
        quiet = not os.access(file.parent, os.W_OK) and not file.with_name(file.name + "-wal").exists()
        state = cls(_connect(file, "immutable=1" if quiet else "mode=ro"), file)
        with state._closed_on_error():
            version = state._version(given)
            if version < len(MIGRATIONS):
                raise UsageError(
                    f"{given}: an older program made it (version {version}, expected {len(MIGRATIONS)});"
                    f" edge-reclass library vacuum {given} brings it up to date"
                )
        return state

    @classmethod
    def _written(
        cls,
        given: Path,
        file: Path,
        create: bool,
        socket: str | os.PathLike[str] | None,
        check: bool,
        say: Callable[[str], None] | None,
    ) -> State:
        if kind := filesystem.network_file_system(file.parent):
            raise UsageError(
                f"{given}: it lies on {kind}, where SQLite's journal is not safe; name a state file on a local disk"
                " (the music may lie anywhere)"
            )
        lock = InstanceLock(file, now(), socket)
        try:
            state = cls(_connect(file, "mode=rwc" if create and not file.exists() else "mode=rw"), file, lock)
        except BaseException:
            lock.close()
            raise
        with state._closed_on_error():
            connection = state.connection
            version = state._version(given, new=create)
            if version and check:
                (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if said != "ok":
                    raise UsageError(
                        f"{given}: the state file is damaged ({said}); put a backup in its place, or move it away and"
                        " classify anew"
                    )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            if 0 < version < len(MIGRATIONS) and say is not None:
                say(f"{given}: bringing the state up to date (version {version} to {len(MIGRATIONS)})")
            state._migrate(version)
        return state

    def _version(self, given: Path, *, new: bool = False) -> int:
        """The version of the tables; 0 for an empty file, which only a ``new`` one may be."""
        (identity,) = self.connection.execute("PRAGMA application_id").fetchone()
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if new and (identity, version, tables) == (0, 0, 0):
            return 0
        if identity != APPLICATION_ID:
            raise UsageError(f"{given}: expected a state file, got another SQLite database; name another file")
        if version > len(MIGRATIONS):
            raise UsageError(
                f"{given}: a newer program made it (version {version}, this one knows {len(MIGRATIONS)});"
                " use that one, or another state file"
            )
        return int(version)

    def _migrate(self, version: int) -> None:
        for number in range(version, len(MIGRATIONS)):
            if version:  # nothing is lost of a file that was made now
                self._back_up(self.path.with_name(f"{self.path.name}.v{number}.backup"))
            with self.transaction():
                MIGRATIONS[number](self.connection)
                self.connection.execute(f"PRAGMA user_version={number + 1}")
                self.connection.execute(f"PRAGMA application_id={APPLICATION_ID}")

    def _back_up(self, target: Path) -> None:
        part = target.with_name(target.name + ".part")
        part.unlink(missing_ok=True)
        try:
            self.connection.execute("VACUUM INTO ?", (part.as_uri(),))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is written within, or nothing.

        Raises:
            EdgeReclassError: it cannot be written (disk full).
        """
        with self.explained():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # SQLite itself takes back what met a full disk
                    self.connection.execute("ROLLBACK")
                raise

    @contextmanager
    def explained(self) -> Iterator[None]:
        """SQLite's errors as ours: the disk is full or failed, or the file was changed by something else."""
        try:
            yield
        except sqlite3.Error as error:
            raise EdgeReclassError(
                f"{self.path}: the state cannot be read or written ({error}); what was committed before is kept"
            ) from error

    def tracks(self, wanted: Wanted | None = None) -> Iterator[TrackRow]:
        """The tracks that are wanted (by default all that are there), by path."""
        where, values = _condition(wanted or Wanted())
        yield from self._rows(f"WHERE {where} ORDER BY path", values)

    def changes(self, after: int, wanted: Wanted, limit: int) -> tuple[list[TrackRow], int, bool]:
        """What has changed of what is known of tracks since change number ``after``, in order, at most ``limit`` rows.

        A verdict, a correction, a new place or an absence is a change. Each track comes once, as it is now. Tracks
        that were forgotten do not come.

        Returns:
            The rows; the number to ask from next time, beyond which nothing was left out; and whether more is there
            already.
        """
        where, values = _condition(wanted)
        with self.explained():
            self.connection.execute("BEGIN")  # of one moment
            try:
                last = self.last_change()
                rows = list(
                    self._rows(
                        f"WHERE {where} AND verdict IS NOT NULL AND change > ? ORDER BY change LIMIT ?",
                        [*values, after, limit + 1],
                    )
                )
            finally:
                self.connection.execute("COMMIT")
        if len(rows) > limit:
            return rows[:limit], rows[limit - 1].change or after, True
        return rows, max(after, last), False

    def last_change(self) -> int:
        """The number of the last change; 0 before the first."""
        return int(self._fetch("SELECT value FROM sequence")[0][0])

    def track(self, path: str | os.PathLike[str]) -> TrackRow | None:
        """The track at this path, None where it is not known."""
        return next(self._rows("WHERE path = ?", [key(path)]), None)

    def _rows(self, where: str, values: list[object]) -> Iterator[TrackRow]:
        with self.explained():
            roots = [(prefix(path), seen) for path, seen in self.connection.execute("SELECT path, seen FROM root")]
            for row in self.connection.execute(f"{_SELECT} {where}", values):
                track = TrackRow(*row)
                if track.absent_since is None:
                    seen = [seen for root, seen in roots if track.path.startswith(root)]
                    track = replace(track, last_seen=max([track.last_seen, *seen]))
                yield track

    def counts(self) -> Counts:
        """How many tracks there are, of which kinds."""

        def one(what: str, where: str) -> int:
            return int(self._fetch(f"SELECT {what} FROM {_JOINED} WHERE {where}")[0][0])

        def by(column: str) -> dict[str, int]:
            return dict(
                self._fetch(
                    f"SELECT {column} AS what, count(*) AS n FROM {_JOINED}"
                    " WHERE absent_since IS NULL AND what IS NOT NULL GROUP BY what ORDER BY n DESC, what"
                )
            )

        return Counts(
            tracks=one("count(*)", "absent_since IS NULL"),
            absent=one("count(*)", "absent_since IS NOT NULL"),
            unclassified=one("count(*)", "absent_since IS NULL AND status IS NULL"),
            corrected=one("count(correction.genre)", "absent_since IS NULL"),
            statuses=by("status"),
            genres=by("coalesce(correction.genre, track.genre)"),
            decided_by=by("decided_by"),
        )

    def all_genres(self) -> list[str]:
        """The genres of the bundles of the verdicts, and those that people said."""
        return sorted(
            genre
            for (genre,) in self._fetch(
                "SELECT json_extract(score.value, '$.genre') FROM"
                " (SELECT verdict FROM track WHERE json_extract(verdict, '$.top') IS NOT NULL GROUP BY bundle_digest),"
                " json_each(verdict, '$.top') AS score UNION SELECT genre FROM correction"
            )
        )

    def stages(self) -> list[str]:
        """The stages that decided."""
        found = self._fetch("SELECT DISTINCT decided_by FROM track WHERE decided_by IS NOT NULL ORDER BY decided_by")
        return [name for (name,) in found]

    def kept_stages(self, track: int) -> list[str]:
        """The stages of which the embedding of a track is kept."""
        found = self._fetch("SELECT DISTINCT stage FROM embedding WHERE track = ? ORDER BY stage", track)
        return [name for (name,) in found]

    def _fetch(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.explained():
            return self.connection.execute(query, values).fetchall()

    def correct(self, track: int, genre: str | None) -> None:
        """Keep what a person said of the genre of a track, under every name of its file; None takes it back."""
        names = (
            "SELECT other.id FROM track JOIN track AS other ON other.id = track.id OR (other.device, other.inode,"
            " other.size, other.mtime_ns) = (track.device, track.inode, track.size, track.mtime_ns) WHERE track.id = ?"
        )
        with self.transaction():
            self.connection.execute(f"DELETE FROM correction WHERE track IN ({names})", (track,))
            if genre is not None:
                self.connection.execute(f"INSERT INTO correction SELECT id, ?, ? FROM ({names})", (genre, now(), track))

    def wrote(self, track: int, status: os.stat_result) -> None:
        """We wrote this file ourselves: it has not changed as far as its verdict goes. Within a transaction."""
        self.connection.execute(
            "UPDATE track SET size = ?, mtime_ns = ?, device = ?, inode = ? WHERE id = ?",
            (status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino, track),
        )

    def skip(self, track: int, skipped: bool) -> None:
        """Keep that a person left a track for later, or take that back."""
        with self.transaction():
            self.connection.execute("DELETE FROM skipped WHERE track = ?", (track,))
            if skipped:
                self.connection.execute("INSERT INTO skipped VALUES (?, ?)", (track, now()))

    def skipped(self) -> set[int]:
        """The tracks that a person left for later."""
        return {track for (track,) in self._fetch("SELECT track FROM skipped")}

    def embeddings(
        self, bundle_digest: str, stage: str, rows: int = 4096
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """What a stage's encoder made of the tracks that are there, in blocks: their ids, and float32[n, dim]."""
        import numpy as np

        found = self.connection.execute(
            "SELECT track, vector FROM embedding JOIN track ON track.id = track"
            " WHERE embedding.bundle_digest = ? AND stage = ? AND absent_since IS NULL",
            (bundle_digest, stage),
        )
        while block := found.fetchmany(rows):
            vectors = np.frombuffer(b"".join(vector for _, vector in block), "<f2").astype(np.float32)
            yield [track for track, _ in block], vectors.reshape(len(block), -1)

    def tracks_by_id(self, ids: Sequence[int]) -> dict[int, TrackRow]:
        """The tracks with these ids, as far as there are any."""
        marks = ", ".join("?" * len(ids))
        return {row.id: row for row in self._rows(f"WHERE id IN ({marks})", list(ids))}

    def moved(self, track: int, path: Path, status: os.stat_result) -> None:
        """We moved this file ourselves. Within a transaction.

        What was known of a file that was there earlier, and what a person said of it, changes places with it: so it
        stays, absent, and is there again when this file is moved back.
        """
        place, aside = os.fsencode(path), b"\0" + os.fsencode(path)
        (old,) = self.connection.execute("SELECT path FROM track WHERE id = ?", (track,)).fetchone()
        self.connection.execute(
            "UPDATE track SET path = ?, absent_since = coalesce(absent_since, ?) WHERE path = ? AND id != ?",
            (aside, now(), place, track),
        )
        self.connection.execute("UPDATE track SET path = ?, absent_since = NULL WHERE id = ?", (place, track))
        self.connection.execute("UPDATE track SET path = ? WHERE path = ?", (old, aside))
        self.wrote(track, status)

    def vacuum(self) -> None:
        """Give back the room of what was forgotten."""
        with self.explained():
            self.connection.execute("VACUUM")

    def roots(self) -> list[Path]:
        """The folders and files that were searched."""
        return [Path(os.fsdecode(path)) for (path,) in self._fetch("SELECT path FROM root ORDER BY path")]

    def audio_hash(self, track: int) -> bytes | None:
        """The hash of a track's sound, None where it was not needed yet."""
        rows = self._fetch("SELECT audio_hash FROM track WHERE id = ?", track)
        return rows[0][0] if rows else None

    def close(self) -> None:
        """Close the file, its journal emptied into it by the one who writes. Closing twice is allowed."""
        if self._lock is not None:
            with suppress(sqlite3.Error):  # closed already; or a full disk, and the journal keeps what it has
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.connection.close()
        if self._lock is not None:
            self._lock.close()

    def discard(self) -> None:
        """Close the file and remove it, where it was made for nothing and holds no track."""
        (tracks,) = self.connection.execute("SELECT count(*) FROM track").fetchone()
        self.connection.close()
        if not tracks:
            for suffix in ("", "-wal", "-shm", ".lock"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self.close()

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _explained(given: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UsageError(f"{given}: the state file cannot be opened ({error})") from error
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{given}: expected a state file, got something else ({error}); name another file") from error


def _connect(file: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{file.as_uri()}?{mode}", uri=True, isolation_level=None, timeout=5)
    try:
        connection.execute("PRAGMA foreign_keys=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _condition(wanted: Wanted) -> tuple[str, list[object]]:
    """An SQL condition on a row of ``track`` joined with its correction, and its values."""
    clauses: list[str] = ["1"]
    values: list[object] = []
    for clause, value in (
        ("coalesce(correction.genre, track.genre) = ?", wanted.genre),
        ("CASE WHEN correction.genre IS NULL THEN status ELSE 'corrected' END = ?", wanted.status),
        ("correction.genre IS NULL AND confidence < ?", wanted.below),
        ("max(coalesce(json_extract(verdict, '$.at'), ''), coalesce(correction.at, '')) >= ?", wanted.since),
        ("track.scan = ?", wanted.scan),
    ):
        if value is not None:
            clauses.append(clause)
            values.append(value)
    if (begin := wanted.below_path) is not None:
        clauses.append("substr(path, 1, ?) = ?")
        values += [len(begin), begin]
    if wanted.absent is not None:
        clauses.append(f"absent_since IS {'NOT ' if wanted.absent else ''}NULL")
    return " AND ".join(clauses), values


def absolute(path: str | os.PathLike[str]) -> str:
    """A path from the root, links as they are. Two slashes at its begin, which POSIX leaves open, are one here."""
    text = os.path.abspath(path)  # noqa: PTH100 - links stay links
    return text[1:] if text.startswith("//") else text


def key(path: str | os.PathLike[str]) -> bytes:
    """A path as the state has it: absolute, links as they are, as bytes."""
    return os.fsencode(absolute(path))


def prefix(folder: bytes) -> bytes:
    """What the paths of all files below a folder begin with."""
    return folder.rstrip(b"/") + b"/"


def now() -> str:
    """The time, UTC, as all columns have it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def moment(text: str) -> str:
    """A date, or a time (UTC unless it says otherwise), as it compares with the columns.

    Raises:
        ValueError: it is neither.
    """
    at = datetime.fromisoformat(text.removesuffix("Z"))
    return (at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at.astimezone(timezone.utc)).isoformat()
