"""The sockets that the service listens on: a Unix socket, TCP, or what systemd hands over."""

from __future__ import annotations

import grp
import ipaddress
import os
import socket
import stat
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path

from edge_reclass.errors import UsageError

NAME = "edge-reclass.sock"
_MODE = 0o660
_LONGEST = 107
"""Bytes of a Unix socket's path (sun_path)."""
_BACKLOG = 256
_FIRST_INHERITED = 3


def default_socket(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Where the Unix socket is by default: in the service's or the user's folder for run-time files; None: no such."""
    for variable in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        folder = environ.get(variable, "").partition(":")[0]
        if folder:
            return Path(folder, NAME)
    return None


def inherited(environ: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The listening sockets that systemd hands over (sd_listen_fds(3)); the variables are taken out.

    Raises:
        UsageError: one is not a listening stream socket.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    found = []
    for descriptor in range(_FIRST_INHERITED, _FIRST_INHERITED + int(count)):
        try:
            one = socket.socket(fileno=descriptor)
            listens = one.type == socket.SOCK_STREAM and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise UsageError(f"LISTEN_FDS: {descriptor} is not a socket ({error.strerror})") from error
        if not listens:
            raise UsageError("LISTEN_FDS: expected ListenStream= in the socket unit, with Accept=no")
        one.set_inheritable(False)
        found.append(one)
    return found


def is_loopback(one: socket.socket) -> bool:
    """True where nobody on another machine reaches it: a Unix socket, or TCP on the loopback interface."""
    if one.family == socket.AF_UNIX:
        return True
    return ipaddress.ip_address(str(one.getsockname()[0]).partition("%")[0]).is_loopback


def named(one: socket.socket) -> str:
    """How a client reaches it: a path, or a URL."""
    name = one.getsockname()
    if one.family == socket.AF_UNIX:
        return os.fsdecode(name)
    host = f"[{name[0]}]" if one.family == socket.AF_INET6 else name[0]
    return f"http://{host}:{name[1]}"


def bind_tcp(listen: str) -> socket.socket:
    """Listen on ``HOST:PORT``; port 0 is any that is free.

    Raises:
        UsageError: it is no such address, or cannot be had.
    """
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--listen: expected HOST:PORT, as 127.0.0.1:8765, got {listen!r}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        one = socket.socket(family, kind, protocol)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(address)
            one.listen(_BACKLOG)
        except BaseException:
            one.close()
            raise
    except OSError as error:
        raise UsageError(f"--listen {listen}: {error.strerror or error}") from error
    return one


class UnixSocket:
    """A listening Unix socket with mode 0660; what a killed service left at its path is replaced."""

    def __init__(self, path: Path, group: str | None = None) -> None:
        """Bind it.

        Raises:
            UsageError: the path cannot be used, another process listens there, or there is no such group.
        """
        self.path = path
        if len(os.fsencode(path)) > _LONGEST:
            raise UsageError(f"--socket: a socket's path has at most {_LONGEST} bytes, got {path}")
        _remove_stale(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            mask = os.umask(0o777 & ~_MODE)
            try:
                self.socket.bind(os.fspath(path))
            finally:
                os.umask(mask)
            self._id = _identity(path)
            if group is not None:
                os.chown(path, -1, _group(group))
            self.socket.listen(_BACKLOG)
        except OSError as error:
            self.close()
            raise UsageError(
                f"{path}: no socket can be made there ({error.strerror}); --socket PATH names it"
            ) from error
        except UsageError:
            self.close()
            raise

    def close(self) -> None:
        """Close it and remove its path, if that is still this socket's."""
        self.socket.close()
        with suppress(OSError):
            if _identity(self.path) == self._id:
                self.path.unlink()

    _id: tuple[int, int] | None = None


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise UsageError(f"--group: no group {name!r} on this machine (getent group lists them)") from None


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except OSError:
        return  # binding says what is wrong
    if not stat.S_ISSOCK(found.st_mode):
        raise UsageError(f"{path}: expected a socket or nothing, and it is something else; --socket PATH names another")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        try:
            one.settimeout(2.0)
            one.connect(os.fspath(path))
        except ConnectionRefusedError:
            with suppress(OSError):
                path.unlink()
            return
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}") from error
    raise UsageError(f"{path}: another process listens there; stop it first, or name another socket with --socket")
