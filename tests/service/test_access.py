"""Who may ask, over which transport, and from which page."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import command
from edge_reclass_service.access import Access, host_name
from served import PATIENCE, Served, serving

TOKEN = "0123456789abcdef-of-the-test"


@pytest.fixture(scope="module")
def over_tcp(tiny_bundle: Path, library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same service, asked over TCP; it wants a token there."""
    folder = tmp_path_factory.mktemp("tcp")
    (folder / "token").write_text(TOKEN + "\n")
    options = ("--root", library, "--bundle", tiny_bundle, "--workers", 1, "--listen", "127.0.0.1:0")
    with serving(folder, *options, "--token-file", folder / "token", "--allow-host", "music.example") as served:
        (served.address,) = re.findall(r"listening on http://(\S+)", served.said())
        yield served


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_name_that_is_not_ours_is_refused_on_a_unix_socket(service: Served) -> None:
    for host in ("localhost", "LOCALHOST", "localhost:80", "unix", "edge-reclass", ""):
        assert service.get("/health/live", Host=host).status == 200, host
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1", "[::1]", "evil.example:80", "localhost:80:80"):
        answer = service.get("/health/live", Host=host)
        assert (answer.status, answer.kind) == (400, "host"), host


def test_a_name_that_is_not_ours_is_refused_over_tcp(over_tcp: Served) -> None:
    port = (over_tcp.address or "").rpartition(":")[2]
    for host in (
        "localhost",
        f"localhost:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port}",
        "music.example",
        "Music.Example:80",
    ):
        assert over_tcp.get("/v1/version", Host=host, **bearer(TOKEN)).status == 200, host
    for host in ("evil.example", "", "127.0.0.2", "127.1", "2130706433", "[::1]", "unix", "evil.example:80"):
        answer = over_tcp.get("/v1/version", Host=host, **bearer(TOKEN))
        assert (answer.status, answer.kind) == (400, "host"), host


def test_tcp_wants_the_token(over_tcp: Served) -> None:
    for headers in ({}, bearer("wrong"), bearer(TOKEN[:-1]), bearer(""), {"Authorization": f"Basic {TOKEN}"},
                    {"Authorization": TOKEN}, bearer("ü"), {"Cookie": f"token={TOKEN}"}):  # fmt: skip
        for path in ("/v1/version", "/metrics", "/health/ready", "/openapi.json", "/nothing"):
            answer = over_tcp.get(path, **headers)
            assert (answer.status, answer.kind) == (401, "token"), headers
            assert answer.headers["www-authenticate"] == "Bearer"
    assert over_tcp.get(f"/v1/version?token={TOKEN}").status == 401
    assert over_tcp.get("/v1/version", **bearer(TOKEN)).status == 200
    assert over_tcp.get("/v1/version", Authorization=f"bearer {TOKEN}").status == 200
    assert over_tcp.get("/health/live").status == 200


def test_the_unix_socket_is_guarded_by_its_mode_alone(over_tcp: Served) -> None:
    assert Served(over_tcp.socket, over_tcp.process, over_tcp.log).get("/v1/version").status == 200


def test_a_page_of_another_site_changes_nothing(service: Served, library: Path) -> None:
    wanted = {"path": str(library / "a.wav")}
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                    {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://localhost:81"}):  # fmt: skip
        answer = service.ask("POST", "/v1/classify", wanted, headers)
        assert (answer.status, answer.kind) == (403, "origin"), headers
    for headers in ({"Origin": "http://localhost"}, {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}):
        assert service.ask("POST", "/v1/classify", wanted, headers).status == 200, headers


def test_nothing_invites_browsers(service: Served) -> None:
    answer = service.get("/v1/version", Origin="http://evil.example")
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert "set-cookie" not in answer.headers and answer.headers["x-content-type-options"] == "nosniff"
    assert service.ask("OPTIONS", "/v1/classify").status == 405


def test_all_errors_are_problems(service: Served) -> None:
    assert (service.get("/nothing").status, service.get("/nothing").kind) == (404, "not-found")
    assert service.get("/v1/classify").kind == "method"
    assert service.get("/v1/classify").headers["allow"] == "POST"
    for path in ("/v1/version/", "//v1/version", "/v1/%76ersion/..", "/openapi.json/../metrics"):
        assert service.get(path).kind == "not-found", path


@pytest.mark.parametrize(
    "sent",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000],
    ids=["no HTTP", "no Host", "no ASCII", "two Hosts", "large head"],
)  # fmt: skip
def test_what_is_no_request_is_a_problem_too(service: Served, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(PATIENCE)
        one.connect(str(service.socket))
        one.sendall(sent)
        answer = b""
        while more := one.recv(65536):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400"), answer
    assert b"application/problem+json" in head and body.startswith(b'{"type":"urn:edge-reclass:problem:')


@pytest.mark.parametrize(
    ("name", "address", "is_ours"),
    [("127.0.0.1", "::ffff:127.0.0.1", True), ("localhost", "::ffff:127.0.0.1", True), ("::1", "::1", True),
     ("192.0.2.7", "::ffff:192.0.2.7", True), ("192.0.2.8", "::ffff:192.0.2.7", False),
     ("localhost", "::ffff:192.0.2.7", False), ("evil.example", "::ffff:127.0.0.1", False)],
)  # fmt: skip
def test_ipv4_that_comes_to_an_ipv6_socket(name: str, address: str, is_ours: bool) -> None:
    settings: Any = SimpleNamespace(hosts=frozenset())
    assert Access(lambda *_: None, settings)._is_ours(name, address) is is_ours  # type: ignore[arg-type,return-value]


def test_names_of_hosts() -> None:
    given = ["a", "A:1", "[::1]", "[::1]:80", "::1", "a:b:c", "", " a "]
    assert [host_name(host) for host in given] == ["a", "a", "::1", "::1", "::1", "a:b:c", "", "a"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--listen", "0.0.0.0:0"), "--token-file"),
        (("--listen", "localhost"), "HOST:PORT"),
        (("--listen", "127.0.0.1:99999"), "HOST:PORT"),
        (("--token-file", "/no/such/file"), "--token-file"),
        (("--token-file", "SHORT"), "16"),
        (("--root", "SHORT"), "folder"),
        (("--group", "no such group"), "--group"),
        (("--socket", "SHORT"), "something else"),
        (("--socket", "/" + "x" * 200), "107"),
        (("--min-confidence", "2"), "--min-confidence"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    (tmp_path / "short").write_text("secret")
    given = [str(tmp_path / "short") if option == "SHORT" else option for option in options]
    done = command.run("serve", "--socket", tmp_path / "s.sock", "--spool", tmp_path / "spool", *given)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not (tmp_path / "s.sock").exists()
