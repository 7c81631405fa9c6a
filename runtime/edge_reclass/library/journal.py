"""The journal of what is written into files or moved: runs and their steps, so that each can be taken back.

It lies in a state, or in a file of its own. A step is committed, and is on the disk, before the file it speaks of is
touched; it is marked done afterwards. So a step that is not done after a crash either happened or did not, and the
files say which: whoever wrote it looks, and calls :meth:`Journal.done` or :meth:`Journal.drop`.

Before a run makes its first temporary file in a folder, :meth:`Journal.watch` writes the folder down. What a crash left
there is removed by the next run that opens the journal, which :func:`sweep` does: a temporary file is locked by the
process that writes it, so that one without a lock belongs to nobody.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_reclass.errors import EdgeReclassError, UsageError

if TYPE_CHECKING:
    from edge_reclass.library.state import State

_APPLICATION_ID: Final = 0x65726C6A
"""Of a journal that is a file of its own ("erlj")."""

_PREFIX: Final = ".edge-reclass-"
_SUFFIX: Final = ".tmp"
_FOLDER: Final = "folder"
"""Kind of the steps by which folders are written down."""

_numbers = itertools.count()


@dataclass(frozen=True)
class Run:
    """One run of a command that writes; ``files`` counts its steps that were done and not taken back."""

    id: int
    command: str
    at: str
    undone_at: str | None
    files: int


@dataclass(frozen=True)
class Step:
    """What was done to one file. ``what`` is plain data with at least a ``kind``; ``undo`` is bytes that undo it."""

    id: int
    run: int
    path: Path
    what: dict[str, Any]
    undo: bytes | None


class Journal:
    """An open journal; a context manager. Made by :meth:`open` or :meth:`of_state`."""

    def __init__(self, connection: sqlite3.Connection, path: Path, state: State | None = None) -> None:
        self._connection = connection
        self.path = path
        self.state = state
        """The state that it lies in; None for a file of its own."""
        # What was promised to be undoable has to survive a power cut.
        connection.execute("PRAGMA synchronous=FULL")

    @classmethod
    def of_state(cls, state: State) -> Journal:
        """The journal in a state that is open for writing."""
        return cls(state.connection, state.path, state)

    @classmethod
    def open(cls, path: Path, *, create: bool = False) -> Journal:
        """Open a journal that is a file of its own; with ``create`` a new one is made where there is none.

        Raises:
            UsageError: it is not there, is no journal, or another run is writing it.
        """
        from edge_reclass.library.schema import JOURNAL

        if not create and not path.exists():
            raise UsageError(f"{path}: there is no such journal; name the one that --journal was given when writing")
        try:
            connection = sqlite3.connect(path, isolation_level=None, timeout=1)
            (found,) = connection.execute("PRAGMA application_id").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if found != _APPLICATION_ID and (tables or not create):
                raise UsageError(f"{path}: expected a journal, got another database; name a file of its own")
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            if not tables:
                for statement in JOURNAL:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            busy = "another run is writing it; wait for it" if "locked" in str(error) else f"no journal ({error})"
            raise UsageError(f"{path}: {busy}, or name another file") from error
        return cls(connection, path)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is written within, or nothing; on the disk when it is left.

        Raises:
            EdgeReclassError: the journal cannot be written (disk full).
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has ended it already
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise EdgeReclassError(
                f"{self.path}: the journal cannot be written ({error}); nothing is changed without it"
            ) from error

    def begin(self, command: str) -> int:
        """A new run; its number."""
        from edge_reclass.library.state import now

        with self.transaction():
            return int(
                self._connection.execute(
                    "INSERT INTO journal_run (command, at) VALUES (?, ?) RETURNING id", (command, now())
                ).fetchone()[0]
            )

    def step(self, run: int, path: Path, what: dict[str, Any], undo: bytes | None = None) -> Step:
        """Write down what is about to be done to the file at ``path``; on the disk when this returns."""
        with self.transaction():
            return self._insert(run, path, what, undo)

    def steps(self, run: int, steps: Iterable[tuple[Path, dict[str, Any]]]) -> list[Step]:
        """As :meth:`step`, for many files."""
        with self.transaction():
            return [self._insert(run, path, what, None) for path, what in steps]

    def reopen(self, step: Step) -> None:
        """It is about to be taken back: from now on it is not known whether it is done. Within a transaction."""
        self._connection.execute("UPDATE journal_step SET done = 0 WHERE id = ?", (step.id,))

    def moved(self, old: Path, new: Path, *, but: str) -> None:
        """A file has moved: the steps of other commands than ``but`` speak of its new place. Within a transaction."""
        self._connection.execute(
            "UPDATE journal_step SET path = ? WHERE path = ? AND run IN"
            " (SELECT id FROM journal_run WHERE command != ?)",
            (os.fsencode(new), os.fsencode(old), but),
        )

    def done(self, step: Step) -> None:
        """It was done. Within a transaction."""
        self._connection.execute("UPDATE journal_step SET done = 1 WHERE id = ?", (step.id,))

    def drop(self, step: Step) -> None:
        """It was not done after all. Within a transaction."""
        self._connection.execute("DELETE FROM journal_step WHERE id = ?", (step.id,))

    def undone(self, step: Step) -> None:
        """It was taken back; a run of which nothing is left to take back is undone as well. Within a transaction."""
        from edge_reclass.library.state import now

        self._connection.execute("UPDATE journal_step SET undone = 1 WHERE id = ?", (step.id,))
        self._connection.execute(
            "UPDATE journal_run SET undone_at = ? WHERE id = ? AND NOT EXISTS "
            "(SELECT 1 FROM journal_step WHERE run = journal_run.id AND NOT undone)",
            (now(), step.run),
        )

    def runs(self, command: str) -> list[Run]:
        """The runs of a command, newest first."""
        rows = self._connection.execute(
            "SELECT id, command, at, undone_at, (SELECT count(*) FROM journal_step WHERE run = journal_run.id "
            "AND done AND NOT undone) FROM journal_run WHERE command = ? ORDER BY id DESC",
            (command,),
        )
        return [Run(*row) for row in rows]

    def to_undo(self, command: str, run: int | None = None) -> list[Step]:
        """The steps of a command, or of one run of it, that were done and not taken back, newest first.

        Raises:
            UsageError: there is no such run.
        """
        if run is not None and all(run != one.id for one in self.runs(command)):
            known = ", ".join(str(one.id) for one in reversed(self.runs(command))) or "none"
            raise UsageError(f"--run {run}: expected a run of {command} in {self.path} ({known})")
        return self._steps("done AND NOT undone", command, run)

    def unfinished(self, command: str) -> list[Step]:
        """The steps of a command that a crash left neither done nor dropped, newest first."""
        return [step for step in self._steps("NOT done", command) if step.what["kind"] != _FOLDER]

    def latest(self, path: Path) -> Step | None:
        """The last step that was done to the file at ``path`` and not taken back."""
        row = self._connection.execute(
            f"{_SELECT} WHERE journal_step.path = ? AND done AND NOT undone ORDER BY journal_step.id DESC LIMIT 1",
            (os.fsencode(path),),
        ).fetchone()
        return None if row is None else _step(row)

    def watch(self, run: int, folders: Iterable[Path]) -> None:
        """Write down the folders that temporary files are about to be made in."""
        with self.transaction():
            for folder in folders:
                self._insert(run, folder, {"kind": _FOLDER}, None)

    def tidy(self, command: str) -> None:
        """Remove what earlier runs left in the folders that they wrote down, runs without a step, and the notes."""
        folders = [step for step in self._steps("NOT done", command) if step.what["kind"] == _FOLDER]
        for step in folders:
            sweep(step.path)
        with self.transaction():
            for step in folders:
                self.drop(step)
            self._connection.execute(
                "DELETE FROM journal_run WHERE command = ? AND NOT EXISTS "
                "(SELECT 1 FROM journal_step WHERE run = journal_run.id)",
                (command,),
            )

    def close(self) -> None:
        """Close a journal that is a file of its own; a state stays open."""
        if self.state is None:
            self._connection.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _insert(self, run: int, path: Path, what: dict[str, Any], undo: bytes | None) -> Step:
        row = self._connection.execute(
            "INSERT INTO journal_step (run, path, step, undo) VALUES (?, ?, ?, ?) RETURNING id",
            (run, os.fsencode(path), json.dumps(what), undo),
        ).fetchone()
        return Step(int(row[0]), run, path, what, undo)

    def _steps(self, condition: str, command: str, run: int | None = None) -> list[Step]:
        rows = self._connection.execute(
            f"{_SELECT} JOIN journal_run ON journal_run.id = run WHERE {condition} AND command = ? "
            "AND run = coalesce(?, run) ORDER BY journal_step.id DESC",
            (command, run),
        )
        return [_step(row) for row in rows]


_SELECT: Final = "SELECT journal_step.id, run, journal_step.path, step, undo FROM journal_step"


def _step(row: tuple[Any, ...]) -> Step:
    return Step(row[0], row[1], Path(os.fsdecode(row[2])), json.loads(row[3]), row[4])


@contextmanager
def temporary(folder: Path) -> Iterator[tuple[Path, int]]:
    """A new, hidden, locked file in ``folder`` and its descriptor; gone at the end unless it was renamed.

    Raises:
        OSError: it cannot be made.
    """
    path = folder / f"{_PREFIX}{os.getpid()}-{next(_numbers)}{_SUFFIX}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with suppress(OSError):  # a file system without locks; there nothing is swept
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield path, fd
    finally:
        with suppress(OSError):
            if os.path.samestat(os.fstat(fd), path.lstat()):
                path.unlink()
        os.close(fd)


def sweep(folder: Path) -> int:
    """Remove our temporary files of processes that are gone from ``folder``; how many."""
    removed = 0
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.name.startswith(_PREFIX)]
    except OSError:
        return 0
    for name in names:
        if not name.endswith(_SUFFIX):
            continue
        with suppress(OSError):
            fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (folder / name).unlink()
                removed += 1
            finally:
                os.close(fd)
    return removed


def sync_folder(folder: Path) -> None:
    """Bring the names in ``folder`` onto the disk, where the file system can.

    Raises:
        OSError: the disk fails.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # those have nothing to do for a folder
            raise
    finally:
        os.close(fd)
