"""The clients against a real service: every way gives the verdict that the cascade itself gives."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from client.same import timeless, unnamed
from command import run
from edge_reclass import Cascade, Status, Verdict
from edge_reclass.client import AsyncClient, Client
from edge_reclass.errors import RequestRefusedError


@pytest.fixture(scope="module")
def cascade(tiny: Path) -> Iterator[Cascade]:
    with Cascade.open(tiny) as opened:
        yield opened


def test_the_service_says_what_it_is(socket_path: str) -> None:
    version = Client(socket_path).version()
    assert (version.bundle.name, version.bundle.genres) == ("test", ("Alpha", "Beta", "Gamma"))
    assert (version.bundle.stages, version.workers) == (("fma", "mert"), 1)
    assert asyncio.run(AsyncClient(socket_path).version()) == version
    assert Client(socket_path).ready()["status"] == "ready"


def test_every_way_gives_the_verdict_of_the_cascade(socket_path: str, cascade: Cascade, music: Path) -> None:
    client, tracks = Client(socket_path), sorted(music.iterdir())
    assert len(tracks) == 4
    for track in tracks:
        expected = cascade.classify(track)
        assert timeless(client.classify(track)) == timeless(expected)
        content = track.read_bytes()
        assert unnamed(client.classify_bytes(content, track.name)) == unnamed(expected)
        with track.open("rb") as file:
            sent = client.classify_stream(file, str(track))
        assert (sent.path, unnamed(sent)) == (track.name, unnamed(expected))
    assert client.classify(music / "bad.mp3").failed


def test_samples_give_the_verdict_of_their_file(socket_path: str, cascade: Cascade, music: Path) -> None:
    samples, rate = soundfile.read(music / "a.wav", dtype="int16")
    expected = unnamed(cascade.classify_samples(samples, rate))
    assert unnamed(Client(socket_path).classify_pcm(samples, rate)) == expected
    assert unnamed(Client(socket_path).classify_pcm(samples.astype("float32") / 2**15, rate)) == expected


def test_asyncio_gives_the_same(socket_path: str, cascade: Cascade, music: Path) -> None:
    async def ask() -> list[Verdict]:
        client = AsyncClient(socket_path)
        with (music / "a.wav").open("rb") as file:
            return await asyncio.gather(
                *(client.classify(track) for track in sorted(music.iterdir())),
                client.classify_bytes((music / "a.wav").read_bytes()),
                client.classify_stream(file),
            )

    *named, content, stream = asyncio.run(ask())
    assert [timeless(one) for one in named] == [timeless(cascade.classify(track)) for track in sorted(music.iterdir())]
    assert unnamed(content) == unnamed(stream) == unnamed(cascade.classify(music / "a.wav"))


def test_what_is_below_no_root_is_refused(socket_path: str, elsewhere: Path) -> None:
    with pytest.raises(RequestRefusedError, match="--root") as caught:
        Client(socket_path).classify(elsewhere)
    assert (caught.value.status, caught.value.type.rpartition(":")[2]) == (403, "outside-roots")


def rows(text: str) -> list[Verdict]:
    return [timeless(Verdict.from_dict(json.loads(line))) for line in text.splitlines()]


@pytest.mark.parametrize("more", [[], ["--send-files"]], ids=["paths", "content"])
def test_the_command_says_the_same_with_a_service(socket_path: str, tiny: Path, music: Path, more: list[str]) -> None:
    remote = run("classify", "--remote", socket_path, *more, music, "-f", "jsonl", "--top", 3)
    local = run("classify", "--bundle", tiny, music, "-f", "jsonl", "--top", 3)
    assert (remote.returncode, local.returncode) == (3, 3), remote.stderr
    assert rows(remote.stdout) == rows(local.stdout)
    assert f"service: {socket_path} (edge-reclass" in remote.stderr
    assert "4 tracks in" in remote.stderr and "decided by: mert 3 (100%)" in remote.stderr


def test_the_table_and_the_exit_code_are_the_same(socket_path: str, tiny: Path, music: Path, tmp_path: Path) -> None:
    files = [music / "a.wav", music / "b.flac"]
    remote = run("classify", "--remote", socket_path, *files)
    assert (remote.returncode, remote.stdout) == (0, run("classify", "--bundle", tiny, *files).stdout)
    out = tmp_path / "out.csv"
    assert run("classify", "--remote", socket_path, *files, "-f", "csv", "-o", out).returncode == 0
    assert out.read_text().count("\r\n" if "\r\n" in out.read_text() else "\n") == 3


def test_a_file_that_the_service_may_not_read_is_said_to_be_so(socket_path: str, elsewhere: Path, music: Path) -> None:
    done = run("classify", "--remote", socket_path, elsewhere, music / "a.wav")
    assert done.returncode == 3
    assert "unreadable" in done.stdout and "--send-files" in done.stdout and "Alpha" in done.stdout
    sent = run("classify", "--remote", socket_path, elsewhere, "--send-files")
    assert (sent.returncode, "Alpha" in sent.stdout) == (0, True)


def test_files_that_cannot_be_sent_have_the_statuses_of_the_cascade(
    socket_path: str, tiny: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "dangling.wav").symlink_to("nowhere")
    names = [tmp_path / "pipe.wav", tmp_path / "dangling.wav", tmp_path / "none.wav"]
    remote = run("classify", "--remote", socket_path, "--send-files", *names)
    assert (remote.returncode, remote.stdout) == (3, run("classify", "--bundle", tiny, *names).stdout)


@pytest.mark.parametrize(
    "options",
    [["--bundle", "x"], ["--device", "cpu"], ["--state", "x"], ["--workers", "2"], ["--min-confidence", "0"]],
    ids=lambda options: options[0],
)
def test_what_the_service_decides_is_refused(options: list[str], tmp_path: Path) -> None:
    done = run("classify", "--remote", "/nowhere", tmp_path, *options)
    assert done.returncode == 2
    assert f"{options[0]}: the service decides that" in done.stderr


def test_a_service_that_is_not_there_is_exit_code_5(music: Path, tmp_path: Path) -> None:
    done = run("classify", "--remote", tmp_path / "none.sock", music)
    assert (done.returncode, done.stdout) == (5, "")
    assert "edge-reclass serve --socket" in done.stderr


def test_send_files_goes_with_remote(music: Path) -> None:
    assert run("classify", music, "--send-files").returncode == 2


def test_over_tcp_with_a_token(tiny: Path, elsewhere: Path, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="the service needs the extra [service]")
    from served import serving

    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef\n")
    token.chmod(0o600)
    options = ("--bundle", tiny, "--workers", 1, "--listen", "127.0.0.1:0", "--token-file", token)
    with serving(tmp_path, *options) as served:
        found = re.search(r"listening on http://(127\.0\.0\.1:\d+)", served.said())
        assert found, served.said()
        url = f"http://{found.group(1)}"
        good = Client(url=url, token=token.read_text().strip())
        assert good.classify_bytes(elsewhere.read_bytes()).status == Status.OK
        with pytest.raises(RequestRefusedError, match="it wants a token"):
            Client(url=url).version()
        done = run("classify", "--remote", url, "--token-file", token, "--send-files", elsewhere)
        assert done.returncode == 0, done.stderr
        assert run("classify", "--remote", url, "--send-files", elsewhere).returncode == 2
