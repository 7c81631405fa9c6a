"""What the clients have in common: where the service is, how long it is waited for, and what its failures mean."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING, BinaryIO, Final

from edge_reclass.client import calls
from edge_reclass.client.address import Address, address
from edge_reclass.client.http import Answer, request_head
from edge_reclass.errors import ServiceBusyError, ServiceError, Status, TrackError, UsageError

if TYPE_CHECKING:
    from typing import Any

TIMEOUT: Final = 300.0
"""Seconds for one request; a track may wait for its turn, and a worker process has a limit of its own."""

PATIENCE: Final = 60.0
"""Seconds that a busy service is asked again, and that a stream of events is resumed."""

SILENCE: Final = 45.0
"""Seconds without a byte after which a stream of events counts as lost; the service pings each 15 s."""

CROWDED: Final = 0.05
"""Seconds until a socket with too many waiting connections is tried again."""

PIECE: Final = 64 * 1024
MOST_ANSWER: Final = 256 * 1024 * 1024
"""Bytes of an answer that is read at once."""


class BaseClient:
    """Address, token and patience of a client; see :class:`edge_reclass.client.Client`."""

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        *,
        url: str | None = None,
        token: str | None = None,
        timeout: float = TIMEOUT,
        patience: float = PATIENCE,
    ) -> None:
        if (socket is None) == (url is None):
            raise UsageError("expected the service's socket or its url, one of them")
        if url is not None and "://" not in url:
            raise UsageError(f"expected a service's URL such as http://host:8080, got {url!r}")
        self.address: Address = address(url if socket is None else socket)  # type: ignore[arg-type]
        self.timeout, self.patience = timeout, patience
        self._headers = {"Host": self.address.authority, "User-Agent": "edge-reclass", "Connection": "close"}
        if token is not None:
            if not token or not token.isascii() or not token.isprintable() or " " in token:
                raise UsageError("expected a token of printable ASCII without spaces")
            self._headers["Authorization"] = f"Bearer {token}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.address)!r})"

    def _head(self, call: calls.Call[Any], length: int | None) -> bytes:
        """The head of the request; None as ``length``: the body comes in chunks."""
        headers = {"Accept": calls.JSON} | self._headers | dict(call.headers)
        if length is None:
            headers["Transfer-Encoding"] = "chunked"
        elif length or call.method in ("POST", "PUT"):
            headers["Content-Length"] = str(length)
        return request_head(call.method, call.target, headers)

    def _unreachable(self, error: OSError) -> ServiceError:
        """What a failed connection means, and what to do."""
        where = self.address
        if isinstance(error, TimeoutError):
            return self._late()
        if where.path is not None and isinstance(error, FileNotFoundError):
            mend = f"; start it: edge-reclass serve --socket {where} --root FOLDER --state FILE"
            return ServiceError(f"{where}: no service is there (no such socket){mend}")
        if isinstance(error, ConnectionRefusedError):
            return ServiceError(f"{where}: no service listens there; has it been stopped?")
        if where.path is not None and isinstance(error, PermissionError):
            return ServiceError(f"{where}: you may not use this socket{_group(where.path)}")
        if isinstance(error, (BrokenPipeError, ConnectionResetError)):
            return ServiceError(f"the service at {where} closed the connection without an answer")
        return ServiceError(f"{where}: the service cannot be reached ({error.strerror or error})")

    def _late(self, seconds: float | None = None) -> ServiceError:
        return ServiceError(
            f"the service at {self.address} did not answer within {self.timeout if seconds is None else seconds:g} s"
        )

    def _too_large(self) -> ServiceError:
        return ServiceError(f"the service at {self.address} answers with more than {MOST_ANSWER} bytes")


def _group(path: str) -> str:
    """Who may use a socket, and how to become one of them."""
    import grp

    try:
        status = os.stat(path)  # noqa: PTH116
        if not status.st_mode & stat.S_IWGRP:
            return f" (mode {stat.S_IMODE(status.st_mode):o})"
        group = grp.getgrgid(status.st_gid).gr_name
    except (OSError, KeyError):
        return ""
    return f"; its group may: sudo adduser $USER {group}, then log in again"


class Retries:
    """How long a busy service is asked again."""

    def __init__(self, patience: float) -> None:
        self._until = time.monotonic() + patience

    def pause(self, error: ServiceError, answer: Answer) -> float:
        """Seconds until the request is sent again.

        Raises:
            ServiceError: ``error``, which is none that passes by waiting, or the patience is at its end.
        """
        left = self._until - time.monotonic()
        wanted = calls.seconds_to_wait(answer)
        if not isinstance(error, ServiceBusyError) or wanted is None or left <= 0:
            raise error
        return min(max(wanted, 0.05), left)


class Resuming:
    """When a stream of events that was lost is opened again."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._opened = False
        self._lost: float | None = None

    def opened(self) -> None:
        """The service has answered."""
        self._opened, self._lost = True, None

    def pause(self, error: ServiceError) -> float:
        """Seconds until the stream is opened again.

        Raises:
            ServiceError: ``error``: it was never open, or has been lost for too long.
        """
        now = time.monotonic()
        self._lost = now if self._lost is None else self._lost
        if not self._opened or now - self._lost >= self._patience:
            raise error
        return min(1.0, self._patience)


class Upload:
    """The body of a request, piece by piece; can be sent again where it can be wound back."""

    def __init__(self, body: bytes | BinaryIO) -> None:
        self.body = body
        self._start, self.length = _measure(body)
        self.again = isinstance(body, bytes) or body.seekable()
        """Whether it can be sent a second time."""
        self._left: int | None = 0

    def begin(self) -> None:
        """Go to the first piece."""
        self._left = self.length
        if not isinstance(self.body, bytes) and self.again:
            self.body.seek(self._start)

    def next(self) -> bytes:
        """The next piece as it is sent, ``b""`` behind the last; reads a file, which may take a while.

        Raises:
            TrackError: the file has become shorter since it was measured.
        """
        if self._left == 0:
            return b""
        if isinstance(self.body, bytes):
            self._left = 0
            return self.body
        piece = self.body.read(PIECE if self._left is None else min(PIECE, self._left))
        if self._left is None:
            self._left = None if piece else 0
            return _chunk(piece)
        if not piece:
            raise TrackError(Status.UNREADABLE, f"it became {self._left} bytes shorter while it was sent")
        self._left -= len(piece)
        return piece


def _measure(body: bytes | BinaryIO) -> tuple[int, int | None]:
    """Where a body begins, and its bytes from there; None where it cannot be measured, as of a pipe."""
    if isinstance(body, bytes):
        return 0, len(body)
    if not body.seekable():
        return 0, None
    start = body.tell()
    end = body.seek(0, os.SEEK_END)
    body.seek(start)
    return start, max(0, end - start)


def _chunk(piece: bytes) -> bytes:
    """A piece of a body in chunks."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)
