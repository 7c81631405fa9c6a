"""HTTP/1.1 as far as a client of one service needs it, without any input or output.

One request for each connection (``Connection: close``): a service on this machine is reached at once, a connection
that went stale while it was kept is no case, and any number of threads may use one client.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from edge_reclass.errors import ServiceError

MOST_HEAD: Final = 64 * 1024
"""Bytes of an answer's head, and of any line in an answer."""

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request, with the empty line that ends it.

    Raises:
        ValueError: a name or value that does not fit into one header, such as one with a line break.
    """
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    for line in lines:
        if not line.isascii() or not line.isprintable():
            raise ValueError(f"expected printable ASCII in a header, got {line!r}")
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


class Answer:
    """An answer as it comes: ``feed`` takes bytes and gives what of the body they complete.

    ``status`` and ``headers`` (names in lower case) are there when ``begun`` is true, and nothing is missing when
    ``complete`` is. An answer without a length ends with the connection.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.begun = self.complete = False
        self._buffer = bytearray()
        self._step: Callable[[bytearray], bool] = self._head
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes, none (``b""``) where the connection has ended; the bytes of the body in them.

        Raises:
            ServiceError: this is no answer of HTTP/1, it is too large in its head, or it ended too early.
        """
        self._buffer += data
        body = bytearray()
        while not self.complete and self._step(body):
            pass
        if not data and not self.complete:
            if self._step != self._rest:
                where = "before the end of its answer" if self.begun else "without an answer"
                raise ServiceError(f"the service closed the connection {where}")
            self.complete = True
        return bytes(body)

    def _line(self) -> bytes | None:
        """The next line, None as long as its end is not there."""
        end = self._buffer.find(b"\n")
        if end < 0 and len(self._buffer) <= MOST_HEAD:
            return None
        if not 0 <= end <= MOST_HEAD:
            raise _wrong(f"a line of more than {MOST_HEAD} bytes")
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        return line

    def _head(self, _: bytearray) -> bool:
        end = re.search(rb"\r?\n\r?\n", self._buffer)
        if (len(self._buffer) if end is None else end.start()) > MOST_HEAD:
            raise _wrong(f"a head of more than {MOST_HEAD} bytes")
        if self._buffer and not self._buffer.startswith(b"HTTP/1."[: len(self._buffer)]):
            raise _wrong(repr(bytes(self._buffer[:40])))
        if end is None:
            return False
        first, *lines = re.split(rb"\r?\n", bytes(self._buffer[: end.start()]))
        del self._buffer[: end.end()]
        found = re.fullmatch(rb"HTTP/1\.\d ([1-5]\d\d)(?: .*)?", first)
        if found is None:
            raise _wrong(repr(first[:80]))
        if found.group(1).startswith(b"1"):  # 100 Continue: the answer itself follows
            return True
        self.status = int(found.group(1))
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not _TOKEN.fullmatch(name):
                raise _wrong(f"the header {line[:80]!r}")
            self.headers[name.decode().lower()] = value.strip().decode("latin-1")
        self.begun = True
        self._find_body()
        return True

    def _find_body(self) -> None:
        coding, length = self.headers.get("transfer-encoding", ""), self.headers.get("content-length")
        if self.status in (204, 304):
            self.complete = True
        elif coding:
            if coding.lower() != "chunked":
                raise _wrong(f"the transfer coding {coding[:40]!r}")
            self._step = self._size
        elif length is not None:
            if not re.fullmatch(r"\d{1,18}", length, re.ASCII):
                raise _wrong(f"the length {length[:40]!r}")
            self._left, self._step = int(length), self._counted
            self.complete = self._left == 0
        else:
            self._step = self._rest

    def _counted(self, body: bytearray) -> bool:
        self._take(body)
        self.complete = self._left == 0
        return False

    def _size(self, _: bytearray) -> bool:
        if (line := self._line()) is None:
            return False
        size = line.split(b";")[0].strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", size):
            raise _wrong(f"the size of a chunk {line[:40]!r}")
        self._left = int(size, 16)
        self._step = self._chunk if self._left else self._trailer
        return True

    def _chunk(self, body: bytearray) -> bool:
        self._take(body)
        if self._left or (line := self._line()) is None:
            return False
        if line:
            raise _wrong(f"a chunk that is longer than it says, by {line[:40]!r}")
        self._step = self._size
        return True

    def _trailer(self, _: bytearray) -> bool:
        line = self._line()
        self.complete = line == b""
        return line is not None

    def _rest(self, body: bytearray) -> bool:
        self._left = len(self._buffer)
        self._take(body)
        return False

    def _take(self, body: bytearray) -> None:
        part = self._buffer[: self._left]
        del self._buffer[: len(part)]
        self._left -= len(part)
        body += part


def _wrong(got: str) -> ServiceError:
    return ServiceError(f"expected an answer of a service (HTTP/1.1), got {got}; does something else listen there?")
