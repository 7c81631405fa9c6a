"""A bundle's folder: its files opened safely, and whether it holds anything that the manifest does not list."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from edge_reclass.errors import BundleError

OLD_ENGINES = "engines"
"""Where engines lay before they went to a state directory; this folder is passed over and never read."""

_LITTER = (".DS_Store", "Thumbs.db")
"""Left behind by file managers; and ``._*``, where macOS keeps what other file systems cannot."""
_SHOWN = 10


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading. A FIFO, socket or device in its place is refused and never waited for.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # NUL in the path
        raise OSError(None, str(error)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(None, "not a regular file")
    return os.fdopen(descriptor, "rb")


def require_listed(root: Path, listed: Collection[str]) -> None:
    """Refuse what lies in ``root`` besides the files ``listed`` (by their paths in it), and links that lead out of it.

    Raises:
        BundleError: naming what is there and should not be; or a folder of the bundle cannot be read.
    """
    wrong = sorted(_unlisted(root, listed))
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise BundleError(
            f"{root}: expected the files of bundle.yaml and no others, found {', '.join(wrong[:_SHOWN])}{more};"
            " move them out of the folder, or list them under files: in bundle.yaml if they belong to it"
        )


def has_old_engines(root: Path, listed: Collection[str]) -> bool:
    """Whether the bundle still holds a folder of engines, which belong to a machine and are never read from there."""
    folder = root / OLD_ENGINES
    return folder.is_dir() and not folder.is_symlink() and not any(name.startswith("engines/") for name in listed)


def _unlisted(root: Path, listed: Collection[str]) -> Iterator[str]:
    home = root.resolve()

    def fail(error: OSError) -> None:
        raise BundleError(f"{error.filename}: cannot be read ({error.strerror})") from error

    for folder, folders, files in os.walk(root, onerror=fail):
        here = Path(folder)
        if here == root and has_old_engines(root, listed):
            folders.remove(OLD_ENGINES)
        links = [name for name in folders if (here / name).is_symlink()]  # not descended into
        for name in (*files, *links):
            path = here / name
            inside = path.relative_to(root).as_posix()
            if path.is_symlink() and not _within(path, home):
                yield f"{inside!r} (a link that leads out of the bundle)"
            elif inside != "bundle.yaml" and inside not in listed and not _is_litter(name):
                yield repr(inside)


def _within(path: Path, home: Path) -> bool:
    try:
        return path.resolve().is_relative_to(home)
    except (OSError, RuntimeError):  # a circle of links
        return False


def _is_litter(name: str) -> bool:
    return name in _LITTER or name.startswith("._")
