"""sd_notify: what arrives at a real datagram socket, and what never disturbs the work."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_reclass.run import notify


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(path))
        channel.settimeout(5)
        yield channel, {notify.NOTIFY_VARIABLE: str(path)}


def received(channel: socket.socket) -> str:
    return channel.recv(4096).decode()


def test_each_message_arrives_as_one_datagram(listener: tuple[socket.socket, dict[str, str]]) -> None:
    channel, environ = listener
    assert notify.ready("3 stages open", environ)
    assert received(channel) == "READY=1\nSTATUS=3 stages open"
    assert notify.alive(environ=environ)
    assert received(channel) == "WATCHDOG=1"
    assert notify.stopping(environ=environ)
    assert received(channel) == "STOPPING=1"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract sockets are Linux's")
def test_an_abstract_socket(tmp_path: Path) -> None:
    name = f"edge-reclass-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("\0" + name)
        channel.settimeout(5)
        assert notify.alive(environ={notify.NOTIFY_VARIABLE: "@" + name})
        assert received(channel) == "WATCHDOG=1"


def test_without_the_variable_no_socket_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    assert not notify.ready(environ={})
    assert not notify.alive("text", environ={notify.NOTIFY_VARIABLE: ""})
    assert not notify.alive(environ={notify.NOTIFY_VARIABLE: "vsock:2:1234"})


def test_a_socket_that_is_gone_or_full_is_no_error(
    tmp_path: Path, listener: tuple[socket.socket, dict[str, str]]
) -> None:
    assert not notify.alive(environ={notify.NOTIFY_VARIABLE: str(tmp_path / "nobody")})
    assert not notify.alive(environ={notify.NOTIFY_VARIABLE: "/" + "x" * 500})
    _, environ = listener
    delivered = [notify.alive(environ=environ) for _ in range(5000)]  # nobody reads: it must not wait
    assert delivered[0]
    assert not delivered[-1]


def test_a_status_stays_one_short_line(listener: tuple[socket.socket, dict[str, str]]) -> None:
    channel, environ = listener
    name = b"caf\xe9.mp3".decode("utf-8", "surrogateescape")
    assert notify.alive(f"at {name}\nSTOPPING=1 " + "x" * 1000, environ)
    first, second = received(channel).split("\n")
    assert first == "WATCHDOG=1"
    assert second.startswith("STATUS=at caf?.mp3 STOPPING=1 x")
    assert len(second) == len("STATUS=") + 200


@pytest.mark.parametrize("line", ["READY", "STATUS=a\nSTOPPING=1"])
def test_what_is_no_assignment_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="expected NAME=value"):
        notify.send(line, environ={})


def test_the_real_environment_is_read_when_it_is_called(listener: tuple[socket.socket, dict[str, str]]) -> None:
    channel, environ = listener
    script = "from edge_reclass.run import notify; raise SystemExit(not notify.ready('up'))"
    runtime = Path(notify.__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        env={**os.environ, "PYTHONPATH": str(runtime), **environ},
        timeout=60,
    )
    assert received(channel) == "READY=1\nSTATUS=up"
