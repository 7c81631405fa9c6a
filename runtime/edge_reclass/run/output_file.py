"""The file of results: written as ``NAME.partial``, under its own name only when it is complete; never over a track."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from edge_reclass.errors import EdgeReclassError, UsageError


class ResultFile:
    """Open for writing as ``target`` + ``.partial``; a context manager that renames it to ``target`` at a good end.

    However the run ends (an error, a signal, SIGKILL, a power cut), what was written by then is in ``partial``, and an
    earlier ``target`` stays as it was. An earlier ``partial`` is replaced by the first thing written, not before. The
    file is locked, so that a second run on the same target is refused. The result has the permissions (and where
    allowed the owner) of the ``target`` that it replaces.

    Raises:
        OSError: the file cannot be made or opened.
        UsageError: another run is writing it.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.partial = target.with_name(target.name + ".partial")
        descriptor, self._is_new = _claim(self.partial)
        self.stream = os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="")
        self._begun = False

    def begin(self) -> None:
        """Empty the file and give it its permissions; to be called before writing, and does something once."""
        if self._begun:
            return
        descriptor = self.stream.fileno()
        with suppress(FileNotFoundError):
            _like(descriptor, self.target.stat())
        os.ftruncate(descriptor, 0)
        self._begun = True

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.begin()
                self._publish()
            elif self._is_new and not self._begun:
                self.partial.unlink(missing_ok=True)
        except OSError as error:
            raise EdgeReclassError(
                f"{self.target}: cannot be written ({error.strerror}); the results are in {self.partial}"
            ) from error
        finally:
            with suppress(OSError):  # what could not be written was said when it was written
                self.stream.close()

    def _publish(self) -> None:
        self.stream.flush()
        # Else a power cut could leave the new name on an empty file, and the old results would be gone.
        os.fsync(self.stream.fileno())
        if not _is_at(self.stream.fileno(), self.partial):
            raise EdgeReclassError(
                f"{self.partial} was moved or replaced while it was written: {self.target} is not made"
            )
        self.partial.replace(self.target)


def _claim(partial: Path) -> tuple[int, bool]:
    """A locked descriptor of ``partial``, and whether the file is new."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    while True:
        is_new = False
        try:
            descriptor = os.open(partial, flags)
        except FileNotFoundError:
            try:
                descriptor, is_new = os.open(partial, flags | os.O_CREAT | os.O_EXCL, 0o666), True
            except FileExistsError:  # another run was quicker
                continue
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{partial}: expected a file or nothing there; remove it, or name another output")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"{partial}: another run is writing it; wait for it, or name another output") from None
            except OSError:  # a file system without locks
                pass
            if _is_at(descriptor, partial):  # the run that held the lock may have renamed it meanwhile
                if status.st_nlink == 1:
                    return os.dup(descriptor), is_new
                partial.unlink()  # a backup made of links shares this file: it keeps its content, we take a new one
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _like(descriptor: int, old: os.stat_result) -> None:
    """Give an open file the owner, as far as that is allowed, and the permissions of ``old``."""
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        with suppress(OSError):
            os.fchown(descriptor, -1, old.st_gid)
        with suppress(OSError):
            os.fchown(descriptor, old.st_uid, -1)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


_BESIDE_A_DATABASE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside an input that is a database, now or in a moment."""


def refuse_inputs(output: Path | None, descriptor: int | None, inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse an output that would overwrite a track, its ``.partial`` too. Opens nothing for writing.

    Args:
        output: the path of the output; None for standard output.
        descriptor: the open descriptor that it stands for, if it does.
        inputs: what is read, and must not be written.

    Raises:
        UsageError: the output is one of the inputs, by device and inode; or audio, by its name or content.
    """
    from edge_reclass.audio.formats import has_audio_suffix

    targets = {}  # identity → path, of the regular files that are there already
    if descriptor is not None:
        with suppress(OSError):
            targets[_identity(os.fstat(descriptor))] = "standard output" if output is None else str(output)
    elif output is not None:
        resolved = Path(os.path.realpath(output))
        is_special = os.path.exists(output) and not os.path.isfile(output)  # noqa: PTH110, PTH113 - these never raise
        for name in () if is_special else (output.name, resolved.name):
            if has_audio_suffix(name):
                raise _refused(str(output), "an audio file by its name")
        for path in (resolved, resolved.with_name(resolved.name + ".partial")):
            with suppress(OSError):
                targets[_identity(path.stat())] = str(path)
                if path.is_file() and _is_audio(path):
                    raise _refused(str(path), "an audio file by its content")
        for suffix in _BESIDE_A_DATABASE:
            with suppress(OSError, ValueError):
                if resolved.name.endswith(suffix):
                    targets[_identity(resolved.with_name(resolved.name.removesuffix(suffix)).stat())] = str(output)
    targets.pop(None, None)
    for given in inputs if targets else ():
        with suppress(OSError, ValueError):
            if (identity := _identity(os.stat(given))) in targets:  # noqa: PTH116 - a Path per track is slow
                raise _refused(targets[identity], f"an input ({os.fspath(given)})")


def _refused(path: str, what: str) -> UsageError:
    return UsageError(f"--output {path}: it is {what} and would be overwritten; name a new file, such as results.jsonl")


def _identity(status: os.stat_result) -> tuple[int, int] | None:
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _is_audio(path: Path) -> bool:
    from edge_reclass.audio.formats import sniff

    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return sniff(descriptor)[0] is not None
    finally:
        os.close(descriptor)
