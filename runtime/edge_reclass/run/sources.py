"""Find the tracks in files and folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edge_reclass.audio.formats import has_audio_suffix
from edge_reclass.errors import UsageError

__all__ = ["Found", "find_tracks", "listed_paths"]


@dataclass
class Found:
    """What a search found.

    tracks: in the order of the paths given, folders sorted by name; no path twice
    skipped_hidden: files and folders in the folders searched whose names begin with a dot
    skipped_other: files in the folders searched that have no audio suffix
    problems: folders that could not be listed, each with its reason; they are reported, not lost
    """

    tracks: list[Path] = field(default_factory=list)
    skipped_hidden: int = 0
    skipped_other: int = 0
    problems: list[tuple[Path, str]] = field(default_factory=list)


def find_tracks(paths: Iterable[str | os.PathLike[str]]) -> Found:
    """Files to classify among ``paths``.

    A path that is not a folder is always a track, whatever it is and whether it exists or not: its verdict
    says so. A folder is searched through, however it is named; hidden files and folders in it are skipped.
    Links to folders are followed, but no folder is searched twice, whatever leads to it; a dangling link with
    an audio suffix is a track. One listing per folder, and a stat for folders and links only.
    """
    search = _Search()
    for path in paths:
        text = os.fspath(path)
        if _is_folder(text):
            search.folder(text)
        else:
            search.add(text)
    return search.found


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


class _Search:
    def __init__(self) -> None:
        self.found = Found()
        self._tracks: set[str] = set()
        self._folders: set[tuple[int, int]] = set()

    def add(self, path: str) -> None:
        if path not in self._tracks:
            self._tracks.add(path)
            self.found.tracks.append(Path(path))

    def folder(self, root: str) -> None:
        """Depth first, with a stack of its own: a folder may be deeper than Python's recursion limit."""
        stack: list[tuple[str, bool]] = [(root, True)]
        while stack:
            path, is_folder = stack.pop()
            if not is_folder:
                self.add(path)
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
                self.found.problems.append((Path(path), error.strerror or str(error)))
                continue
            stack.extend(child for entry in reversed(entries) if (child := self._child(entry)) is not None)

    def _child(self, entry: os.DirEntry[str]) -> tuple[str, bool] | None:
        """Path of an entry, and whether it is a folder; None if it is skipped, which is then counted."""
        if entry.name.startswith("."):
            self.found.skipped_hidden += 1
            return None
        try:
            is_folder = entry.is_dir()
        except OSError:
            is_folder = False  # a link that leads nowhere; as a track, its verdict says so
        if not is_folder and not has_audio_suffix(entry.name):
            self.found.skipped_other += 1
            return None
        return entry.path, is_folder
