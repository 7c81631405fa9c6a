"""Runs that are stopped by a signal: bounded, with what was finished kept, and the exit code of the signal."""

from __future__ import annotations

import _thread
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from command import bundle, music, songs
from edge_reclass.run.lanes import all_done
from edge_reclass.verdict import Verdict

__all__ = ["bundle", "music", "songs"]

# The first track hangs until the file "go" is there, as a huge one would; the others are classified meanwhile.
PROGRAM = """
import os, sys, threading, time
from pathlib import Path
from edge_reclass.cli import classify as classify_command
from edge_reclass.cascade import Cascade
from edge_reclass.cli import main
from edge_reclass.run import CascadePool

classify, submit, here = Cascade.classify, CascadePool.submit, Path(sys.argv.pop(1))
classify_command.STOP_SECONDS = float(sys.argv.pop(1))

def slow(self, path):
    if Path(path).name == "a.wav":
        (here / "running").touch()
        while not (here / "go").exists():
            time.sleep(0.02)
    return classify(self, path)

def told(self, path):
    future = submit(self, path)
    if Path(path).name == "b.flac":
        future.add_done_callback(lambda future: (here / "second").touch())
    return future

held = threading.Lock()

def interrupted(self, timeout=None):
    held.acquire()
    raise KeyboardInterrupt

Cascade.classify, CascadePool.submit = slow, told
if "INTERRUPT_CLOSE" in os.environ:
    CascadePool.close = interrupted
main()
"""


class Run:
    def __init__(self, songs: Path, bundle: Path, here: Path, patience: float = 600.0, before: str = "") -> None:
        self.here, self.output = here, here / "out.jsonl"
        arguments = [here, patience, "classify", songs, "--bundle", bundle, "-f", "jsonl", "-o", self.output, "-j", 2]
        command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
        self.process = subprocess.Popen(
            ["bash", "-c", f'{before} exec "$@"', "bash", *command],
            stderr=subprocess.PIPE,
            text=True,
            # A test run that was itself started in the background hands down ignored signals.
            preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)],
        )

    def wait_for(self, name: str) -> None:
        until = time.monotonic() + 120
        while not (self.here / name).exists():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < until, name
            time.sleep(0.02)

    def wait_for_line(self, part: str) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if part in line:
                return line
        raise AssertionError(f"never said: {part}")

    def end(self) -> tuple[int, str]:
        try:
            _, said = self.process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, said = self.process.communicate()
            raise AssertionError(f"it does not end; it said: {said}") from None
        return self.process.returncode, said

    def kept(self) -> list[str]:
        lines = (self.here / "out.jsonl.partial").read_text().splitlines()
        return [Path(json.loads(line)["path"]).name for line in lines]


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_running_tracks_get_some_time_and_are_kept(
    songs: Path, bundle: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    run = Run(songs, bundle, tmp_path)
    run.wait_for("running")
    run.wait_for("second")
    run.process.send_signal(number)
    assert "waiting at most" in run.wait_for_line("interrupted")
    assert run.kept() == ["b.flac"], "what is finished is there before anything is waited for"
    (tmp_path / "go").touch()
    returned, said = run.end()
    assert returned == code, said
    assert f"interrupted after 2 of 2 tracks; their verdicts are in {run.output}.partial" in said
    assert "Traceback" not in said
    assert run.kept() == ["b.flac", "a.wav"]
    assert not run.output.exists()


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_stop_is_bounded(songs: Path, bundle: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    run = Run(songs, bundle, tmp_path, patience=0.5)
    run.wait_for("running")
    run.wait_for("second")
    run.process.send_signal(number)
    returned, said = run.end()
    assert returned == code, said
    assert f"interrupted after 1 of 2 tracks; their verdicts are in {run.output}.partial" in said
    assert "Traceback" not in said
    assert run.kept() == ["b.flac"]


def test_a_second_interrupt_ends_at_once(songs: Path, bundle: Path, tmp_path: Path) -> None:
    run = Run(songs, bundle, tmp_path)
    run.wait_for("running")
    run.wait_for("second")
    run.process.send_signal(signal.SIGINT)
    run.wait_for_line("waiting at most")
    run.process.send_signal(signal.SIGINT)
    returned, said = run.end()
    assert returned == 130, said
    assert "interrupted after 1 of 2 tracks; their verdicts are in" in said
    assert run.kept() == ["b.flac"]


@pytest.fixture
def interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_that_wakes_nobody_is_seen() -> None:
    """As one does that comes just before Python begins to wait."""
    future: Future[Verdict] = Future()
    waker = threading.Timer(60, future.set_exception, [TimeoutError()])
    waker.start()
    with pytest.raises(KeyboardInterrupt):
        threading.Timer(0.2, _thread.interrupt_main).start()
        all_done([future])
    assert not future.done(), "only the end of the wait showed the interrupt"
    waker.cancel()


def test_what_does_not_end_in_time_is_not_waited_for() -> None:
    done: Future[Verdict] = Future()
    done.cancel()
    done.set_running_or_notify_cancel()
    assert all_done([done])
    assert all_done([])
    assert not all_done([done, Future()], timeout=0)
    assert not all_done([done, Future()], timeout=0.01)


def test_an_interrupt_that_leaves_a_lock_of_the_pool_held(songs: Path, bundle: Path, tmp_path: Path) -> None:
    """On Python 3.10 a second Ctrl-C within ``concurrent.futures.wait`` did: the run then waited for ever."""
    run = Run(songs, bundle, tmp_path, before="INTERRUPT_CLOSE=1")
    run.wait_for("running")
    run.wait_for("second")
    run.process.send_signal(signal.SIGINT)
    returned, said = run.end()
    assert returned == 130, said
    assert run.kept() == ["b.flac"]


def test_a_killed_run_leaves_its_verdicts_where_they_are_found(songs: Path, bundle: Path, tmp_path: Path) -> None:
    (songs / "a.wav").rename(songs / "c.wav")
    for name in ("x", "y", "z"):  # all that come behind hang
        (songs / name).mkdir()
        (songs / name / "a.wav").symlink_to("../c.wav")
    run = Run(songs, bundle, tmp_path)
    partial = tmp_path / "out.jsonl.partial"
    run.wait_for("running")
    until = time.monotonic() + 120
    while partial.read_text().count("\n") < 2:
        assert time.monotonic() < until
        time.sleep(0.02)
    run.process.kill()
    run.end()
    assert run.kept() == ["b.flac", "c.wav"]
    assert [path.name for path in tmp_path.iterdir() if "out.jsonl" in path.name] == ["out.jsonl.partial"]


def test_a_hang_up_that_nohup_ignores_stays_ignored(songs: Path, bundle: Path, tmp_path: Path) -> None:
    run = Run(songs, bundle, tmp_path, before="trap '' HUP;")
    run.wait_for("running")
    run.process.send_signal(signal.SIGHUP)
    (tmp_path / "go").touch()
    returned, said = run.end()
    assert returned == 0, said
    assert len(run.output.read_text().splitlines()) == 2


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal to hang up")
def test_a_terminal_that_is_gone_changes_nothing(songs: Path, bundle: Path, tmp_path: Path) -> None:
    """An ssh connection that drops: writing to the terminal fails, and a SIGHUP comes."""
    controller, terminal = os.openpty()
    arguments = [tmp_path, 0.5, "classify", songs, "--bundle", bundle, "-f", "jsonl", "-o", tmp_path / "o", "-j", 2]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"TERM": "xterm"},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    os.close(terminal)
    until = time.monotonic() + 120
    while not ((tmp_path / "running").exists() and (tmp_path / "second").exists()):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    os.close(controller)
    process.send_signal(signal.SIGHUP)
    assert process.wait(120) == 129
    assert len((tmp_path / "o.partial").read_text().splitlines()) == 1
