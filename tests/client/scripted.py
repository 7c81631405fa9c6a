"""A service that answers what a test tells it to, byte by byte: for answers that the real one never gives."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

Script = Callable[[socket.socket], None]


def head(status: str, *lines: str, length: int | None = None) -> bytes:
    sized = [] if length is None else [f"Content-Length: {length}"]
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *lines, *sized, "")).encode()


def answer(status: str, body: bytes, *lines: str) -> bytes:
    return head(status, *lines, length=len(body)) + body


def problem(status: str, body: bytes, *lines: str) -> bytes:
    return answer(status, body, "Content-Type: application/problem+json", *lines)


def saying(*pieces: bytes) -> Script:
    """Send these pieces and hang up."""

    def script(connection: socket.socket) -> None:
        with suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)

    return script


class Scripted:
    """Serves one connection after another, each by the next script, the last one for all that follow."""

    def __init__(self, path: str, scripts: list[Script]) -> None:
        self.path, self._scripts, self._ended = path, scripts, False
        self.requests: list[bytes] = []
        """Head and body (as far as it came with a length) of each request."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        number = 0
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(60)
                request = self._read(connection)
                if self._ended:
                    return
                self.requests.append(request)
                self._scripts[min(number, len(self._scripts) - 1)](connection)
                number += 1

    def _read(self, connection: socket.socket) -> bytes:
        data = b""
        with suppress(OSError):
            while b"\r\n\r\n" not in data:
                if not (piece := connection.recv(65536)):
                    return data
                data += piece
            first, _, body = data.partition(b"\r\n\r\n")
            lengths = [line for line in first.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            while lengths and len(body) < int(lengths[0].split(b":")[1]):
                if not (piece := connection.recv(65536)):
                    break
                body += piece
            return first + b"\r\n\r\n" + body
        return data

    def stop(self) -> None:
        self._ended = True
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
            last.connect(self.path)  # ends accept()
        self._thread.join(60)
        self._listener.close()


@contextmanager
def serving(*scripts: Script) -> Iterator[Scripted]:
    folder = tempfile.mkdtemp(prefix="er-")  # short: a socket's path has at most 107 bytes
    server = Scripted(f"{folder}/s", list(scripts))
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(Path(folder))
