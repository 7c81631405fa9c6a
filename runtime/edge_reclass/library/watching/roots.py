"""The folders that are watched: by events of the kernel where they come, else by searching them often."""

from __future__ import annotations

import ctypes
import errno
import logging
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edge_reclass.errors import MissingExtraError
from edge_reclass.host import network_file_system
from edge_reclass.host.filesystem import mount_point
from edge_reclass.library.watching.settling import Settling, is_heard

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent

_HEARD: Final = frozenset({"created", "modified", "closed", "moved", "deleted"})
"""Not ``opened`` and ``closed_no_write``: we read files, too."""

_LIMITS: Final = {
    errno.ENOSPC: ("fs.inotify.max_user_watches", 1_048_576),
    errno.EMFILE: ("fs.inotify.max_user_instances", 1024),
}
_QUEUE: Final = "/proc/sys/fs/inotify/max_queued_events"


@dataclass
class Root:
    """A folder, and when it is searched next."""

    path: str
    device: int | None = None
    """Of the file system that it was on; None while it is not there."""
    inode: int | None = None
    mount: str = "/"
    """Where that file system was mounted."""
    search_at: float = 0.0
    asked_at: float = math.inf
    """When it is to be searched by what was heard since its last search began."""
    polled: bool = False
    """Searched often, because events do not come or not for all of it."""
    watch: Any = None

    def is_there(self) -> bool:
        """False where it is gone, or where the disk that it was on is."""
        try:
            device = os.stat(self.path).st_dev  # noqa: PTH116
        except OSError:
            return False
        if not os.path.isdir(self.path):  # noqa: PTH112
            return False
        # A disk that was taken out and put back may have another number.
        return self.device in (None, device) or os.path.ismount(self.mount)

    def is_another(self) -> bool:
        """True where its path leads to another folder than the one that is watched, or none is."""
        try:
            status = os.stat(self.path)  # noqa: PTH116
        except OSError:
            return False
        return (status.st_dev, status.st_ino) != (self.device, self.inode)


class Roots:
    """Hears what happens in some folders; a context manager. What is noticed goes to ``settling``."""

    def __init__(
        self,
        paths: list[str],
        settling: Settling,
        *,
        rescan: float,
        poll: float,
        say: Callable[[str], None],
        wake: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: rescan, poll: seconds between searches of a folder, and of one from which events do not come.

        Raises:
            MissingExtraError: watchdog is not installed.
        """
        try:
            from watchdog.observers import Observer
        except ModuleNotFoundError as error:
            raise MissingExtraError("folders are watched by watchdog, which is not installed", "watch") from error
        self.roots = [Root(path) for path in paths]
        self._settling, self._rescan, self._poll = settling, rescan, poll
        self._say, self._wake, self._clock = say, wake, clock
        self._heard = 0
        self._forgets = _forgets()
        self._gone: set[str] = set()
        """Roots of which it was said that they are not there."""
        self._observer: Any = Observer()
        self._overflow = _OverflowHandler(self.search_all)
        logging.getLogger("watchdog").addHandler(self._overflow)
        self._observer.start()

    def look(self) -> None:
        """Find out which roots are there; begin to watch those that came, and no longer watch those that went."""
        for root in self.roots:
            if not root.is_there():
                self._leave(root)
            elif root.path in self._gone or root.is_another():
                self._enter(root)
        if self._heard * 2 > _queue_length():  # the kernel drops events of a queue that is full, and may not say so
            self.search_all()
        self._heard = 0

    def holds(self, path: str) -> bool:
        """Whether a file lies below a root that is there."""
        return any(path.startswith(root.path.rstrip("/") + "/") and root.is_there() for root in self.roots)

    def to_search(self) -> list[Root]:
        """Roots whose time has come: their searches begin."""
        now = self._clock()
        due = [
            root
            for root in self.roots
            if root.device is not None and root.path not in self._gone and root.search_at <= now
        ]
        for root in due:
            root.asked_at = math.inf
        return due

    def searched(self, root: Root) -> None:
        """It was searched through."""
        root.search_at = min(root.asked_at, self._clock() + (self._poll if root.polled else self._rescan))

    def search_soon(self, root: Root, seconds: float) -> None:
        """Search it in so many seconds, or earlier."""
        at = self._clock() + seconds
        root.search_at, root.asked_at = min(root.search_at, at), min(root.asked_at, at)

    def search_all(self) -> None:
        """Events were lost."""
        for root in self.roots:
            root.search_at = root.asked_at = 0.0
        self._wake()

    def next_in(self) -> float:
        """Seconds until a root is to be searched."""
        times = [root.search_at for root in self.roots if root.path not in self._gone]
        return max(0.0, min(times) - self._clock()) if times else self._rescan

    def lost(self, root: Root, reason: str) -> None:
        """It is there, and yet not all of it: it is searched again in a while."""
        if root.path not in self._gone:
            self._say(f"{root.path}: {reason}; waiting, and nothing is marked")
        root.search_at = self._clock() + min(60.0, self._poll)

    def close(self) -> None:
        """Hear nothing any more."""
        logging.getLogger("watchdog").removeHandler(self._overflow)
        self._observer.stop()
        self._observer.join(5)

    def __enter__(self) -> Roots:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _leave(self, root: Root) -> None:
        if root.path in self._gone:
            return
        self._gone.add(root.path)
        self._say(f"{root.path}: it is not there (not mounted?); waiting for it, and nothing is marked")
        self._unwatch(root)

    def _unwatch(self, root: Root) -> None:
        if root.watch is not None:
            with suppress(Exception):  # the kernel has dropped it already
                self._observer.unschedule(root.watch)
            root.watch = None

    def _enter(self, root: Root) -> None:
        if root.path in self._gone:
            self._gone.discard(root.path)
            self._say(f"{root.path}: it is there")
        self._unwatch(root)
        try:
            status = os.stat(root.path)  # noqa: PTH116
            root.device, root.inode = status.st_dev, status.st_ino
            root.mount = mount_point(root.path)
            network = network_file_system(root.path)
        except OSError:  # gone again
            return
        root.search_at, root.polled = 0.0, False
        if network is not None:
            self._poll_instead(root, f"it lies on {network}, where other machines' writes raise no event")
            return
        try:
            folder = os.path.join(root.path, ".")  # noqa: PTH118 - of a link, what it leads to
            root.watch = self._observer.schedule(_Handler(self, root), folder, recursive=True)
            _check_limit(root.path)
        except OSError as error:
            if error.errno not in _LIMITS:
                raise
            self._limit(root, error)

    def _limit(self, root: Root, error: OSError) -> None:
        """Not for all of its folders events come: the limit of the kernel is reached."""
        if not root.polled:
            name, enough = _LIMITS[error.errno or 0]
            self._poll_instead(
                root, f"the limit {name} is reached; to have events: sudo sysctl {name}={enough}, then start again"
            )

    def _poll_instead(self, root: Root, why: str) -> None:
        root.polled = True
        self.search_soon(root, self._poll)
        self._say(f"{root.path}: {why}. It is searched every {self._poll / 60:g} min")

    def heard(self, root: Root, event: FileSystemEvent) -> None:
        """Something has happened; called by a thread of watchdog's."""
        self._heard += 1
        if event.event_type not in _HEARD:
            return
        if event.is_directory:
            if event.event_type in ("moved", "deleted"):
                self.search_soon(root, self._settling.seconds)
            if event.event_type in ("moved", "created"):
                at = _path(event.dest_path if event.event_type == "moved" else event.src_path)
                self._notice_all(root, at)
                if self._forgets:
                    root.inode = None  # to be watched anew, and searched
                try:
                    _check_limit(at)
                except OSError as error:
                    if error.errno in _LIMITS:
                        self._limit(root, error)
        else:
            for path in {_path(event.src_path), _path(event.dest_path or event.src_path)}:
                if is_heard(path, root.path):
                    self._settling.notice(path)
        self._wake()

    def _notice_all(self, root: Root, folder: str) -> None:
        """What came with a folder raised no events of its own, or before it was watched."""
        for at, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(at, name)  # noqa: PTH118
                if is_heard(path, root.path):
                    self._settling.notice(path)


class _Handler:
    """What watchdog calls."""

    def __init__(self, roots: Roots, root: Root) -> None:
        self._roots, self._root = roots, root

    def dispatch(self, event: FileSystemEvent) -> None:
        self._roots.heard(self._root, event)


class _OverflowHandler(logging.Handler):
    """watchdog says that events were lost, by its log alone."""

    def __init__(self, told: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage().lower():
            self._told()


def _forgets() -> bool:
    """Whether this watchdog does not watch what lies in a folder that was moved in: those before 7."""
    from importlib import metadata

    try:
        return int(metadata.version("watchdog").partition(".")[0]) < 7
    except (metadata.PackageNotFoundError, ValueError):
        return False


def _path(of_event: str | bytes) -> str:
    """As a search has it: without the dot that stands for a root."""
    return os.path.normpath(os.fsdecode(of_event))


def _queue_length() -> int:
    try:
        with open(_QUEUE, encoding="ascii") as file:  # noqa: PTH123
            return int(file.read())
    except (OSError, ValueError):
        return 16_384


def _check_limit(folder: str) -> None:
    """Try to watch one more folder: watchdog itself passes over those below a root that it cannot watch.

    Raises:
        OSError: ENOSPC or EMFILE, a limit of the kernel is reached.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    try:
        if libc.inotify_add_watch(descriptor, os.fsencode(folder), 0x100) < 0:  # IN_CREATE
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
    finally:
        os.close(descriptor)
