"""Archives and folders that arrive: regular files and folders only, and nothing outside of the folder that is made."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from edge_reclass_appliance.errors import FAILED, ApplianceError

_FOLDER, _FILE = 0o755, 0o644
_DAMAGED = (OSError, EOFError, tarfile.TarError, lzma.LZMAError, zlib.error, ValueError)
"""What reading a damaged or hostile archive raises; ValueError: a name with a NUL in it."""


def unpack(source: Path, folder: Path, *, without: str = "", code: int = FAILED) -> None:
    """Bring what is in ``source`` (a tar, or a folder) into ``folder``, which has to be empty.

    Modes are 0755 and 0644, the owner is whoever calls. ``without`` is a name at the top that is left out.

    Raises:
        ApplianceError: it cannot be read or does not fit, or holds a link, a device, or a name that leads outside
            (exit code ``code``).
    """
    try:
        if source.is_dir():
            _copy(source, folder, without, code)
        elif source.is_file():
            _extract(source, folder, without, code)
        else:
            raise ApplianceError(f"{source}: there is no such file or folder", f"ls -l {source.parent}", code)
    except _DAMAGED as error:
        fix = f"copy it again, and look for room: df -h {folder}"
        raise ApplianceError(f"{source} cannot be unpacked: {error}", fix, code) from error


def read_member(source: Path, name: str) -> bytes | None:
    """One file of an archive with one folder in it, or of that folder; None where there is none.

    Raises:
        ApplianceError: the archive cannot be read.
    """
    if source.is_dir():
        path = source / name
        return path.read_bytes() if path.is_file() and not path.is_symlink() else None
    try:
        with tarfile.open(source) as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                if member.isreg() and parts[-1:] == (name,) and len(parts) <= 2:
                    stream = tar.extractfile(member)
                    return None if stream is None else stream.read()
    except _DAMAGED as error:
        raise ApplianceError(f"{source} cannot be read: {error}", "copy the archive again") from error
    return None


def _extract(source: Path, folder: Path, without: str, code: int) -> None:
    with tarfile.open(source) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            parts = [part for part in path.parts if part != "."]
            if path.is_absolute() or ".." in parts:
                raise ApplianceError(
                    f"{source} names files outside of its own folder: {member.name}", f"tar -tf {source}", code
                )
            if not parts or without in parts[:2]:
                continue
            target = folder.joinpath(*parts)
            if member.isdir():
                target.mkdir(mode=_FOLDER, parents=True, exist_ok=True)
            elif member.isreg():
                stream = tar.extractfile(member)
                target.parent.mkdir(mode=_FOLDER, parents=True, exist_ok=True)
                with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE), "wb") as file:
                    if stream is not None:
                        shutil.copyfileobj(stream, file)
            else:
                raise _odd(source, member.name, code)


def _copy(source: Path, folder: Path, without: str, code: int) -> None:
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        if inside.parts[0] == without:
            continue
        mode, target = path.lstat().st_mode, folder / inside
        if stat.S_ISDIR(mode):
            target.mkdir(mode=_FOLDER, exist_ok=True)
        elif stat.S_ISREG(mode):
            shutil.copyfile(path, target, follow_symlinks=False)
            target.chmod(_FILE)
        else:
            raise _odd(source, str(inside), code)


def _odd(source: Path, name: str, code: int) -> ApplianceError:
    return ApplianceError(
        f"{source} holds {name}, which is neither a file nor a folder", "make it again, without links", code
    )
