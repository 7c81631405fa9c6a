"""Where a service listens: a Unix socket, or a URL."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge_reclass.errors import UsageError

_LONGEST_SOCKET = 107
"""Bytes that Linux takes for the path of a Unix socket."""


@dataclass(frozen=True)
class Address:
    """A Unix socket (``path``), or ``host`` and ``port``; ``authority`` is what the header Host says."""

    path: str | None
    host: str = ""
    port: int = 0

    @property
    def authority(self) -> str:
        """``localhost`` for a Unix socket, else ``host:port``, without the port where it is the scheme's own."""
        if self.path is not None:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 80 else f"{host}:{self.port}"

    def __str__(self) -> str:
        return self.path if self.path is not None else f"http://{self.authority}"


def address(text: str | os.PathLike[str]) -> Address:
    """The address that ``text`` names: ``http://host:port``, else the path of a Unix socket.

    Raises:
        UsageError: it is empty, too long for a socket, or a URL with more than scheme, host and port.
    """
    name = os.fspath(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name):
        return _url(name)
    if not name or "\0" in name:
        raise UsageError(f"expected the path of a service's socket, or a URL such as http://host:8080, got {name!r}")
    if (size := len(os.fsencode(name))) > _LONGEST_SOCKET:
        raise UsageError(f"{name}: a socket's path has at most {_LONGEST_SOCKET} bytes, this one has {size}")
    return Address(name)


def _url(text: str) -> Address:
    wrong = UsageError(f"expected a service's URL such as http://host:8080, without a path or a password, got {text!r}")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:  # no such port, or half an IPv6 address
        raise wrong from error
    bare = parts.path in ("", "/") and not (parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme == "https":
        raise UsageError(f"{text}: the service speaks plain HTTP; over a network, reach its socket through ssh -L")
    if parts.scheme != "http" or not parts.hostname or not bare or not text.isascii() or " " in text:
        raise wrong
    return Address(None, parts.hostname, port or 80)
