"""Signals, kills, workers that hang or die, encoders that rest, and what systemd hands over and is told."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import command
from edge_reclass.installing import install_command
from served import PATIENCE, Served, serving

LARGE = os.environ.get("EDGE_RECLASS_SERVICE_LARGE") == "1"
BYTES = {"Content-Type": "application/octet-stream"}

# A decoder that hangs or dies over files with these suffixes.
DECODER = """
import os, time
import edge_reclass.audio.decode as decode
was = decode.open_regular
def opened(path):
    if str(path).endswith(".hang"):
        time.sleep(3600)
    if str(path).endswith(".die"):
        os.abort()
    return was(path)
decode.open_regular = opened
"""


def test_idle_it_ends_at_once_and_takes_its_socket_along(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tmp_path, "--bundle", tiny_bundle, "--workers", 1) as served:
        assert stat.S_IMODE(served.socket.stat().st_mode) == 0o660
        kept = served.connect()
        kept.request("GET", "/health/live")
        assert kept.getresponse().read()  # and stays connected
        began = time.monotonic()
        assert served.stop(signal.SIGTERM) == 0
        took = time.monotonic() - began
        print(f"idle stop: {took:.2f} s")
        kept.close()
        assert took < (3 if LARGE else PATIENCE)
        assert not served.socket.exists()


@pytest.fixture
def spoilt(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "sitecustomize.py").write_text(DECODER)
    return {"PYTHONPATH": str(tmp_path)}


def a_decoder_that_dies_costs_its_own_track(served: Served, content: bytes) -> None:
    """And all of it is counted."""
    answer = served.ask("POST", "/v1/classify", content, {**BYTES, "X-File-Name": "a.die"})
    assert (answer.status, answer.json["status"], answer.json["path"]) == (200, "crashed", "a.die")
    assert served.ask("POST", "/v1/classify", content, BYTES).json["status"] == "ok"
    metrics = served.get("/metrics").body.decode()
    assert 'edge_reclass_tracks_total{stage="",status="crashed"} 1.0' in metrics
    assert 'edge_reclass_tracks_total{stage="mert",status="ok"} 1.0' in metrics
    assert 'edge_reclass_requests_total{code="200",method="POST",route="/v1/classify"} 2.0' in metrics
    assert re.search(r'edge_reclass_stage_seconds_count\{stage="fma"\} 1\.0', metrics)
    assert f"edge_reclass_received_bytes_total {float(2 * len(content))}" in metrics
    assert "edge_reclass_queue_length 0.0" in metrics


def test_with_tracks_at_work_it_ends_soon_and_answers_all(
    tiny_bundle: Path, library: Path, tmp_path: Path, spoilt: dict[str, str]
) -> None:
    """One that never ends, two that wait, and a body that is still coming."""
    content = (library / "a.wav").read_bytes()
    options = ("--bundle", tiny_bundle, "--workers", 1, "--state", tmp_path / "a.state")
    with serving(tmp_path, *options, **spoilt) as served, ThreadPoolExecutor(4) as threads:
        a_decoder_that_dies_costs_its_own_track(served, content)
        assert str(tmp_path) not in served.get("/metrics").body.decode()
        hanging = [threads.submit(served.ask, "POST", "/v1/classify", content, {**BYTES, "X-File-Name": "a.hang"})]
        served.wait_for(lambda: served.get("/health/ready").json["placed"] == 1)
        waiting = [threads.submit(served.ask, "POST", "/v1/classify", content, BYTES) for _ in range(2)]
        served.wait_for(lambda: served.get("/health/ready").json["placed"] == 3)
        coming = served.connect()
        coming.putrequest("POST", "/v1/classify")
        for name, value in {**BYTES, "Content-Length": "1000000"}.items():
            coming.putheader(name, value)
        coming.endheaders(b"x" * 100)
        served.wait_for(lambda: served.get("/health/ready").json["receiving"] == 1)
        began = time.monotonic()
        assert served.stop(signal.SIGTERM) == 0, served.said()
        took = time.monotonic() - began
        print(f"stop with a hanging track, two waiting and one coming: {took:.2f} s")
        assert took < (10 if LARGE else PATIENCE)
        for answer in [one.result() for one in (*hanging, *waiting)]:
            assert (answer.status, answer.kind) == (503, "stopping")
            assert answer.headers["retry-after"]
        assert coming.getresponse().status == 503
        coming.close()
        assert list((tmp_path / "a.state.spool").iterdir()) == []


def test_what_a_kill_left_is_in_nobodys_way(
    tiny_bundle: Path, library: Path, tmp_path: Path, spoilt: dict[str, str]
) -> None:
    spool, content = tmp_path / "a.state.spool", (library / "a.wav").read_bytes()
    options = ("--bundle", tiny_bundle, "--workers", 1, "--state", tmp_path / "a.state")
    with serving(tmp_path, *options, **spoilt) as served, ThreadPoolExecutor(1) as threads:
        cut_off = threads.submit(served.ask, "POST", "/v1/classify", content, {**BYTES, "X-File-Name": "a.hang"})
        served.wait_for(lambda: len(list(spool.glob("*/*"))) == 2)
        with serving(tmp_path, "--spool", spool, "--bundle", tiny_bundle, "--workers", 1) as beside:
            assert beside.get("/health/live").status == 200
            assert len(list(spool.glob("*"))) == 2, "the folder of the one that runs is left alone"
            assert len([path for path in spool.glob("*/*") if path.is_symlink()]) == 1
        assert served.stop(signal.SIGKILL) == -signal.SIGKILL
        assert cut_off.exception() is not None
        assert sorted(path.is_symlink() for path in spool.glob("*/*")) == [False, True]
        assert served.socket.exists()
        with serving(tmp_path, *options, at=served.socket) as second:
            assert [path.name for path in spool.glob("*/*")] == ["lock"]
            third = command.run("serve", "--socket", served.socket, "--bundle", tiny_bundle)
            assert third.returncode == 2 and "another process listens there" in third.stderr
            assert second.get("/health/live").status == 200


def test_encoders_rest_while_there_is_nothing_to_do(tiny_bundle: Path, library: Path, tmp_path: Path) -> None:
    options = ("--bundle", tiny_bundle, "--workers", 1, "--root", library, "--idle", 0.01)
    with serving(tmp_path, *options) as served:
        for _ in range(2):
            served.wait_for(lambda: not served.get("/health/ready").json["encoders_open"])
            assert served.get("/v1/version").json["device"] == "cpu"
            answer = served.ask("POST", "/v1/classify", {"path": str(library / "a.wav")})
            assert (answer.status, answer.json["status"]) == (200, "ok")
        assert "nothing to do: the encoders are closed" in served.said()


def test_what_cannot_be_opened_ends_it(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tmp_path, "--bundle", tiny_bundle, "--device", "tensorrt", ready=False) as served:
        assert served.process.wait(PATIENCE) == 5, served.said()
        assert "error: " in served.said() and "Traceback" not in served.said()
    broken = shutil.copytree(tiny_bundle, tmp_path / "broken")
    (broken / "heads/fma.onnx").write_bytes(b"no graph")
    done = command.run("serve", "--bundle", broken, "--socket", tmp_path / "s")
    assert done.returncode == 4 and not (tmp_path / "s").exists()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = command.run("serve", "--socket", tmp_path / "s")
    assert done.returncode == 2 and install_command("service") in done.stderr
    assert "--socket" in command.run("serve", "--help").stdout


# A process that is given a listening socket as systemd gives it: descriptor 3, and its own id in LISTEN_PID.
HANDED = """
import os, sys
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.dup2(int(sys.argv[1]), 3)
os.execv(sys.executable, [sys.executable, "-m", "edge_reclass", *sys.argv[2:]])
"""


def test_systemd_hands_over_the_socket_and_is_told(tiny_bundle: Path, tmp_path: Path, short: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        listening.bind(str(short / "s.sock"))
        listening.listen()
        told.bind(str(short / "notify"))
        told.settimeout(PATIENCE)
        log = tmp_path / "log"
        arguments = ("serve", "--bundle", tiny_bundle, "--device", "cpu", "--workers", 1)
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", HANDED, str(listening.fileno()), *map(str, arguments)],
                pass_fds=[listening.fileno()],
                stderr=file,
                env={**os.environ, "NOTIFY_SOCKET": str(short / "notify")},
            )
        try:
            served = Served(short / "s.sock", process, log)
            served.wait_until_ready()
            said: list[str] = []
            while not any("READY=1" in one for one in said):
                said.append(told.recv(4096).decode())
            while not any("WATCHDOG=1" in one for one in said):
                said.append(told.recv(4096).decode())
            process.send_signal(signal.SIGINT)
            while not any("STOPPING=1" in one for one in said):
                said.append(told.recv(4096).decode())
            assert process.wait(PATIENCE) == 130, served.said()
            assert (short / "s.sock").exists(), "it is systemd's"
        finally:
            process.kill()
            process.wait()
