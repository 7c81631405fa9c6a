"""Whether an engine store can be trusted: who may write it, and the secret by which its records are known.

A store is a folder with a secret, one folder per bundle (named by the bundle's digest) and below it one per engine.
``build`` makes the secret; a record that it did not sign is not used. So nobody can hand over an engine in a bundle,
and a copied store needs its secret too. The secret is readable for the group of the store's folder: one user builds,
another one of that group classifies.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import pwd
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_reclass.errors import EngineError

ENGINES_VARIABLE = "EDGE_RECLASS_ENGINES"
SECRET = "secret"
_BYTES = 32
_SYSTEM_STORE = Path("/var/lib/edge-reclass/engines")


def default_store(environ: Mapping[str, str] = os.environ, system: Path = _SYSTEM_STORE) -> Path:
    """Where engines lie if nobody says otherwise: ``EDGE_RECLASS_ENGINES``, the system's store, or the user's.

    The ``system`` store is that of a provisioned appliance; it is taken by who may write it or read its secret.
    """
    if given := environ.get(ENGINES_VARIABLE):
        return Path(given)
    if os.access(system, os.W_OK | os.X_OK) or os.access(system / SECRET, os.R_OK):
        return system
    state = Path(environ.get("XDG_STATE_HOME", ""))
    if state.is_absolute():  # others have to be ignored, says the XDG specification
        return state / "edge-reclass" / "engines"
    home = environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    return Path(home) / ".local" / "state" / "edge-reclass" / "engines"


@dataclass(frozen=True)
class StoreKey:
    """An opened store: its secret (None: there is none yet) and whose files in it are trusted."""

    store: Path
    secret: bytes | None
    owners: frozenset[int]
    group: int | None

    def require_trusted(self, path: Path) -> None:
        """Check owner and mode of a part of the store.

        Raises:
            EngineError: others may write it, or it belongs to somebody else.
        """
        found = path.stat()
        if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and not self._is_ours(found.st_gid)):
            raise EngineError(
                f"{path}: others may write it, so its engines cannot be trusted; chmod -R go-w {self.store}, delete"
                " what is in it and build again"
            )
        if found.st_uid not in self.owners:
            raise EngineError(
                f"{path}: it belongs to user {found.st_uid}, expected {', '.join(map(str, sorted(self.owners)))};"
                " build into a folder of your own with --engines DIR"
            )

    def _is_ours(self, group: int) -> bool:
        """Groups that may write: the one that may read the secret, and where there is none, one's own."""
        return group == (os.getegid() if self.group is None else self.group)

    def sign(self, content: bytes) -> str:
        """HMAC-SHA256 of ``content``, as hexadecimal digits. Raises ``EngineError`` where there is no secret."""
        if self.secret is None:
            raise EngineError(f"{self.store / SECRET}: there is no secret to sign with")
        return hmac.new(self.secret, content, hashlib.sha256).hexdigest()

    def signed(self, content: bytes, signature: str) -> bool:
        """Whether ``signature`` was made here for ``content``."""
        return self.secret is not None and hmac.compare_digest(self.sign(content).encode(), signature.encode())


def open_store(store: Path) -> StoreKey:
    """Read the store's secret, if there is one, and check who may write the store.

    Raises:
        EngineError: others may write it, it belongs to somebody else, or the secret cannot be read.
    """
    file, me = store / SECRET, os.geteuid()
    secret, group, owners = None, None, {0, me}
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise EngineError(
            f"{file}: cannot be read ({error.strerror}), so no engine here can be trusted; join the group of the"
            f" folder, or give it another one: sudo chgrp GROUP {store} {file}"
        ) from error
    else:
        with os.fdopen(descriptor, "rb") as stream:
            found = os.fstat(descriptor)
            secret = stream.read(_BYTES + 1)
        if len(secret) != _BYTES or not stat.S_ISREG(found.st_mode) or found.st_mode & stat.S_IRWXO:
            raise EngineError(
                f"{file}: expected {_BYTES} bytes that others cannot read (mode 0640); delete it and build again"
            )
        group = found.st_gid
        if found.st_uid not in owners and found.st_mode & stat.S_IRGRP and group in {os.getegid(), *os.getgroups()}:
            owners.add(found.st_uid)  # who shares the secret with a group of mine: only its members can
    key = StoreKey(store, secret, frozenset(owners), group)
    for path in (store, file):
        with contextlib.suppress(FileNotFoundError):
            key.require_trusted(path)
    return key


def make_secret(store: Path) -> StoreKey:
    """The opened store, with a secret that is made where there is none; the folder has to exist.

    Raises:
        EngineError: as :func:`open_store`.
        OSError: the secret cannot be written.
    """
    if (key := open_store(store)).secret is not None:
        return key
    descriptor, name = tempfile.mkstemp(prefix=".secret-", dir=store)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(os.urandom(_BYTES))
            with contextlib.suppress(PermissionError):  # not one of the builder's groups: then it stays the builder's
                os.fchown(descriptor, -1, store.stat().st_gid)
            os.fchmod(descriptor, 0o640)
            stream.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):  # another build was faster
            os.link(name, store / SECRET)
    finally:
        Path(name).unlink()
    return open_store(store)
