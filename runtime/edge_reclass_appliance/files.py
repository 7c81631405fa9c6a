"""Files that are complete or not there at all, links that never point to nothing, and one command at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge_reclass_appliance.errors import ApplianceError

_MANY = 200
"""From so many files on, writing all that the system has in memory is quicker."""


def read(path: Path) -> str:
    """The text of a file; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def holds(path: Path, text: str, mode: int) -> bool:
    """Whether ``path`` is a regular file with exactly this text and mode."""
    try:
        found = path.lstat()
        return stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == mode and path.read_text("utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def write(path: Path, text: str, mode: int = 0o644) -> bool:
    """Write a file whole, and to the disk, before it appears under its name; False: it was so already.

    Raises:
        ApplianceError: it cannot be written; what was there before is still there.
    """
    if holds(path, text, mode):
        return False
    write_bytes(path, text.encode("utf-8"), mode)
    return True


def write_bytes(path: Path, content: bytes, mode: int) -> None:
    """As :func:`write`, whatever was there before."""
    new = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        Path(new).replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if new is not None:
            with contextlib.suppress(OSError):
                Path(new).unlink()
        raise ApplianceError(
            f"{path} cannot be written ({error.strerror}); what was there before is still there", f"df -h {path.parent}"
        ) from error


def own_folder(folder: Path, mode: int, owner: int, group: int) -> None:
    """Set owner (where root asks) and mode of a folder, by its descriptor: a link that takes its place gets nothing.

    Raises:
        ApplianceError: it is a link.
        OSError: it cannot be changed.
    """
    if folder.is_symlink():
        raise ApplianceError(f"{folder} is a link: expected a folder", f"ls -l {folder}")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.geteuid() == 0:
            os.fchown(descriptor, owner, group)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def switch(link: Path, target: str) -> None:
    """Point a symbolic link to ``target``: it names the old or the new, never nothing."""
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.parent / f".next-{link.name}"
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)
    sync_folder(link.parent)


def link_target(link: Path) -> str:
    """What a symbolic link says; empty where there is none."""
    try:
        return str(link.readlink())
    except OSError:
        return ""


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Bring all below a folder to the disk: before a link names what must not be found empty after a power cut."""
    paths = [path for path in folder.rglob("*") if not path.is_symlink()]
    if len(paths) > _MANY:
        os.sync()
        return
    for path in (*paths, folder, folder.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the lock in ``folder``; it ends with the process, however that ends.

    Raises:
        ApplianceError: another command holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ApplianceError(
                "another installation or bundle update is running on this machine", "wait for it, then run this again"
            ) from None
        yield
    finally:
        os.close(descriptor)
