"""Sources: where tracks come from."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from edge_reclass.audio.formats import has_audio_suffix
from edge_reclass.errors import UsageError

_OF_FSCK: Final = "lost+found"
"""The folder at the top of an ext4 disk, which only root may read; it is passed over as hidden ones are."""


@dataclass(frozen=True)
class Track:
    """One audio file, as a source found it. What a file that is not there has is None."""

    path: Path
    size: int | None = None
    """Bytes."""
    mtime_ns: int | None = None
    device: int | None = None
    inode: int | None = None

    def __fspath__(self) -> str:
        return str(self.path)


class Source(Protocol):
    """Where tracks come from: an iterable of them, read only a few tracks ahead of the results."""

    def __iter__(self) -> Iterator[Track]: ...


class TrackSearch:
    """The tracks among files and folders; a Source that can be read once.

    A path that is not a folder is always a track, whatever it is and whether it exists or not: its verdict says so. A
    folder is searched through, however it is named; hidden files and folders in it are skipped. Links to folders are
    followed, but no folder is searched twice, whatever leads to it; a dangling link with an audio suffix is a track.
    Tracks come in the order of the paths given, folders sorted by name; no path twice.
    """

    def __init__(
        self, paths: Iterable[str | os.PathLike[str]], within: Iterable[str | os.PathLike[str]] | None = None
    ) -> None:
        """Looks at nothing yet.

        Args:
            within: what really lies in none of these folders, by whatever link, is left out; None: nothing is.
        """
        self._paths = paths
        self._within = None if within is None else [os.path.join(os.path.realpath(one), "") for one in within]  # noqa: PTH118
        self.outside: list[Path] = []
        """Files and folders that were left out, see ``within``."""
        self._given: set[str] = set()
        self._folders: set[tuple[int, int]] = set()
        self.skipped_hidden = 0
        """Files and folders in the folders searched whose names begin with a dot."""
        self.skipped_other = 0
        """Files in the folders searched that have no audio suffix."""
        self.problems: list[tuple[Path, str]] = []
        """Folders that could not be listed, each with its reason; they are reported, not lost."""

    def __iter__(self) -> Iterator[Track]:
        for path in self._paths:
            text = os.fspath(path)
            if self._is_outside(text):
                continue
            if _is_folder(text):
                yield from self._search(text)
            elif text not in self._given:
                self._given.add(text)
                yield _track(text)

    def _search(self, root: str) -> Iterator[Track]:
        """Depth first, with a stack of its own: a folder may be deeper than Python's recursion limit."""
        stack: list[tuple[str, os.DirEntry[str] | None]] = [(root, None)]
        while stack:
            path, file = stack.pop()
            if file is not None:
                if path not in self._given:
                    self._given.add(path)
                    yield _track(path, file)
                continue
            try:
                status = os.stat(path)  # noqa: PTH116
                identity = (status.st_dev, status.st_ino)
                if identity in self._folders:
                    continue
                self._folders.add(identity)
                with os.scandir(path) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                self.problems.append((Path(path), error.strerror or str(error)))
                continue
            stack.extend(child for entry in reversed(entries) if (child := self._child(entry)) is not None)

    def _is_outside(self, path: str) -> bool:
        if self._within is None:
            return False
        try:
            real = os.path.realpath(path)
        except ValueError:  # a NUL in the path
            return False
        if any((real + "/").startswith(folder) for folder in self._within):
            return False
        self.outside.append(Path(path))
        return True

    def _child(self, entry: os.DirEntry[str]) -> tuple[str, os.DirEntry[str] | None] | None:
        """Path of an entry, and the entry if it is a file; None if it is skipped, which is then counted."""
        if entry.name.startswith(".") or entry.name == _OF_FSCK:
            self.skipped_hidden += 1
            return None
        try:
            is_folder = entry.is_dir()
        except OSError:
            is_folder = False  # a link that leads nowhere; as a track, its verdict says so
        if not is_folder and not has_audio_suffix(entry.name):
            self.skipped_other += 1
            return None
        if entry.is_symlink() and self._is_outside(entry.path):
            return None
        return entry.path, None if is_folder else entry


def listed_paths(source: Path, null: bool = False) -> list[str]:
    """The paths that a file lists, one a line, or with ``null`` each ended by a NUL byte; ``-`` is standard input.

    Empty ones are passed over. Names are bytes: one that is not valid UTF-8 is the same file as on a command line.

    Raises:
        UsageError: the file cannot be read, or has NUL bytes where lines are expected.
    """
    name = "standard input" if str(source) == "-" else str(source)
    try:
        if str(source) != "-":
            content = source.read_bytes()
        elif sys.stdin is None:
            raise UsageError("--files-from -: standard input is closed")
        else:
            content = sys.stdin.buffer.read()
    except OSError as error:
        raise UsageError(f"--files-from {name}: cannot be read ({error.strerror})") from error
    if null:
        entries = content.split(b"\0")
    elif b"\0" in content:
        raise UsageError(
            f"--files-from {name}: expected one path per line, it has NUL bytes; add --null (as find -print0)"
        )
    else:
        # As a text editor on Windows writes it, too.
        entries = [line.removesuffix(b"\r") for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    return [os.fsdecode(entry) for entry in entries if entry]


def _is_folder(path: str) -> bool:
    try:
        return os.path.isdir(path)  # noqa: PTH112
    except ValueError:  # a NUL in the path
        return False


def _track(path: str, entry: os.DirEntry[str] | None = None) -> Track:
    try:
        status = os.stat(path) if entry is None else entry.stat()  # noqa: PTH116
    except (OSError, ValueError):
        return Track(Path(path))
    return Track(Path(path), status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino)
