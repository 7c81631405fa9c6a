"""Users and groups of the machine, or of the folder that stands for one."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edge_reclass_appliance.errors import ApplianceError
from edge_reclass_appliance.files import read
from edge_reclass_appliance.places import STATE

_HERE = Path("/")


@dataclass(frozen=True)
class User:
    """A user by number, with the main group and all others."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def find(root: Path, name: str) -> User | None:
    """The user called ``name``; None where there is none."""
    if root == _HERE:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return None
        others = tuple(sorted(set(os.getgrouplist(name, entry.pw_gid)) - {entry.pw_gid}))
        return User(name, entry.pw_uid, entry.pw_gid, others)
    for line in read(root / "etc/passwd").splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > 3:
            return User(name, int(fields[2]), int(fields[3]))
    return None


def is_ours(root: Path, name: str) -> bool:
    """Whether there is such a user, and its home is the service's folder, as :func:`add` makes it."""
    if root == _HERE:
        try:
            return pwd.getpwnam(name).pw_dir == STATE
        except KeyError:
            return False
    lines = (line.split(":") for line in read(root / "etc/passwd").splitlines())
    return any(fields[0] == name and fields[5:6] == [STATE] for fields in lines)


def groups(root: Path) -> dict[str, int]:
    """Name → number of every group."""
    if root == _HERE:
        return {entry.gr_name: entry.gr_gid for entry in grp.getgrall()}
    rows = (line.split(":") for line in read(root / "etc/group").splitlines())
    return {row[0]: int(row[2]) for row in rows if len(row) > 2 and row[2].isdecimal()}


def add(root: Path, name: str) -> None:
    """Add a system user without a home or a shell, with a group of its own.

    Raises:
        ApplianceError: it cannot be added.
    """
    options = ["--system", "--user-group", "--home-dir", STATE, "--no-create-home", "--shell", "/usr/sbin/nologin"]
    elsewhere = [] if root == _HERE else ["--prefix", str(root)]
    command = shutil.which("useradd") or "/usr/sbin/useradd"
    try:
        done = subprocess.run([command, *elsewhere, *options, name], capture_output=True, text=True, check=False)
        failed, why = done.returncode != 0, done.stderr.strip()
    except OSError as error:
        failed, why = True, str(error)
    if failed:
        raise ApplianceError(f"the user {name} could not be added: {why}", f"sudo useradd --system --user-group {name}")
