"""A real ``edge-reclass serve`` in a process of its own, on a Unix socket, and plain HTTP to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 120.0
"""Seconds for whatever has to come about on a slow machine."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float = PATIENCE) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        """The last part of a problem's type."""
        assert self.headers["content-type"] == "application/problem+json", (self.status, self.body)
        assert self.json["status"] == self.status
        return str(self.json["type"]).rpartition(":")[2]


@dataclass
class Served:
    """A running service."""

    socket: Path
    process: subprocess.Popen[bytes]
    log: Path
    address: str | None = None
    """HOST:PORT where it listens on TCP, too."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every request."""

    def connect(self) -> http.client.HTTPConnection:
        return (
            UnixConnection(self.socket)
            if self.address is None
            else http.client.HTTPConnection(self.address, timeout=PATIENCE)
        )

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask once; a body that is neither bytes nor an iterator of bytes is sent as JSON."""
        sent = {**self.headers, **(headers or {})}
        if body is not None and not isinstance(body, (bytes, Iterator)):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = self.connect()
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # it answers before it has read all
                connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, came: Callable[[], object], patience: float = PATIENCE) -> None:
        """Wait until ``came`` says so."""
        until = time.monotonic() + patience
        while not came():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < until, f"it did not come within {patience:.0f} s: {self.said()}"
            time.sleep(0.02)

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            try:
                return self.get("/health/ready").status == 200
            except (OSError, http.client.HTTPException):
                return False

        self.wait_for(ready, 2 * PATIENCE)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it with a signal; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def serving(
    folder: Path, *arguments: object, ready: bool = True, at: Path | None = None, **environ: str
) -> Iterator[Served]:
    """``edge-reclass serve`` with these arguments; ended in the end, whatever became of it.

    ``folder`` is for its log; the socket, unless it is ``at`` a path, has a short one, for the kernel's limit.
    """
    with tempfile.TemporaryDirectory(prefix="er-") as short:
        path, log = at or Path(short, "s.sock"), folder / f"serve-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "edge_reclass", "serve", "--socket", path, "--device", "cpu", *arguments]
        with log.open("wb") as file:
            process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environ},
            )
        served = Served(path, process, log)
        try:
            if ready:
                served.wait_until_ready()
            yield served
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(PATIENCE)
