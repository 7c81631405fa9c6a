"""A path, a file's bytes, or samples in; the verdict of the command line out."""

from __future__ import annotations

import base64
import json
import os
import socket
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import command
import synth
from edge_reclass import Cascade, Verdict
from served import Served

VARIES = ("at", "milliseconds")
BYTES = {"Content-Type": "application/octet-stream"}


def plain(verdict: dict[str, Any], *but: str) -> dict[str, Any]:
    """Without times of the clock, and without ``but``."""
    left = {key: value for key, value in verdict.items() if key not in (*VARIES, *but)}
    stages = [{k: v for k, v in stage.items() if k not in VARIES} for stage in verdict["stages"] or ()]
    return {**left, "stages": stages}


def by_command(bundle: Path, *paths: Path) -> list[dict[str, Any]]:
    options = ("--bundle", bundle, "--device", "cpu", "--workers", 0, "--format", "jsonl", "--top", 99)
    done = command.run("classify", *options, *paths)
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def spool_of(served: Served) -> list[str]:
    (spool,) = served.log.parent.glob("*.spool")
    (folder,) = spool.iterdir()  # of the one process
    return [path.name for path in folder.iterdir() if path.name != "lock"]


def test_a_path_gives_the_verdict_of_the_command_line(service: Served, library: Path, tiny_bundle: Path) -> None:
    paths = [library / name for name in ("a.wav", "album/b.flac", "album/c.ogg", "bad.mp3")]
    answers = [service.ask("POST", "/v1/classify", {"path": str(path)}) for path in paths]
    assert [answer.status for answer in answers] == [200] * 4
    got = [plain(answer.json) for answer in answers]
    assert got == [plain(verdict) for verdict in by_command(tiny_bundle, *paths)]
    assert got[0]["genre"] == "Alpha" and got[3]["status"] == "corrupt"
    assert Verdict.from_dict(answers[0].json).path == str(paths[0])
    assert spool_of(service) == []


def test_what_is_not_there_is_an_answer(service: Served, library: Path, tiny_bundle: Path) -> None:
    path = library / "album" / "nothing.mp3"
    answer = service.ask("POST", "/v1/classify", {"path": str(path)})
    assert answer.status == 200
    assert plain(answer.json) == plain(by_command(tiny_bundle, path)[0])
    assert answer.json["status"] == "missing"


def test_a_name_that_is_not_utf_8(service: Served, fenced: Path) -> None:
    name = os.fsencode(fenced) + b"/inside/caf\xe9.wav"
    try:
        os.link(fenced / "inside/good.wav", name)
    except OSError as error:
        pytest.skip(f"this file system takes only UTF-8: {error}")
    answer = service.ask("POST", "/v1/classify", {"path_bytes": base64.b64encode(name).decode()})
    assert (answer.status, answer.json["status"]) == (200, "ok")
    assert os.fsencode(answer.json["path"]) == name


def test_the_bytes_of_a_file_give_the_verdict_of_the_file(service: Served, library: Path) -> None:
    path = library / "album/b.flac"
    named = service.ask("POST", "/v1/classify", {"path": str(path)}).json
    headers = {**BYTES, "X-File-Name": urllib.parse.quote("ordner/höre.flac")}
    sent = service.ask("POST", "/v1/classify", path.read_bytes(), headers).json
    assert plain(sent, "path", "mtime_ns") == plain(named, "path", "mtime_ns")
    assert (sent["path"], sent["mtime_ns"], sent["size"]) == ("höre.flac", None, path.stat().st_size)
    content = path.read_bytes()
    pieces = (content[i : i + 5000] for i in range(0, len(content), 5000))
    unnamed = service.ask("POST", "/v1/classify", pieces, BYTES).json
    assert plain(unnamed, "path", "mtime_ns") == plain(named, "path", "mtime_ns")
    assert spool_of(service) == []


def test_the_suffix_of_a_name_means_what_it_does_on_the_disk(service: Served) -> None:
    """What is not recognised is corrupt if it is called audio, else no audio."""
    junk = b"no audio at all" * 100
    statuses = [
        service.ask("POST", "/v1/classify", junk, {**BYTES, "X-File-Name": name}).json["status"]
        for name in ("x.mp3", "x.txt", "../../etc/x.mp3", "%00", "")
    ]
    assert statuses == ["corrupt", "unsupported", "corrupt", "unsupported", "unsupported"]
    assert service.ask("POST", "/v1/classify", b"", BYTES).json["status"] == "empty"


@pytest.mark.parametrize("form", ["s16le", "f32le"])
@pytest.mark.parametrize(("rate", "channels"), [(22_050, 1), (44_100, 2)])
def test_samples_give_the_verdict_of_the_samples(
    service: Served, tiny_bundle: Path, form: str, rate: int, channels: int
) -> None:
    samples = synth.music(3.0, rate, channels, seed=5)
    samples = (samples * 32767).astype("<i2") if form == "s16le" else samples.astype("<f4")
    headers = {"Content-Type": "audio/pcm"}
    address = f"/v1/classify?rate={rate}&channels={channels}&format={form}"
    answer = service.ask("POST", address, samples.tobytes(), headers)
    assert answer.status == 200, answer.body
    with Cascade.open(tiny_bundle) as cascade:
        expected = cascade.classify_samples(samples, rate).to_dict()
    got = plain(answer.json)
    assert got == plain(json.loads(json.dumps(expected)))


def test_samples_that_are_no_samples(service: Served) -> None:
    headers = {"Content-Type": "audio/pcm"}
    good = "/v1/classify?rate=8000&channels=2&format=s16le"
    assert service.ask("POST", good, b"12345", headers).kind == "body"
    for query in ("", "?rate=8000&channels=2", "?rate=0&channels=2&format=s16le", "?rate=8000&channels=2&format=s24le"):
        assert service.ask("POST", f"/v1/classify{query}", b"1234", headers).kind == "query"
    assert service.ask("POST", f"{good}&rate=9000", b"1234", headers).kind == "query"
    assert service.ask("POST", good, b"", headers).json["status"] == "empty"
    nan = np.full(16_000, np.nan, "<f4").tobytes()
    answer = service.ask("POST", "/v1/classify?rate=8000&channels=1&format=f32le", nan, headers)
    assert answer.status == 200 and answer.json["genre"] is None


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"path": 1}', b'{"path": "a.wav"}', b"{}", b'{"path": "/a", "path_bytes": "L2E="}', b"\xff",
     b'{"path": "/a", "more": 1}', b'{"path_bytes": "no base64!"}'],
)  # fmt: skip
def test_a_body_that_says_nothing_is_refused(service: Served, body: bytes) -> None:
    answer = service.ask("POST", "/v1/classify", body, {"Content-Type": "application/json"})
    assert (answer.status, answer.kind in ("body", "path")) == (400, True)


def test_other_media_types_are_refused(service: Served) -> None:
    for kind in ("multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "text/plain"):
        assert service.ask("POST", "/v1/classify", b"x=1", {"Content-Type": kind}).status == 415
    assert service.ask("POST", "/v1/classify", b"x").kind == "media-type"


def test_a_link_within_the_root_is_followed(service: Served, fenced: Path) -> None:
    for name in ("inside/good.wav", "inside/link.wav", "inside/folder.wav/../good.wav"):
        assert service.ask("POST", "/v1/classify", {"path": f"{fenced}/{name}"}).json["status"] == "ok"


@pytest.mark.parametrize(
    "name",
    ["outside.wav", "inside2/outside.wav", "inside/../outside.wav", "inside/out.wav", "inside/up/outside.wav",
     "inside/up/not-there.wav", "inside/null.wav", "not-there.wav", "inside", "alias/good.wav", "inside/up"],
)  # fmt: skip
def test_what_lies_outside_of_the_roots_is_refused(service: Served, fenced: Path, name: str) -> None:
    answer = service.ask("POST", "/v1/classify", {"path": f"{fenced}/{name}"})
    assert (answer.status, answer.kind) == (403, "outside-roots")


def test_nothing_of_the_system_is_reached(service: Served) -> None:
    for path in ("/etc/passwd", "/dev/null", "/proc/self/environ", "/", "//etc/passwd"):
        assert service.ask("POST", "/v1/classify", {"path": path}).kind == "outside-roots"


def test_pipes_and_folders_are_no_tracks(service: Served, fenced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        monkeypatch.chdir(fenced / "inside")  # for the limit of a socket's path
        one.bind("socket.wav")
        for name in ("fifo.wav", "socket.wav"):
            answer = service.ask("POST", "/v1/classify", {"path": f"{fenced}/inside/{name}"})
            assert (answer.status, answer.kind) == (403, "not-a-file")
    answer = service.ask("POST", "/v1/classify", {"path": f"{fenced}/inside/folder.wav"})
    assert (answer.status, answer.kind) == (400, "not-a-file")
    answer = service.ask("POST", "/v1/classify", {"path": f"{fenced}/inside/loop.wav"})
    assert (answer.status, answer.json["status"]) == (200, "unreadable")
