"""Whom this machine trusts, and which releases it has seen: the key of the first contact, and the newest sequences.

The first release is checked with a key that its owner gives (``--key``), which is stored. From then on the key must
match. A new key is a decision of the owner: remove the stored one by hand, then give the new one.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import minisign
from .manifest import Release
from .minisign import PublicKey, SignatureError

STORED_KEY = Path("etc/edge-reclass/trusted.pub")
SEEN = Path("etc/edge-reclass/releases.json")
"""Beside the key, where the service cannot write."""

_MOST_SEEN = 1 << 20


@dataclass(frozen=True)
class Trust:
    """The options of whoever installs, and what this machine remembers."""

    key: str | None = None
    """``--key``: a minisign public key file, or the key itself as base64."""
    insecure: bool = False
    """``--insecure``: nothing is checked."""
    allow_downgrade: bool = False
    """``--allow-downgrade``: a release that is older than the one seen last is taken."""
    root: Path = Path("/")
    """The machine's root folder; another one in tests."""

    @property
    def key_file(self) -> Path:
        """Where the trusted key is stored."""
        return self.root / STORED_KEY

    def public_key(self) -> PublicKey:
        """The key by which releases must be signed.

        Raises:
            SignatureError: there is none, it cannot be used, or the one given is not the one stored.
        """
        given = minisign.key_of(self.key) if self.key is not None else None
        stored = self._stored_key()
        if given is None and stored is None:
            raise SignatureError(
                f"no key is trusted on this machine yet: {self.key_file} does not exist",
                "give the public key of whoever made the release, which you got on another way: --key KEYFILE",
            )
        if given is not None and stored is not None and given != stored:
            raise SignatureError(
                f"--key is the key {given.id}, but this machine trusts the key {stored.id} ({self.key_file})",
                f"if you know that the key was changed: sudo rm {self.key_file}   then run this again",
            )
        return stored or given  # type: ignore[return-value]

    def store_key(self) -> Path | None:
        """Store the key that was given, after a release was found to be signed by it; None where it was stored before.

        Raises:
            SignatureError: as :meth:`public_key`.
            OSError: it cannot be written.
        """
        if self._stored_key() is not None:
            return None
        _write(self.key_file, self.public_key().text)
        return self.key_file

    def check_sequence(self, release: Release) -> None:
        """Whether ``release`` is as new as the newest of its name that was installed here.

        Raises:
            SignatureError: it is older, and that was not asked for.
        """
        before = self._seen().get(release.name)
        if before is not None and release.sequence < before[0] and not self.allow_downgrade:
            raise SignatureError(
                f"{release.title} is older than {before[1]} (sequence {before[0]}), which was installed here",
                "to go back on purpose: the same command with --allow-downgrade",
            )

    def remember(self, release: Release) -> None:
        """Note what was installed, so that nothing older comes after it; stores the key as well.

        Raises:
            SignatureError: what is noted cannot be read.
            OSError: it cannot be written.
        """
        if self.key is not None:
            self.store_key()
        seen = {**self._seen(), release.name: (release.sequence, release.version)}
        said = {name: {"sequence": pair[0], "version": pair[1]} for name, pair in sorted(seen.items())}
        _write(self.root / SEEN, json.dumps(said, indent=2) + "\n")

    def _stored_key(self) -> PublicKey | None:
        data = _roots_own(self.key_file, minisign.MOST_BYTES + 1)
        return None if data is None else minisign.read_key(data, str(self.key_file))

    def _seen(self) -> dict[str, tuple[int, str]]:
        file = self.root / SEEN
        data = _roots_own(file, _MOST_SEEN)
        if data is None:
            return {}
        try:
            said = json.loads(data)
            return {str(name): (int(pair["sequence"]), str(pair["version"])) for name, pair in said.items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            raise SignatureError(
                f"{file} is damaged: which releases were installed here is not known",
                f"sudo rm {file}   then an older release is no longer recognised, until the next one is installed",
            ) from None


def _roots_own(file: Path, most: int) -> bytes | None:
    """Up to ``most`` bytes of a file that only root writes (or the caller, in tests); None where there is none.

    Raises:
        SignatureError: somebody else can write it, it is no regular file, or it cannot be read.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SignatureError(
            f"{file}: cannot be read: {error.strerror}; expected a file that only root writes", f"ls -l {file}"
        ) from None
    found = os.fstat(descriptor)
    if stat.S_ISDIR(found.st_mode):  # which fdopen would not take
        os.close(descriptor)
        raise SignatureError(f"{file}: expected a file, got a folder", f"sudo mv {file} {file}.old")
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
            raise SignatureError(
                f"{file}: expected a file that only root writes, got {stat.filemode(found.st_mode)} "
                f"of user {found.st_uid}: anybody else may have put something else there",
                f"look at what is in it, then: sudo chown root: {file} && sudo chmod 644 {file}",
            )
        return stream.read(most)


def _write(file: Path, text: str) -> None:
    """Complete, on the disk, for all to read and the owner to write; or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
