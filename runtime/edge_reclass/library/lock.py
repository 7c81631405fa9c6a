"""One writer at a time: a lock beside a state file, which says who holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from edge_reclass.errors import StateBusyError, UsageError

_SECONDS: Final = 1.0
"""A process that died while it started another one: that has the lock too, until it is a program of its own."""

_SOCKET: Final = b"socket "


class InstanceLock:
    """Holds ``FILE.lock`` until it is closed or the process dies, however it dies.

    The file stays when the lock is given back: if it were removed, two could hold locks of one name.

    Args:
        since: the time, for those who find it locked.
        socket: of the service that holds or lends it: others ask it to write for them.

    Raises:
        StateBusyError: another process holds it.
        UsageError: it cannot be made.
    """

    def __init__(self, file: Path, since: str, socket: str | os.PathLike[str] | None = None) -> None:
        path = file.with_name(file.name + ".lock")
        try:
            self._descriptor = _opened(path)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror}); name a state file elsewhere") from error
        try:
            self._lock(time.monotonic() + _SECONDS)
        except BlockingIOError:
            text, _, address = os.pread(self._descriptor, 4096, 0).partition(b"\n")
            holder = text.decode(errors="replace") or "another process"
            os.close(self._descriptor)
            service = address.rstrip(b"\n").removeprefix(_SOCKET) if address.startswith(_SOCKET) else None
            raise StateBusyError(
                f"{file}: {holder} is at work on it; wait for it, or stop it first",
                None if service is None else os.fsdecode(service),
                holder,
            ) from None
        except OSError as error:
            os.close(self._descriptor)
            raise UsageError(
                f"{path}: cannot be locked ({error.strerror}); name a state file on a local disk"
            ) from error
        name = b"" if socket is None else _SOCKET + os.fsencode(os.path.abspath(socket)) + b"\n"  # noqa: PTH100
        text = f"process {os.getpid()} (since {since})\n".encode() + name
        try:
            os.pwrite(self._descriptor, text, 0)  # over what is there, which needs no room on a full disk
            os.ftruncate(self._descriptor, len(text))
        except OSError as error:
            os.close(self._descriptor)
            raise UsageError(f"{path}: cannot be written ({error.strerror}); make room there") from error

    def _lock(self, until: float) -> None:
        while True:
            try:
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.05)

    def close(self) -> None:
        """Give it back. Closing twice is allowed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _opened(path: Path) -> int:
    """The file, made where there is none.

    ``O_CREAT`` is for a new file alone: Linux refuses it for another user's file in a sticky folder
    (``fs.protected_regular``), even where that file may be written.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        with suppress(FileNotFoundError):
            return os.open(path, flags)
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
        with suppress(FileExistsError):  # another process made it just now
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
