"""Files brought to a new place: never over another file, whole under the new name or not there at all."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from edge_reclass.library.journal import sync_folder, temporary
from edge_reclass.library.organise.plan import By

_FICLONE: Final = 0x40049409
_RENAME_NOREPLACE: Final = 1
_AT_FDCWD: Final = -100
_BLOCK: Final = 1 << 20


def bring(by: By, source: Path, target: Path) -> None:
    """Bring ``source`` to ``target``, whose folder is there. The caller syncs the folders.

    Raises:
        OSError: it cannot be done; FileExistsError where ``target`` is there. The source is where it was, and whole.
    """
    if by is By.LINK:
        try:
            os.link(os.path.realpath(source), target)  # not what a symbolic link is, but what it leads to
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            raise OSError(
                errno.EXDEV, "it is on another file system, and a link leads to none; take --by copy"
            ) from error
    elif by is By.MOVE:
        move(source, target)
    else:
        copy(source, target, clone=by is By.REFLINK)


def move(source: Path, target: Path) -> None:
    """Rename, or to another file system: copy, compare, and only then remove the source.

    Raises:
        OSError: as :func:`bring`.
    """
    try:
        rename_new(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        status = copy(source, target)
        try:
            sync_folder(target.parent)
            _remove_copied(source, status)
        except OSError:
            target.unlink()
            raise


def copy(source: Path, target: Path, *, clone: bool = False) -> os.stat_result:
    """Copy a file with its times, mode, attributes and (where allowed) owner; the status of the source.

    The copy is read back from the disk and compared before it gets its name.

    Args:
        clone: share the blocks (FICLONE) instead of copying them.

    Raises:
        OSError: as :func:`bring`; with ``clone`` also where the file system cannot share blocks.
    """
    with source.open("rb", buffering=0) as old:
        status = os.fstat(old.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no file", str(source))
        with temporary(target.parent) as (part, new):
            if clone:
                _clone(old.fileno(), new, source)
            else:
                _copy_compared(old.fileno(), new, source)
            _like(new, old.fileno(), status)
            os.fsync(new)
            if _changed(os.fstat(old.fileno()), status):
                raise OSError(errno.EBUSY, "it was changed while it was copied", str(source))
            rename_new(part, target)
    return status


def _remove_copied(source: Path, status: os.stat_result) -> None:
    """Remove the source of a copy; ``status`` is what it was when it was copied.

    Raises:
        OSError: it cannot be removed, or has changed since.
    """
    now = source.lstat()
    if not os.path.samestat(now, status) or _changed(now, status):
        raise OSError(errno.EBUSY, "it was changed while it was moved, and stays", str(source))
    source.unlink()


def rename_new(source: Path, target: Path) -> None:
    """Rename, unless ``target`` is there.

    Raises:
        FileExistsError: it is.
        OSError: it cannot be renamed; EXDEV where it is another file system.
    """
    if _renameat2(source, target):
        return
    try:  # NFS and some FUSE file systems have no such rename
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
    else:
        source.unlink()
        return
    if os.path.lexists(target):  # nor links: all that is left is to look first
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)


def _renameat2(source: Path, target: Path) -> bool:
    """False where the system or the file system has it not."""
    call = _libc_renameat2()
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


def _libc_renameat2() -> Callable[..., int] | None:
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    call.restype = ctypes.c_int
    return call


def _clone(old: int, new: int, source: Path) -> None:
    try:
        fcntl.ioctl(new, _FICLONE, old)
    except OSError as error:
        raise OSError(
            error.errno, f"its blocks cannot be shared here ({error.strerror}); take --by copy or link", str(source)
        ) from error


def _copy_compared(old: int, new: int, source: Path) -> None:
    first = hashlib.blake2b()
    while block := os.read(old, _BLOCK):
        first.update(block)
        view = memoryview(block)
        while view:
            view = view[os.write(new, view) :]
    os.fsync(new)
    os.posix_fadvise(new, 0, 0, os.POSIX_FADV_DONTNEED)  # read what is on the disk, not what we still hold
    second = hashlib.blake2b()
    os.lseek(new, 0, os.SEEK_SET)
    while block := os.read(new, _BLOCK):
        second.update(block)
    if first.digest() != second.digest():
        raise OSError(errno.EIO, "its copy reads back otherwise; the disk may be failing", str(source))


def _like(new: int, old: int, status: os.stat_result) -> None:
    """Give a copy what the original has beside its content, as far as the file system takes it."""
    with suppress(OSError):
        os.fchown(new, status.st_uid, status.st_gid)
    with suppress(OSError):
        for name in os.listxattr(old):  # access control lists too
            with suppress(OSError):
                os.setxattr(new, name, os.getxattr(old, name))
    with suppress(OSError):  # exFAT and SMB may refuse
        os.fchmod(new, stat.S_IMODE(status.st_mode))
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))


def _changed(now: os.stat_result, then: os.stat_result) -> bool:
    return (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns)


def make_folders(root: Path, folder: Path) -> None:
    """Make ``folder`` and what is missing above it, down from ``root``.

    Raises:
        OSError: it cannot be made; NotADirectoryError where a part of it is a link or no folder, which could lead out.
    """
    parts = folder.relative_to(root).parts
    for depth in range(len(parts) + 1):
        at = root.joinpath(*parts[:depth])
        try:
            at.mkdir()
        except FileExistsError:
            if depth and not stat.S_ISDIR(at.lstat().st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "it is no folder (a link is none)", str(at)) from None
