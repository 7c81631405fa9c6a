"""A release's files, checked before anything of them is unpacked or run."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edge_reclass_appliance.errors import ApplianceError, usage

from . import manifest, minisign
from .manifest import MANIFEST, SIGNATURE, Entry, Release
from .minisign import SignatureError
from .trust import Trust

NOT_CHECKED = "NOT CHECKED (--insecure): nothing says who made it, or whether it was altered"

_BLOCK = 1024 * 1024
_OWN = ".checked."


@dataclass(frozen=True)
class Opened:
    """A file to unpack."""

    path: Path
    """A copy that was made while it was hashed, which no other user can reach; the file itself with ``--insecure``."""
    release: Release | None
    """None with ``--insecure``. After it is installed: ``trust.remember(release)``."""
    said: str
    """What was checked, in one line for people."""


@contextlib.contextmanager
def opened(file: Path, trust: Trust, scratch: Path) -> Iterator[Opened]:
    """A wheelhouse or bundle, checked by the signed ``release.json`` beside it, to be unpacked from ``path``.

    The file is read once, into a copy below the folder ``scratch``, which is only the caller's to change. What was
    hashed is what is unpacked, even if somebody writes into the file meanwhile. The copy is gone afterwards.

    Raises:
        SignatureError: it is not signed by the trusted key, or was altered, or is older than what was installed.
        ApplianceError: it cannot be read, or there is no room for the copy.
    """
    if trust.insecure:
        yield Opened(file, None, f"{file.name}: {NOT_CHECKED}")
        return
    release = signed_release(file.parent, trust)
    entry = release.entry(file.name)
    with _opened(file) as source, _own_folder(scratch) as folder:
        path = folder / entry.name
        with path.open("xb") as copy:
            _check(file, source, entry, copy)
        yield Opened(path, release, f"{file.name}: signed by the key {trust.public_key().id}, {release.title}")


def signed_release(folder: Path, trust: Trust) -> Release:
    """The release of a folder by its manifest, whose signature and sequence are checked; of its files, nothing is.

    Raises:
        SignatureError: it is not signed by the trusted key, or was altered, or is older than what was installed.
    """
    key = trust.public_key()
    fix = "copy release.json and release.json.minisig of the release beside the file; --insecure takes it unchecked"
    data, signature = (_small(folder / name, most, fix) for name, most in _SIZES)
    minisign.verify(key, data, signature, name=str(folder / MANIFEST))
    release = manifest.read(data, str(folder / MANIFEST))
    trust.check_sequence(release)
    return release


_SIZES = ((MANIFEST, manifest.MOST_BYTES), (SIGNATURE, minisign.MOST_BYTES))


def check_file(file: Path, release: Release) -> None:
    """Compare one file with what the release says of it.

    Raises:
        SignatureError: it is another one, or none of the release.
        ApplianceError: it cannot be read.
    """
    entry = release.entry(file.name)
    with _opened(file) as source:
        _check(file, source, entry, None)


def check_folder(folder: Path, release: Release) -> None:
    """Compare all files of a folder with what the release says of them.

    Raises:
        SignatureError: one was changed, is missing, or is there without being listed.
        ApplianceError: one cannot be read.
    """
    there = {path.name for path in folder.iterdir()} - {MANIFEST, SIGNATURE}
    listed = {entry.name for entry in release.files}
    if there - listed:
        raise SignatureError(
            f"{folder}: not listed in the release: {_shown(there - listed)}",
            "move them away: they are not part of what was signed",
        )
    if listed - there:
        raise SignatureError(
            f"{folder}: missing: {_shown(listed - there)}",
            f"copy them again; or check one file that is there: verify-release {folder}/NAME",
        )
    for entry in release.files:
        check_file(folder / entry.name, release)


def made_release(folder: Path, name: str, version: str, sequence: int) -> Release:
    """The release of all files that a folder holds.

    Raises:
        ApplianceError: there is none, or one that cannot be part of a release.
    """
    entries = []
    for path in sorted(folder.iterdir()):
        if path.name in (MANIFEST, SIGNATURE):
            continue
        if not manifest.is_plain_name(path.name) or path.is_symlink():
            raise usage(
                f"{path}: expected a file whose name has letters, digits and . _ + - only, and no link",
                "rename it, or move it out of the folder",
            )
        with _opened(path) as source:
            digest, size = _read(source, None, None)
        entries.append(Entry(path.name, size, digest))
    if not entries:
        raise usage(f"{folder}: there is no file to release")
    try:  # as a device will read it: what it would refuse is not written
        return manifest.read(Release(name, version, sequence, tuple(entries)).to_bytes(), MANIFEST)
    except SignatureError as error:
        raise usage(str(error)) from None


def _check(file: Path, source: BinaryIO, entry: Entry, copy: BinaryIO | None) -> None:
    """Read ``source`` to its end, into ``copy`` where there is one, and compare it with ``entry``."""
    if (size := os.fstat(source.fileno()).st_size) != entry.bytes:
        raise SignatureError(f"{file} was altered: expected {entry.bytes} bytes, got {size}", "copy it again")
    digest, size = _read(source, copy, entry.bytes)
    if (digest, size) != (entry.sha256, entry.bytes):
        raise SignatureError(f"{file} was altered: expected sha256 {entry.sha256}, got {digest}", "copy it again")


def _read(source: BinaryIO, copy: BinaryIO | None, most: int | None) -> tuple[str, int]:
    """The sha256 and size of what was read; no more than a block above ``most``, should the file grow meanwhile."""
    digest, size = hashlib.sha256(), 0
    while block := source.read(_BLOCK):
        digest.update(block)
        size += len(block)
        if copy is not None:
            _write(copy, block)
        if most is not None and size > most:
            break
    if copy is not None:
        with _no_room():
            copy.flush()
    return digest.hexdigest(), size


def _write(copy: BinaryIO, block: bytes) -> None:
    with _no_room():
        copy.write(block)


@contextlib.contextmanager
def _no_room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ApplianceError(
            "there is no room for a copy of the file, which is checked while it is made", "df -h"
        ) from None


@contextlib.contextmanager
def _own_folder(scratch: Path) -> Iterator[Path]:
    ours = f"{_OWN}{os.getpid()}."
    for left in scratch.glob(f"{_OWN}*"):
        if not left.name.startswith(ours):  # of a run that a power cut ended; one runs at a time
            shutil.rmtree(left, ignore_errors=True)
    try:
        folder = Path(tempfile.mkdtemp(prefix=ours, dir=scratch))  # mode 0700
    except OSError as error:
        raise ApplianceError(f"{scratch}: no folder can be made there: {error.strerror}", f"df -h {scratch}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """A regular file, opened once; what else has that name is never waited for."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ApplianceError(f"{file}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise usage(f"{file}: expected a file, got something else")
    with os.fdopen(descriptor, "rb") as stream:
        yield stream


def _small(file: Path, most: int, fix: str) -> bytes:
    try:
        with _opened(file) as stream:
            data = stream.read(most + 1)
    except ApplianceError as error:
        raise SignatureError(f"the release is not signed, or incomplete: {error}", fix) from None
    if len(data) > most:
        raise SignatureError(f"{file}: expected at most {most} bytes")
    return data


def _shown(names: set[str]) -> str:
    return ", ".join(repr(name) if not name.isprintable() else name for name in sorted(names))
