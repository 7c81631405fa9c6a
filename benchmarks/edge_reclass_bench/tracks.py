"""The tracks of a run: which, how a record names them, and the digest that says whether two runs had the same ones."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_reclass.errors import UsageError
from edge_reclass.run import TrackSearch

__all__ = ["CONTENT_LIMIT", "Tracks", "content", "digest", "find"]

CONTENT_LIMIT = 4 << 30
"""Up to so many bytes the digest is of the content; more would take longer to read than to measure."""


@dataclass(frozen=True)
class Tracks:
    """``names[i]`` is how ``paths[i]`` stands in a record: relative to what was named, so that it is no secret."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    sha256: str
    digest_of: Literal["content", "size+mtime"]


def find(paths: Sequence[str], limit: int | None = None) -> Tracks:
    """Audio files among ``paths`` and in the folders among them; at most ``limit``, evenly spread over what was found.

    Raises:
        UsageError: a folder cannot be searched, a file cannot be read, or there is no audio.
    """
    found: list[Path] = []
    for path in paths:
        search = TrackSearch([path])
        here = [track.path for track in search]
        if search.problems:
            folder, reason = search.problems[0]
            raise UsageError(f"{folder}: cannot be searched ({reason}); a measurement needs all of its tracks")
        found += [track for track in here if track not in found]
    if not found:
        raise UsageError(f"no audio found in {', '.join(paths)}")
    if limit is not None and limit < len(found):
        found = [found[i * len(found) // limit] for i in range(limit)]
    names = _names(found, paths)
    sha256, of = digest(found, names)
    return Tracks(tuple(found), tuple(names), sha256, of)


def _names(found: Sequence[Path], paths: Sequence[str]) -> list[str]:
    # Not resolve(): a link is named as the user names it.
    roots = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100
    names = []
    for track in found:
        absolute = Path(os.path.abspath(track))  # noqa: PTH100
        root = next((root for root in roots if root in absolute.parents), absolute)
        names.append(absolute.relative_to(root.parent).as_posix())
    if len(set(names)) < len(names):  # two folders of one name
        return [os.path.abspath(track) for track in found]  # noqa: PTH100
    return names


def digest(paths: Sequence[Path], names: Sequence[str]) -> tuple[str, Literal["content", "size+mtime"]]:
    """sha256 over the sorted names and, for each, its content's sha256, or size and time of change of large sets."""
    try:
        sizes = {path: path.stat() for path in paths}
        small = sum(status.st_size for status in sizes.values()) <= CONTENT_LIMIT
        total = hashlib.sha256()
        for name, path in sorted(zip(names, paths, strict=True)):
            what = content(path) if small else f"{sizes[path].st_size} {sizes[path].st_mtime_ns}"
            total.update(f"{name}\0{what}\n".encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be read ({error.strerror}); take it out of the paths") from error
    return total.hexdigest(), "content" if small else "size+mtime"


def content(path: Path) -> str:
    """sha256 of a file."""
    read = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            read.update(block)
    return read.hexdigest()
