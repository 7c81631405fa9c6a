"""What kind of file system a path lies on."""

from __future__ import annotations

import ctypes
import os
from typing import Final

# statfs(2), and linux/magic.h
_NETWORK: Final = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "SMB",  # cifs
    0xFE534D42: "SMB",  # smb2 and later
    0x01021997: "9P",
    0x5346414F: "AFS",
    0x00C36400: "Ceph",
    0x73757245: "Coda",
}


def network_file_system(path: str | os.PathLike[str]) -> str | None:
    """``NFS``, ``SMB``, … where ``path`` lies on a file system of another machine; None where it does not.

    Other machines' writes raise no event there, and memory cannot be shared with them through a file. What lies behind
    FUSE cannot be known, and counts as local.

    Raises:
        OSError: there is nothing at ``path``.
    """
    return _NETWORK.get(file_system_type(path))


def mount_point(path: str | os.PathLike[str]) -> str:
    """Where the file system is mounted that ``path`` lies on, or would lie on if it were there."""
    at = os.path.realpath(path)
    while not os.path.ismount(at):
        at = os.path.dirname(at)  # noqa: PTH120
    return at


def file_system_type(path: str | os.PathLike[str]) -> int:
    """The magic number that statfs(2) gives; 0 where it cannot be asked (not on Linux).

    Raises:
        OSError: there is nothing at ``path``.
    """
    try:
        statfs = ctypes.CDLL(None, use_errno=True).statfs
    except (AttributeError, OSError):
        return 0
    buffer = ctypes.create_string_buffer(256)  # a struct statfs has 120 bytes on 64-bit Linux, f_type first
    if statfs(os.fsencode(path), buffer) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), os.fspath(path))
    return ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF
