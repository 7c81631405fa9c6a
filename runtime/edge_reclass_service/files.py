"""Which files a request may name, and how a worker gets exactly the file that was looked at.

A path has to lie below a root as it is named and as it really is. The file is opened without being read (O_PATH), and
what is checked is that open file. The worker gets a link to it, not the path: whoever exchanges a folder for a link in
between changes nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_reclass.errors import Status, TrackError
from edge_reclass_service.problems import Problem

_OWN = "process-"
_LOCK = "lock"


def _outside(path: bytes) -> Problem:
    name = os.fsdecode(path).encode("utf-8", "backslashreplace").decode()
    return Problem(403, "outside-roots", f"{name} is not below a folder that the service was started with (--root)")


@contextmanager
def linked(descriptor: int, suffix: str, spool: Path) -> Iterator[Path]:
    """A link in ``spool`` through which another process of ours opens what ``descriptor`` is."""
    link = spool / f"{secrets.token_hex(8)}{suffix}"
    link.symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
    try:
        yield link
    finally:
        with suppress(FileNotFoundError):
            link.unlink()


@contextmanager
def own_folder(spool: Path) -> Iterator[Path]:
    """A folder in ``spool`` for this process alone; it is locked as long as the process lives.

    Those of processes that were killed are removed; what they received had no name and is gone with them.
    """
    _tidy(spool)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_OWN, dir=spool))
        with suppress(FileNotFoundError):  # another process that starts took it for one that was left
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if _is_locked(lock) and (folder / _LOCK).exists():
                break
            os.close(lock)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _tidy(spool: Path) -> None:
    for left in spool.glob(f"{_OWN}*"):
        try:
            lock = os.open(left / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            with suppress(OSError):
                left.rmdir()  # it was not even locked
            continue
        try:
            if _is_locked(lock):
                shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(lock)


def _is_locked(descriptor: int) -> bool:
    """Whether we have the lock now; else another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def suffix_of(name: str) -> str:
    """A name's suffix with its dot, as far as it can be one of an audio file's; else nothing."""
    suffix = os.path.splitext(name)[1]  # noqa: PTH122
    return suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) else ""


def pin(path: bytes, roots: Sequence[Path]) -> int:
    """An O_PATH descriptor of a regular file below the roots.

    Raises:
        Problem: 403, it is outside of the roots, or neither a file nor a folder; 400, no absolute path, or a folder.
        TrackError: it cannot be opened; what the core would say of it.
    """
    if not path.startswith(b"/"):
        raise Problem(400, "path", "expected an absolute path")
    named = os.path.normpath(path)
    real = [os.path.realpath(os.fsencode(root)) for root in roots]
    if not _below(named, [*map(os.fsencode, roots), *real]):
        raise _outside(path)
    if b"\0" in path:
        raise TrackError(Status.MISSING, "no path of a file: embedded null byte")
    try:
        descriptor = os.open(named, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if not _below(os.path.realpath(named), real):  # nobody learns what there is elsewhere
            raise _outside(path) from error
        raise _not_opened(named, error) from error
    try:
        if not _below(os.readlink(b"/proc/self/fd/%d" % descriptor), real):  # noqa: PTH115 - as bytes
            raise _outside(path)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise Problem(400, "not-a-file", "expected a file, got a folder; POST /v1/scans takes folders")
        if not stat.S_ISREG(mode):
            raise Problem(403, "not-a-file", "expected a regular file, got a pipe, a socket or a device")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _below(path: bytes, roots: Sequence[bytes]) -> bool:
    return any(path.startswith(root.rstrip(b"/") + b"/") for root in roots)


def _not_opened(path: bytes, error: OSError) -> TrackError:
    """In the words of :mod:`edge_reclass.audio`."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return TrackError(Status.MISSING, "a dangling link" if os.path.islink(path) else "no such file")  # noqa: PTH114
    status = Status.MISSING if error.errno == errno.ENAMETOOLONG else Status.UNREADABLE
    return TrackError(status, f"cannot be opened: {error.strerror or error}")
