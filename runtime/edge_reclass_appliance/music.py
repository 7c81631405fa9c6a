"""Whether the service may read the music, and what mends it where it may not."""

from __future__ import annotations

import os
import re
import shlex
import stat
import struct
from pathlib import Path

from edge_reclass_appliance.users import User

BY_OPTIONS = ("vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "cifs", "smb3", "hfsplus")
"""File systems on which owner and mode of everything are options of the mount."""

BY_SERVER = ("nfs", "nfs4", "fuse.sshfs", "9p")
"""Those on which another machine decides."""

_USER, _GROUP, _MASK = 2, 8, 16
"""Tags of the entries of an access list."""


def remedy(closed: Path, music: Path, user: User, groups: dict[str, int], mounts: str = "/proc/self/mountinfo") -> str:
    """Why ``user`` may not read ``closed``, which lies in ``music``, and the command that mends it, in one line.

    Args:
        closed: a file or folder that the user may not read.
        music: the folder of the music.
        user: the service's user.
        groups: name → number of the machine's groups.
        mounts: the kernel's list of mounts.
    """
    way = [*reversed(closed.parents), closed]
    inside = [one for one in way if one == music or music in one.parents]
    # What is inside comes first: above it, the sandbox passes a home that is closed.
    blocked = next((one for one in (*inside, *way) if not may(one, user, one == closed)), closed)
    place, kind = mount_of(blocked, mounts)
    name, shown = user.name, shlex.quote(str(blocked))
    try:
        found = blocked.stat()
    except OSError as error:
        return f"{blocked}: {error.strerror}; to fix it: ls -ld {shown}"
    mode = f"{blocked} (mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid}:{found.st_gid})"
    if kind in BY_OPTIONS:
        access = "dir_mode=0755,file_mode=0644" if kind in ("cifs", "smb3") else "dmask=0022,fmask=0133"
        return (
            f"{mode} is closed to {name}; on {kind}, the options of the mount say who may read; to fix it: add"
            f" {access} to the options of {place} in /etc/fstab, then sudo umount {shlex.quote(place)} &&"
            f" sudo mount {shlex.quote(place)}"
        )
    if kind in BY_SERVER:
        return (
            f"{mode} is closed to {name}; on {kind}, the server decides; to fix it: let user number {user.uid} read it"
            " there"
        )
    group = next((one for one, number in groups.items() if number == found.st_gid), "")
    need = stat.S_IXGRP | (stat.S_IRGRP if stat.S_ISDIR(found.st_mode) else 0)
    need = need if stat.S_ISDIR(found.st_mode) else stat.S_IRGRP
    if group and found.st_gid != 0 and found.st_mode & need == need:
        return (
            f"{mode} is closed to {name}, and open to the group {group}; to fix it: sudo usermod -aG {group} {name} &&"
            " sudo systemctl try-restart edge-reclass"
        )
    if blocked == music or music in blocked.parents:
        return (
            f"{mode} is closed to {name}; to fix it: sudo setfacl -R -m u:{name}:rX -m d:u:{name}:rX"
            f" {shlex.quote(str(music))}   (package acl)"
        )
    return (
        f"{mode}, above the music, is closed to {name}; to fix it: sudo setfacl -m u:{name}:x {shown}   (package acl);"
        " a disk of a desktop's session is better mounted by /etc/fstab"
    )


def may(path: Path, user: User, last: bool) -> bool:
    """Whether modes and access lists let ``user`` pass a folder, or read ``path`` where it is the ``last``."""
    try:
        found = path.stat()
    except OSError:
        return False
    want = (5 if last else 1) if stat.S_ISDIR(found.st_mode) else 4
    if found.st_uid == user.uid:
        return (found.st_mode >> 6) & want == want
    listed = _listed(path, user)
    if listed is not None:
        return listed & want == want
    if found.st_gid in {user.gid, *user.groups}:
        return (found.st_mode >> 3) & want == want
    return found.st_mode & want == want


def _listed(path: Path, user: User) -> int | None:
    """What a POSIX access list of ``path`` gives the user or a group of theirs; None where it names none of them.

    Entries of 8 bytes (tag, rights, number) after 4. The mask, which chmod sets, bounds them all.
    """
    try:
        content = os.getxattr(path, "system.posix_acl_access")
    except OSError:
        return None
    whole = content[4 : 4 + (len(content) - 4) // 8 * 8]
    entries: list[tuple[int, int, int]] = list(struct.iter_unpack("<HHI", whole))
    mask: int = next((rights for tag, rights, _ in entries if tag == _MASK), 7)
    mine: list[int] = [rights for tag, rights, number in entries if tag == _USER and number == user.uid]
    ours: list[int] = [
        rights for tag, rights, number in entries if tag == _GROUP and number in {user.gid, *user.groups}
    ]
    if mine:
        return mine[0] & mask
    return None if not ours else max(ours) & mask


def mount_of(path: Path, mounts: str = "/proc/self/mountinfo") -> tuple[str, str]:
    """Mount point and file system that ``path`` lies on; ``("/", "")`` where the kernel's list cannot be read."""
    best, kind = "/", ""
    try:
        lines = Path(mounts).read_bytes().strip().split(b"\n")
    except OSError:
        return best, kind
    for line in lines:
        before, _, after = line.partition(b" - ")
        escaped = before.split(b" ")[4]  # by the kernel: these four characters, and no others
        point = os.fsdecode(re.sub(rb"\\(040|011|012|134)", lambda found: bytes([int(found[1], 8)]), escaped))
        inside = str(path) == point or str(path).startswith(f"{point.rstrip('/')}/")
        if inside and len(point) >= len(best):
            best, kind = point, os.fsdecode(after.split()[0])
    return best, kind
