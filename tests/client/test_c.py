"""The C client: compiled without a warning, run against a real service and against hostile answers, with sanitizers."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.same import timeless, unnamed
from client.scripted import answer, head, saying, serving
from client.test_answers import BUSY, GOOD, HOSTILE, VERDICT
from edge_reclass import Cascade, Verdict

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "clients" / "c"
WARNINGS = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def compiled(folder: Path, main: Path, sanitized: bool) -> Path:
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang)")
    program = folder / f"{main.stem}-{sanitized}"
    files = [str(main), str(SOURCE / "edge-reclass.c"), f"-I{SOURCE}", "-o", str(program)]
    if sanitized:
        (folder / "try.c").write_text("int main(void) { return 0; }\n")
        tried = subprocess.run(
            [compiler, *SANITIZERS, str(folder / "try.c"), "-o", str(folder / "try")], capture_output=True, check=False
        )
        if tried.returncode or subprocess.run([str(folder / "try")], capture_output=True, check=False).returncode:
            pytest.skip("the compiler has no sanitizers here")
    done = subprocess.run(
        [compiler, *WARNINGS, *(SANITIZERS if sanitized else []), *files],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return program


both = pytest.fixture(scope="module", params=[False, True], ids=["plain", "sanitized"])


@both
def classify(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("c"), SOURCE / "classify.c", request.param)


@both
def values(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("c"), Path(__file__).with_name("c_values.c"), request.param)


def call(program: Path, *words: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    arguments = [os.fsencode(str(word)) for word in words]
    done = subprocess.run([program, *arguments], capture_output=True, check=False, timeout=120, **options)
    assert b"Sanitizer" not in done.stderr and b"runtime error" not in done.stderr, done.stderr
    return done


def test_it_says_what_the_cascade_says(classify: Path, socket_path: str, tiny: Path, music: Path) -> None:
    tracks = sorted(music.iterdir())
    paths = call(classify, socket_path, "-j", *tracks)
    content = call(classify, socket_path, "-j", "-s", *tracks)
    assert (paths.returncode, content.returncode) == (3, 3), (paths.stderr, content.stderr)
    with Cascade.open(tiny) as cascade:
        expected = [cascade.classify(track) for track in tracks]
    said = [Verdict.from_dict(json.loads(line)) for line in paths.stdout.splitlines()]
    assert [timeless(one) for one in said] == [timeless(one) for one in expected]
    sent = [Verdict.from_dict(json.loads(line)) for line in content.stdout.splitlines()]
    assert [unnamed(one) for one in sent] == [unnamed(one) for one in expected]


def test_an_arm64_program_says_the_same(socket_path: str, tiny: Path, music: Path, tmp_path: Path) -> None:
    """As docs/clients.md builds it for a board; run here by qemu's user mode."""
    compiler, qemu = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64-static")
    if compiler is None or qemu is None:
        pytest.skip("needs aarch64-linux-gnu-gcc and qemu-aarch64-static")
    program, files = tmp_path / "classify", [str(SOURCE / name) for name in ("classify.c", "edge-reclass.c")]
    subprocess.run([compiler, *WARNINGS, "-static", *files, "-o", str(program)], check=True, timeout=300)
    tracks = [music / "a.wav", music / "b.flac"]
    done = call(Path(qemu), program, socket_path, "-j", *tracks)
    assert done.returncode == 0, done.stderr
    with Cascade.open(tiny) as cascade:
        expected = [timeless(cascade.classify(track)) for track in tracks]
    assert [timeless(Verdict.from_dict(json.loads(line))) for line in done.stdout.splitlines()] == expected


def test_its_lines_are_for_people(classify: Path, socket_path: str, music: Path) -> None:
    done = call(classify, socket_path, music / "a.wav", "b.flac", cwd=music)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.decode().splitlines()
    assert re.fullmatch(r"ok\tAlpha\t\d\.\d\d\t.*a\.wav", first)
    assert re.fullmatch(r"ok\tAlpha\t\d\.\d\d\tb\.flac", second)


def test_what_cannot_be_classified(classify: Path, socket_path: str, elsewhere: Path, music: Path) -> None:
    done = call(classify, socket_path, elsewhere, music / "a.wav")
    assert (done.returncode, done.stdout.count(b"\n")) == (3, 1)
    assert b"--root" in done.stderr
    assert call(classify, socket_path, "-s", elsewhere).returncode == 0
    missing = call(classify, socket_path, "-s", "/nowhere")
    assert (missing.returncode, b"cannot be read" in missing.stderr) == (3, True)
    assert call(classify, socket_path, "-s", music).returncode == 3, "a folder"
    nobody = call(classify, "/nowhere", music / "a.wav")
    assert (nobody.returncode, b"cannot be reached" in nobody.stderr) == (5, True)
    long = call(classify, "/" + "x" * 200, music / "a.wav")
    assert (long.returncode, b"at most" in long.stderr) == (5, True)
    assert call(classify, socket_path).returncode == 2


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_ends_in_a_message(classify: Path, name: str) -> None:
    """Bodies are the caller's to read: they are handed over as they are, whole, or not at all."""
    with serving(saying(HOSTILE[name])) as service:
        done = call(classify, service.path, "-j", "a.mp3")
    if HOSTILE[name].startswith(b"HTTP/1.1 200 OK\r\n") and done.returncode == 0:
        assert done.stdout.rstrip(b"\n") == HOSTILE[name].partition(b"\r\n\r\n")[2].rstrip(b"\n")
    else:
        assert done.returncode in (3, 5) and done.stderr and not done.stdout


def test_a_busy_service_is_asked_again(classify: Path) -> None:
    with serving(saying(BUSY), saying(BUSY), saying(GOOD)) as service:
        done = call(classify, service.path, "-j", "/music/a.mp3")
    assert done.returncode == 0, done.stderr
    assert Verdict.from_dict(json.loads(done.stdout)) == VERDICT
    assert len(service.requests) == 3


@pytest.mark.parametrize(
    "name", ["plain", "ü–𝄞", '"\\', "a\nb\x01", "\udcff", "ü\udcc3", "\udced\udca0\udc80", "\udcf4\udc90\udc80\udc80"]
)
def test_paths_are_sent_as_they_are(classify: Path, name: str) -> None:
    with serving(saying(GOOD)) as service:
        call(classify, service.path, f"/m/{name}")
    sent = json.loads(service.requests[0].partition(b"\r\n\r\n")[2])
    try:
        assert f"/m/{name}".encode() and sent == {"path": f"/m/{name}"}
    except UnicodeEncodeError:
        assert base64.b64decode(sent["path_bytes"]) == os.fsencode(f"/m/{name}")


def test_an_endless_answer_is_not_kept(classify: Path) -> None:
    def endless(connection: Any) -> None:
        try:
            connection.sendall(head("200 OK"))
            while True:
                connection.sendall(b"x" * 65536)
        except OSError:
            pass

    with serving(endless) as service:
        done = call(classify, service.path, "a.mp3")
    assert (done.returncode, b"more than" in done.stderr) == (5, True)


HURRY = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
"""A fixture for all examples is meant, and 40 objects take long to make where others have the processor."""

keys = st.sampled_from(["path", "genre", "a", "error"])
scalars = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9) | st.text(max_size=8)
nested = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


def asked(program: Path, pairs: list[tuple[str, str]], *words: object) -> list[list[str]]:
    sent = b"".join(f"{text}\0{key}\0".encode() for text, key in pairs)
    done = call(program, *words, input=sent)
    assert done.returncode == 0, done.stderr
    return [line.split(" ") for line in done.stdout.decode().splitlines()]


@settings(max_examples=10, suppress_health_check=HURRY)
@given(
    objects=st.lists(st.tuples(st.dictionaries(keys, nested, max_size=4), keys, st.booleans()), min_size=1, max_size=40)
)
def test_values_are_what_json_says(values: Path, objects: list[tuple[dict[str, Any], str, bool]]) -> None:
    pairs = [
        (json.dumps(one, ensure_ascii=escaped, indent=2 if escaped else None), key) for one, key, escaped in objects
    ]
    found = asked(values, pairs)
    assert len(found) == len(pairs)
    for (one, key, _), (has_text, text, has_number, number) in zip(objects, found, strict=True):
        value = one.get(key)
        if isinstance(value, str) and "\0" not in value:
            assert (has_text, bytes.fromhex(text).decode()) == ("1", value)
        else:
            assert has_text == "0"
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            assert (has_number, float(number)) == ("1", float(value))
        else:
            assert has_number == "0"


def test_a_text_that_does_not_fit_and_one_that_is_not_utf8(values: Path) -> None:
    assert asked(values, [('{"a": "1234567"}', "a")], 8)[0][:2] == ["1", b"1234567".hex()]
    assert asked(values, [('{"a": "12345678"}', "a")], 8)[0][:2] == ["-1", ""]
    assert asked(values, [('{"a": "ü"}', "a")], 0)[0][:2] == ["-1", ""]
    assert asked(values, [('{"a": "x\\udcff"}', "a")])[0][:2] == ["1", "78ff"]


@settings(max_examples=10, suppress_health_check=HURRY)
@given(texts=st.lists(st.text(alphabet='{}[]",:\\u0aD8d c1-e.', max_size=30), min_size=1, max_size=100))
def test_what_is_no_json_harms_nothing(values: Path, texts: list[str]) -> None:
    assert len(asked(values, [(text, "a") for text in texts] + [(f'{{"a":{text}', "a") for text in texts])) == 2 * len(
        texts
    )


def test_an_answer_with_a_wrong_length_is_cut_off_not_read(classify: Path) -> None:
    with serving(saying(answer("200 OK", b"{}")[:-1])) as service:
        done = call(classify, service.path, "-j", "a.mp3")
    assert (done.returncode, b"before the end" in done.stderr) == (5, True)
