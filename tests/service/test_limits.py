"""More than there is room for, bodies that are too large, too slow or never end, and a disk that is full."""

from __future__ import annotations

import os
import re
import select
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from served import Served, serving

LARGE = os.environ.get("EDGE_RECLASS_SERVICE_LARGE") == "1"
BYTES = {"Content-Type": "application/octet-stream"}
MIB = 1 << 20


@pytest.fixture(scope="module")
def narrow(tiny_bundle: Path, library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Room for 8 requests and 2 MiB."""
    folder = tmp_path_factory.mktemp("narrow")
    options = ("--root", library, "--state", folder / "a.state", "--bundle", tiny_bundle, "--workers", 1)
    with serving(folder, *options, "--queue", 8, "--max-upload-mb", 2) as served:
        yield served


def memory(served: Served) -> int:
    """Resident bytes of the service without its workers."""
    (found,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{served.process.pid}/status").read_text())
    return int(found) << 10


def spool(served: Served) -> list[Path]:
    (folder,) = served.log.parent.glob("*.spool")
    (own,) = folder.iterdir()  # of the one process
    return [path for path in own.iterdir() if path.name != "lock"]


def open_files(served: Served) -> list[str]:
    """What the service has open below its own folder."""
    folder = Path(f"/proc/{served.process.pid}/fd")
    found = []
    for name in list(folder.iterdir()):
        with suppress(FileNotFoundError):
            found.append(os.readlink(name))  # noqa: PTH115 - it may be no path
    return [
        target
        for target in found
        if (".spool" in target or "/edge-reclass-" in target) and not target.endswith("/lock")
    ]


def test_many_at_once_get_an_answer_or_are_told_when_to_come_again(narrow: Served, library: Path) -> None:
    path, content = str(library / "album/b.flac"), (library / "album/b.flac").read_bytes()

    def one(number: int) -> tuple[int, str]:
        if number % 2:
            answer = narrow.ask("POST", "/v1/classify", content, BYTES)
        else:
            answer = narrow.ask("POST", "/v1/classify", {"path": path})
        if answer.status == 503:
            assert answer.kind == "busy" and 1 <= int(answer.headers["retry-after"]) <= 60
        else:
            assert answer.json["status"] == "ok"
        return answer.status, ""

    for _ in range(3):  # so that what is only made once is there
        assert one(0)[0] == one(1)[0] == 200
    before = memory(narrow)
    count = 200 if LARGE else 40
    with ThreadPoolExecutor(count) as threads:
        statuses = [status for status, _ in threads.map(one, range(count))]
    grown = memory(narrow) - before
    print(f"{count} at once: {statuses.count(200)} × 200, {statuses.count(503)} × 503; {grown / MIB:.1f} MiB more")
    assert set(statuses) <= {200, 503} and statuses.count(200) >= 8
    assert 503 in statuses or not LARGE  # a slow machine sends 40 no faster than they are done
    assert grown < 64 * MIB
    assert spool(narrow) == [] and open_files(narrow) == []
    assert narrow.get("/health/ready").json["placed"] == 0
    assert one(0)[0] == 200


def endless(count: int, pieces: list[int]) -> Iterator[bytes]:
    """So many pieces of 64 KiB; counts what was taken."""
    piece = bytes(65536)
    while pieces[0] < count:
        pieces[0] += 1
        yield piece


def test_a_body_that_says_that_it_is_too_large_is_refused(narrow: Served) -> None:
    answer = narrow.ask("POST", "/v1/classify", bytes(2 * MIB + 1), BYTES)
    assert (answer.status, answer.kind) == (413, "too-large")
    assert narrow.ask("POST", "/v1/classify", bytes(2 * MIB), BYTES).status == 200
    answer = narrow.ask("POST", "/v1/classify", b" " * (2 * MIB), {"Content-Type": "application/json"})
    assert answer.kind == "too-large"
    assert spool(narrow) == [] and open_files(narrow) == []


@pytest.mark.parametrize("path", ["/v1/classify", "/v1/version", "/nothing"])
def test_a_body_that_never_ends_is_given_up(narrow: Served, path: str) -> None:
    """4 MiB are read to their end, so that any client sees the answer; of 2 GiB, only so much."""
    before = memory(narrow)
    for count in (64, 1 << 15):
        pieces = [0]
        connection = narrow.connect()
        try:
            connection.request("POST", path, endless(count, pieces), BYTES, encode_chunked=True)
        except (BrokenPipeError, ConnectionResetError):
            assert pieces[0] * 65536 < 64 * MIB
        else:
            assert count == 64
            assert connection.getresponse().status == {"/v1/classify": 413, "/v1/version": 405, "/nothing": 404}[path]
        connection.close()
    assert memory(narrow) - before < 64 * MIB
    assert spool(narrow) == [] and open_files(narrow) == []
    assert narrow.get("/health/ready").status == 200


def test_a_body_that_comes_too_slowly_is_given_up(
    tiny_bundle: Path, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 s are too long for a test: the service is told to wait for 1 s, by a sitecustomize of its own."""
    (tmp_path / "sitecustomize.py").write_text(
        "import edge_reclass_service.bodies as b, edge_reclass_service.protocol as p\n"
        "b.IDLE_SECONDS = p.HEAD_SECONDS = 1.0\n"
    )
    with serving(tmp_path, "--bundle", tiny_bundle, "--workers", 1, "--queue", 2, PYTHONPATH=str(tmp_path)) as served:

        def slow(sent: bytes) -> bytes:
            connection = served.connect()
            connection.connect()
            connection.sock.sendall(sent)
            answer = b""
            while more := connection.sock.recv(65536):
                answer += more
            connection.close()
            return answer

        head = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
        for sent in (
            head,
            b"",
            head + b"Content-Length: 100\r\n\r\nx",
            head + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
        ):
            answer = slow(sent)
            assert answer.startswith(b"HTTP/1.1 408") and b"too-slow" in answer, (sent, answer)
        # Who sends nothing holds a place for so long, and then no more.
        with ThreadPoolExecutor(2) as threads:
            assert len(list(threads.map(slow, [head + b"Content-Length: 100\r\n\r\nx"] * 2))) == 2
        assert served.ask("POST", "/v1/classify", (library / "a.wav").read_bytes(), BYTES).status == 200
        assert open_files(served) == []
        # It has no --root.
        assert served.ask("POST", "/v1/classify", {"path": str(library / "a.wav")}).kind == "outside-roots"


def test_a_client_that_goes_leaves_nothing(narrow: Served) -> None:
    connection = narrow.connect()
    connection.putrequest("POST", "/v1/classify")
    for name, value in {**BYTES, "Content-Length": "1000000"}.items():
        connection.putheader(name, value)
    connection.endheaders(b"x" * 500_000)
    narrow.wait_for(lambda: open_files(narrow) != [])
    connection.close()
    narrow.wait_for(lambda: open_files(narrow) == [] and narrow.get("/health/ready").json["receiving"] == 0)
    assert spool(narrow) == []


def test_no_space_is_said(tiny_bundle: Path, library: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import edge_reclass_service.uploads as u\nu.DISK_FREE = 1 << 60\n")
    options = ("--bundle", tiny_bundle, "--workers", 1)
    with serving(tmp_path, *options, ready=False, PYTHONPATH=str(tmp_path)) as served:
        served.wait_for(lambda: "ready: " in served.said())
        answer = served.ask("POST", "/v1/classify", (library / "a.wav").read_bytes(), BYTES)
        assert (answer.status, answer.kind) == (507, "no-space")
        ready = served.get("/health/ready")
        assert (ready.status, ready.kind) == (503, "not-ready") and "MiB are free" in ready.json["detail"]


def test_bodies_that_still_come_hold_no_place(narrow: Served, library: Path) -> None:
    """Of audio, twice as much is received at a time as there are places; a file is classified beside it."""
    stop, wanted = threading.Event(), {"path": str(library / "a.wav")}

    def dripping() -> Iterator[bytes]:
        yield b"x" * 500
        while not stop.wait(0.05):
            yield b"x" * 500

    with ThreadPoolExecutor(16) as threads:
        try:
            slow = [threads.submit(narrow.ask, "POST", "/v1/classify", dripping(), BYTES) for _ in range(16)]
            narrow.wait_for(lambda: narrow.get("/health/ready").json["receiving"] == 16)
            assert narrow.get("/health/ready").json["placed"] == 0
            answer = narrow.ask("POST", "/v1/classify", wanted)
            assert (answer.status, answer.json["status"]) == (200, "ok")
            for body in (b"x", b"x" * MIB):
                answer = narrow.ask("POST", "/v1/classify", body, BYTES)
                assert (answer.status, answer.kind) == (503, "busy")
                assert 1 <= int(answer.headers["retry-after"]) <= 60
        finally:
            stop.set()
        answers = [one.result() for one in slow]  # all end at once, for which there are half as many places
        assert {answer.status for answer in answers} <= {200, 503}
        assert {answer.json["status"] for answer in answers if answer.status == 200} == {"unsupported"}


def test_a_body_that_drips_is_given_up(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import edge_reclass_service.bodies as b\nb.IDLE_SECONDS = 1.0\n")
    with serving(tmp_path, "--bundle", tiny_bundle, "--workers", 1, PYTHONPATH=str(tmp_path)) as served:
        stop, connection = threading.Event(), served.connect()

        def dripping() -> Iterator[bytes]:
            while not stop.wait(0.05):
                yield b"x"

        drops = dripping()
        connection.putrequest("POST", "/v1/classify")
        for name, value in {**BYTES, "Content-Length": "1000000"}.items():
            connection.putheader(name, value)
        connection.endheaders()

        def given_up() -> bool:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.send(next(drops))
            return bool(select.select([connection.sock], [], [], 0)[0])

        served.wait_for(given_up)
        assert connection.getresponse().status == 408
        connection.close()


def test_an_answer_that_nobody_reads_is_cut_off(tiny_bundle: Path, tmp_path: Path) -> None:
    """Many requests in one, and no look at what comes back."""
    (tmp_path / "sitecustomize.py").write_text("import edge_reclass_service.protocol as p\np.WRITE_SECONDS = 1.0\n")
    with serving(tmp_path, "--bundle", tiny_bundle, "--workers", 1, PYTHONPATH=str(tmp_path)) as served:
        connection = served.connect()
        connection.connect()
        connection.sock.setblocking(False)

        def cut_off() -> bool:
            try:
                connection.sock.send(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                return True
            return False

        served.wait_for(cut_off)
        connection.close()
