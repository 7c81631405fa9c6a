"""What the clients make of answers that a service does not give, and of services that are not there."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.scripted import answer, head, problem, saying, serving
from edge_reclass import Status, Verdict
from edge_reclass.client import AsyncClient, Client
from edge_reclass.errors import (
    RequestRefusedError,
    ServiceBusyError,
    ServiceError,
    TrackError,
    UsageError,
)
from edge_reclass.verdict import ExcerptSeen, ReasonCode, Score, StageReport, WindowsSeen

VERDICT = Verdict(
    "/music/a.mp3",
    Status.OK,
    "test",
    "ladder",
    genre="Rock",
    confidence=0.75,
    decided_by="mert",
    reason="because",
    reason_code=ReasonCode.ACCEPTED,
    top=(Score("Rock", 0.75),),
    stages=(StageReport("mert", "Rock", 0.75, 12.5, ExcerptSeen(0.0, 3.0), windows=WindowsSeen(1, 2)),),
    size=5,
    mtime_ns=7,
)
GOOD = answer("200 OK", VERDICT.to_json().encode(), "Content-Type: application/json")
BUSY = problem("503 Service Unavailable", b'{"type":"busy","title":"busy","detail":"8 tracks wait"}', "Retry-After: 0")


class Both:
    """Asks by one client or the other."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, path: str, method: str, *arguments: Any, timeout: float = 60, patience: float = 0) -> Any:
        if self.kind == "sync":
            return getattr(Client(path, timeout=timeout, patience=patience), method)(*arguments)
        client = AsyncClient(path, timeout=timeout, patience=patience)
        return asyncio.run(getattr(client, method)(*arguments))


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Both:
    return Both(request.param)


def test_a_verdict_is_the_same_verdict(ask: Both) -> None:
    with serving(saying(GOOD)) as service:
        assert ask(service.path, "classify", "/music/a.mp3") == VERDICT
    (request,) = service.requests
    first, _, body = request.partition(b"\r\n\r\n")
    lines = first.split(b"\r\n")
    assert lines[0] == b"POST /v1/classify HTTP/1.1"
    assert {b"Host: localhost", b"Content-Type: application/json", b"Connection: close"} <= set(lines)
    assert json.loads(body) == {"path": "/music/a.mp3"}


@pytest.mark.parametrize("size", [1, 7, 100])
def test_an_answer_may_come_in_chunks_and_pieces(ask: Both, size: int) -> None:
    body = VERDICT.to_json().encode()
    chunks = b"".join(
        b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in (body[i : i + 50] for i in range(0, len(body), 50))
    )
    whole = head("200 OK", "Transfer-Encoding: chunked") + chunks + b"0\r\nTrailer: x\r\n\r\n"
    whole = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + whole
    pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
    with serving(saying(*pieces)) as service:
        assert ask(service.path, "classify", "a.mp3") == VERDICT


def test_an_answer_without_a_length_ends_with_the_connection(ask: Both) -> None:
    with serving(saying(head("200 OK") + VERDICT.to_json().encode())) as service:
        assert ask(service.path, "classify", "a.mp3") == VERDICT


def test_a_name_that_is_not_utf8_goes_there_and_back(ask: Both) -> None:
    strange = Verdict("/music/\udcff.mp3", Status.SILENT, "test", "ladder")
    with serving(saying(answer("200 OK", strange.to_json().encode()))) as service:
        assert ask(service.path, "classify", b"/music/\xff.mp3".decode("utf-8", "surrogateescape")) == strange
    assert b'{"path_bytes":"L211c2ljL/8ubXAz"}' in service.requests[0]


HOSTILE = {
    "nothing": b"",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a header without a name": b"HTTP/1.1 200 OK\r\n: x\r\n\r\n{}",
    "a folded header": b"HTTP/1.1 200 OK\r\nA: x\r\n y\r\n\r\n{}",
    "a truncated body": answer("200 OK", VERDICT.to_json().encode())[:-20],
    "a length that is no number": head("200 OK", "Content-Length: -5") + b"12345",
    "a huge length": head("200 OK", "Content-Length: " + "9" * 400) + b"12345",
    "a coding that we did not ask for": head("200 OK", "Transfer-Encoding: gzip, chunked") + b"1",
    "a chunk without a size": head("200 OK", "Transfer-Encoding: chunked") + b"xyz\r\n",
    "a negative chunk": head("200 OK", "Transfer-Encoding: chunked") + b"-5\r\nhello\r\n0\r\n\r\n",
    "a chunk longer than it says": head("200 OK", "Transfer-Encoding: chunked") + b"2\r\nhello\r\n0\r\n\r\n",
    "chunks without an end": head("200 OK", "Transfer-Encoding: chunked") + b"2\r\n{}\r\n",
    "no JSON": answer("200 OK", b"<html>"),
    "no UTF-8": answer("200 OK", b"\xff\xfe"),
    "deep JSON": answer("200 OK", b"[" * 200_000),
    "JSON that is no verdict": answer("200 OK", b"[]"),
    "a verdict of the future": answer("200 OK", b'{"format": 2}'),
    "a verdict without a path": answer("200 OK", b'{"format": 1, "status": "ok", "bundle": "a", "policy": "b"}'),
    "a status of another program": answer("200 OK", VERDICT.to_json().replace('"ok"', '"fine"').encode()),
    "a wrong type": answer("200 OK", VERDICT.to_json().replace("0.75", '"0.75"').encode()),
    "stages that are none": answer("200 OK", VERDICT.to_json().replace('"excerpt"', '"other"').encode()),
    "500": answer("500 Internal Server Error", b"oh"),
    "a problem that is none": problem("500 Internal Server Error", b"[1, 2"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_an_error_of_the_service(ask: Both, name: str) -> None:
    with serving(saying(HOSTILE[name])) as service, pytest.raises(ServiceError) as caught:
        ask(service.path, "classify", "a.mp3")
    assert type(caught.value) is ServiceError
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    "begin",
    [b"HTTP/1.1 200 OK\r\nA: ", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;"],
    ids=["head", "chunk"],
)
def test_an_endless_line_is_not_read_to_its_end(ask: Both, begin: bytes) -> None:
    came = []

    def endless(connection: socket.socket) -> None:
        connection.sendall(begin)
        try:
            while True:
                came.append(connection.send(b"x" * 65536))
        except OSError:
            pass

    with serving(endless) as service, pytest.raises(ServiceError, match="more than 65536 bytes"):
        ask(service.path, "classify", "a.mp3")
    assert sum(came) < 16 * 1024 * 1024


def test_a_service_that_says_nothing_is_waited_for_no_longer_than_asked(ask: Both) -> None:
    with (
        serving(lambda connection: connection.recv(1) and None) as service,
        pytest.raises(ServiceError, match=r"0\.3 s"),
    ):
        ask(service.path, "classify", "a.mp3", timeout=0.3)


def test_a_service_that_drips_does_not_get_more_time(ask: Both) -> None:
    def slowly(connection: socket.socket) -> None:
        connection.settimeout(0.02)
        text = b"HTTP/1.1 200 OK\r\nA: " + b"x" * 60_000
        for i in range(len(text)):
            try:
                connection.sendall(text[i : i + 1])
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return

    with serving(slowly) as service, pytest.raises(ServiceError, match="did not answer within 1 s"):
        ask(service.path, "classify", "a.mp3", timeout=1)


def test_a_busy_service_is_asked_again(ask: Both) -> None:
    with serving(saying(BUSY), saying(BUSY), saying(GOOD)) as service:
        file = io.BytesIO(b"RIFFabcd")
        assert ask(service.path, "classify_stream", file, "a.wav", patience=60) == VERDICT
    assert [request.partition(b"\r\n\r\n")[2] for request in service.requests[:3]] == [b"RIFFabcd"] * 3


def test_a_service_that_stays_busy_is_said_to_be_so(ask: Both) -> None:
    with serving(saying(BUSY)) as service, pytest.raises(ServiceBusyError, match="8 tracks wait") as caught:
        ask(service.path, "classify", "a.mp3", patience=0.3)
    assert len(service.requests) >= 2
    assert (caught.value.status, caught.value.type, caught.value.detail) == (503, "busy", "8 tracks wait")


def test_what_cannot_be_sent_twice_is_not(ask: Both) -> None:
    there, here = os.pipe()
    with os.fdopen(here, "wb") as out:
        out.write(b"RIFF")
    with serving(saying(BUSY), saying(GOOD)) as service, os.fdopen(there, "rb") as pipe:
        with pytest.raises(ServiceBusyError):
            ask(service.path, "classify_stream", pipe, patience=60)
        assert b"Transfer-Encoding: chunked" in service.requests[0]


def test_a_refusal_has_the_service_s_own_words(ask: Both) -> None:
    body = b'{"type": "x/outside-roots", "title": "outside", "detail": "/etc/passwd is outside the roots"}'
    with serving(saying(problem("403 Forbidden", body))) as service, pytest.raises(RequestRefusedError) as caught:
        ask(service.path, "classify", "/etc/passwd")
    error = caught.value
    assert (error.status, error.type, error.title) == (403, "x/outside-roots", "outside")
    assert error.exit_code == 2
    assert "/etc/passwd is outside the roots (status 403)" in str(error)


def test_an_answer_before_the_end_of_the_request_counts(ask: Both) -> None:
    """As a service refuses a file that is too large: it answers, and reads no further."""
    body = problem("413 Content Too Large", b'{"detail": "at most 1 MB"}')
    with serving(saying(body)) as service, pytest.raises(RequestRefusedError, match="at most 1 MB"):
        service._read = lambda connection: connection.recv(65536)  # type: ignore[method-assign]
        ask(service.path, "classify_bytes", b"x" * 8_000_000)


def test_a_file_that_shrinks_is_no_track_of_zeros(ask: Both, tmp_path: Path) -> None:
    class Shrinking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return b""

    with serving(saying(GOOD)) as service, pytest.raises(TrackError, match="8 bytes shorter"):
        ask(service.path, "classify_stream", Shrinking(b"RIFFabcd"))


def test_samples_are_sent_as_they_are(ask: Both) -> None:
    for samples, query, body in (
        (np.array([[1, -2], [3, 4]], np.int16), b"rate=8000&channels=2&format=s16le", b"\1\0\xfe\xff\3\0\4\0"),
        (np.array([0.5], np.float64), b"rate=8000&channels=1&format=f32le", np.float32(0.5).tobytes()),
        (np.array([-(2**31)], np.int32), b"rate=8000&channels=1&format=f32le", np.float32(-1).tobytes()),
    ):
        with serving(saying(GOOD)) as service:
            ask(service.path, "classify_pcm", samples, 8000)
        assert service.requests[0].startswith(b"POST /v1/classify?" + query + b" HTTP/1.1\r\n")
        assert service.requests[0].endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize(
    "samples", [np.zeros((2, 2, 2)), np.zeros(3, bool), np.zeros((3, 0))], ids=["3-D", "bool", "none"]
)
def test_what_are_no_samples_is_not_sent(ask: Both, samples: Any) -> None:
    with pytest.raises(ValueError, match="samples"):
        ask("/nowhere", "classify_pcm", samples, 8000)


def test_a_service_that_is_not_there(ask: Both, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="edge-reclass serve --socket"):
        ask(f"{tmp_path}/s", "classify", "a.mp3")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead, serving(saying(GOOD)) as service:
        dead.bind(f"{service.path}.dead")
        with pytest.raises(ServiceError, match="has it been stopped"):
            ask(f"{service.path}.dead", "classify", "a.mp3")


def test_a_crowded_socket_is_waited_for(ask: Both) -> None:
    with serving(saying(GOOD)) as service, ExitStack() as open_ones:
        listener = open_ones.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(f"{service.path}.crowd")
        listener.listen(0)
        waiting = open_ones.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        waiting.connect(f"{service.path}.crowd")
        with pytest.raises(ServiceError, match="did not answer within"):
            ask(f"{service.path}.crowd", "classify", "a.mp3", timeout=0.3)

        def make_room() -> None:
            listener.accept()[0].close()
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(GOOD)

        room = threading.Timer(0.2, make_room)
        room.start()
        assert ask(f"{service.path}.crowd", "classify", "a.mp3") == VERDICT
        room.join(60)


def test_calls_of_many_tasks_run_at_the_same_time() -> None:
    """Each answer comes only when all requests are there."""
    all_there = threading.Barrier(5, timeout=60)

    async def five(path: str) -> list[Verdict]:
        client = AsyncClient(path)
        return await asyncio.gather(*(client.classify(f"{i}.mp3") for i in range(5)))

    def handle(connection: socket.socket) -> None:
        copy = connection.dup()

        def later() -> None:
            with copy:
                all_there.wait()
                copy.sendall(GOOD)

        threading.Thread(target=later, daemon=True).start()

    with serving(handle) as service:
        assert asyncio.run(five(service.path)) == [VERDICT] * 5


@pytest.mark.parametrize(
    "make",
    [
        lambda: Client(),
        lambda: Client(""),
        lambda: Client("/s", url="http://h"),
        lambda: Client("x" * 200),
        lambda: Client(url="ftp://h"),
        lambda: Client(url="http://user:secret@h"),
        lambda: Client(url="https://h"),
        lambda: Client(url="http://h/path"),
        lambda: Client(url="http://h:99999"),
        lambda: Client(url="http://[::1"),
        lambda: Client("/s", token="two words"),
        lambda: Client("/s", token="a\r\nHost: b"),
    ],
)
def test_a_client_that_cannot_be(make: Callable[[], Client]) -> None:
    with pytest.raises(UsageError):
        make()


def test_addresses_and_what_host_says() -> None:
    assert Client("/run/s").address.authority == "localhost"
    for url, authority in (
        ("http://h", "h"),
        ("http://h/", "h"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://[::1]:80", "[::1]"),
    ):
        client = Client(url=url)
        assert client.address.authority == authority
        assert repr(client) == f"Client('http://{authority}')"


def test_a_token_is_sent_and_not_shown() -> None:
    with serving(saying(GOOD)) as service:
        client = Client(service.path, token="secret")
        client.classify("a.mp3")
    assert b"\r\nAuthorization: Bearer secret\r\n" in service.requests[0]
    assert "secret" not in repr(client)
