"""``watch`` as a service runs it: one process, and what a user does to the folder meanwhile."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from command import run
from edge_reclass.installing import install_command
from edge_reclass.library.basis import Basis
from edge_reclass.library.journal import Journal
from edge_reclass.library.state import State
from edge_reclass.library.watching.access import OwnAccess
from edge_reclass.library.watching.resident import Habits, Resident
from libraries import Library, library, small_bundle

pytest.importorskip("watchdog", reason="folders are watched by watchdog (extra [watch])")

__all__ = ["library", "small_bundle"]


class Service:
    """``watch`` in a process of its own."""

    def __init__(self, library: Library, *options: str) -> None:
        self.library = library
        self.out, self.err = library.root / "out", library.root / "err"
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(str(library.root / "notify"))
        self.told: list[str] = []
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()
        command = [sys.executable, "-m", "edge_reclass", "watch", str(library.music), "--state", str(library.file)]
        command += ["--bundle", str(library.bundle), "--settle", "0.6", "--idle", "0.02", "-f", "jsonl", *options]
        with self.out.open("wb") as out, self.err.open("wb") as err:
            environment = os.environ | {"NOTIFY_SOCKET": str(library.root / "notify")}
            self.process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)

    def listen(self) -> None:
        while "STOPPING=1" not in self.told:
            self.told.append(self.notices.recv(4096).decode().split("\n")[0])

    def verdicts(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def names(self) -> list[str]:
        return [os.path.relpath(verdict["path"], self.library.music) for verdict in self.verdicts()]

    def until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() < end, (self.names(), self.err.read_text())
            time.sleep(0.05)

    def said(self, text: str) -> None:
        self.until(lambda: text in self.err.read_text())

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(120)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.notices.sendto(b"STOPPING=1", str(self.library.root / "notify"))  # to end the thread
        self.listener.join(5)
        self.notices.close()


@pytest.fixture
def service(library: Library) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def start(*options: str) -> Service:
        made.append(Service(library, *options))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_a_day_of_a_library(library: Library, service: Callable[..., Service]) -> None:
    # A pause of this test itself must not look like the end of a copy.
    watch, music = service("--settle", "2"), library.music
    watch.until(lambda: len(watch.names()) == 3)
    content = library.add("../long.wav", seconds=3).read_bytes()

    with (music / "slow.wav").open("wb") as file:  # a copy that takes its time
        for at in range(0, len(content), len(content) // 8):
            file.write(content[at : at + len(content) // 8])
            file.flush()
            time.sleep(0.3)
    library.add("load.wav", 7).rename(music / "load.wav.part")
    for name in (".hidden.wav", ".trash/x.wav", "notes.txt"):
        (music / name).parent.mkdir(exist_ok=True)
        (music / name).write_bytes(content)
    watch.until(lambda: len(watch.names()) == 4)
    assert watch.names()[3:] == ["slow.wav"] and watch.verdicts()[3]["size"] == len(content)
    (music / "load.wav.part").rename(music / "load.wav")
    library.add("../away/CD1/in.flac", 8)
    (library.root / "away").rename(music / "came")
    watch.until(lambda: len(watch.names()) == 6)
    assert sorted(watch.names()[4:]) == ["came/CD1/in.flac", "load.wav"]

    retag(music / "came/CD1/in.flac")
    watch.said("1 with new tags")
    (music / "album/one.flac").rename(music / "first.flac")
    watch.said("1 moved")
    (music / "three.wav").unlink()
    watch.said("1 gone")
    watch.said("nothing to do: the encoders are closed")
    assert len(watch.names()) == 6, "nothing of this was a reason to classify"
    rows = library.rows()
    assert rows["three.wav"].absent_since and not rows["first.flac"].absent_since and "album/one.flac" not in rows

    assert watch.end() == 0, watch.err.read_text()
    assert "Traceback" not in watch.err.read_text()
    assert watch.told[0] == "READY=1" and watch.told[-1] == "STOPPING=1" and watch.told.count("WATCHDOG=1") > 6
    assert not library.done("--state", str(library.file)), "classify --state finds nothing to do after it"


def retag(path: Path) -> None:
    mutagen = pytest.importorskip("mutagen", reason="tags are read by mutagen (extra [tags])")
    tags = mutagen.File(path)
    tags["genre"] = "Polka"
    tags.save()


def test_genres_go_into_the_files_and_are_nothing_new(library: Library, service: Callable[..., Service]) -> None:
    mutagen = pytest.importorskip("mutagen", reason="tags are read by mutagen (extra [tags])")
    retag(library.music / "album/one.flac")
    watch, path = service("--then", "tag"), library.music / "album/two.flac"
    watch.until(lambda: len(watch.names()) == 3)
    watch.said("2 tagged; to take it back")  # three.wav is one of them
    watch.said("the encoders are closed")
    assert mutagen.File(path)["genre"] == ["Alpha"]
    assert mutagen.File(library.music / "album/one.flac")["genre"] == ["Polka"], "what has a genre is left alone"
    library.add("after.flac", 3)
    watch.until(lambda: mutagen.File(library.music / "after.flac").get("genre") == ["Alpha"])
    time.sleep(1.5)
    assert watch.names()[3:] == ["after.flac"]
    assert "with new tags" not in watch.err.read_text()
    assert watch.end() == 0
    assert run("tag", library.file, "--undo").returncode == 0
    assert "genre" not in (mutagen.File(path).tags or {})


def test_a_root_that_goes_and_a_state_that_is_busy(library: Library, service: Callable[..., Service]) -> None:
    library.music.rename(library.root / "away")
    watch = service()
    watch.said(f"{library.music}: it is not there (not mounted?); waiting for it, and nothing is marked")
    (library.root / "away").rename(library.music)
    watch.until(lambda: len(watch.names()) == 3)
    library.music.rename(library.root / "away")
    library.music.mkdir()  # an empty folder in its place, as where a disk was mounted
    watch.said("no track is in it, and 3 are known: not mounted?")
    (library.root / "away").replace(library.music)
    assert not any(row.absent_since for row in library.rows().values())
    with State.open(library.file, write=True):
        library.add("new.wav", 5)
        watch.said(f"process {os.getpid()} (since ")
        assert len(watch.names()) == 3
    watch.until(lambda: len(watch.names()) == 4)
    assert watch.end(signal.SIGINT) == 130


def test_the_real_limit_of_the_kernel(library: Library) -> None:
    """In a user namespace, which has a limit of its own."""
    command = (
        f"echo 3 > /proc/sys/user/max_inotify_watches && exec {sys.executable} -m edge_reclass watch {library.music}"
        f" --state {library.file} --bundle {library.bundle} --settle 0.2 --poll 0.02 -f jsonl"
    )
    for name in "abcdef":
        (library.music / name).mkdir()
    try:
        probe = subprocess.run(["unshare", "-Ur", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare")
    if probe.returncode:
        pytest.skip(f"no user namespaces: {probe.stderr.decode()}")
    with (library.root / "out").open("wb") as out, (library.root / "err").open("wb") as err:
        process = subprocess.Popen(["unshare", "-Ur", "bash", "-c", command], stdout=out, stderr=err)
    try:
        for number in (3, 4):
            end = time.monotonic() + 120
            while (library.root / "out").read_text().count("\n") < number:
                assert process.poll() is None and time.monotonic() < end, (library.root / "err").read_text()
                time.sleep(0.05)
            library.add("f/unwatched.wav", 9)
        text = (library.root / "err").read_text()
        assert "the limit fs.inotify.max_user_watches is reached" in text
        assert "It is searched every 0.02 min" in text
    finally:
        process.terminate()
        assert process.wait(120) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{music}"], "--state"),
        (["{music}", "--state", "{file}", "--settle", "0"], "--settle: expected a number above 0, got 0"),
        (["{music}", "--state", "{file}", "--then", "dance"], "--then: expected tag, got 'dance'"),
        (["{music}", "--state", "{file}", "--format", "json"], "expected one of table, jsonl, csv, got 'json'"),
        (["{music}/three.wav", "--state", "{file}"], "expected a folder, got a file"),
        (["{music}", "--state", "{music}"], "expected a state file, got a folder"),
    ],
)
def test_what_cannot_be_meant(library: Library, arguments: list[str], message: str) -> None:
    done = run("watch", *(one.format(music=library.music, file=library.file) for one in arguments))
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_without_watchdog_it_is_said(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchdog.observers", None)
    done = run("watch", library.music, "--state", library.file, "--bundle", library.bundle)
    assert (done.returncode, install_command("watch") in done.stderr) == (2, True), done.stderr


def test_genres_of_a_process_that_was_killed_before_it_wrote_them(
    library: Library, service: Callable[..., Service]
) -> None:
    mutagen = pytest.importorskip("mutagen", reason="tags are read by mutagen (extra [tags])")
    earlier = library.add("earlier.flac")
    assert library.classify(paths=[earlier]).returncode == 0
    time.sleep(1.1)
    with State.open(library.file, write=True) as state:  # what such a process leaves
        Journal.of_state(state).begin("watch --then")
    assert library.classify(paths=[library.music / "album"]).returncode == 0
    watch = service("--then", "tag")
    watch.said("3 tagged")
    assert "genre" not in (mutagen.File(earlier).tags or {})
    assert mutagen.File(library.music / "album/two.flac")["genre"] == ["Alpha"]
    assert watch.end() == 0
    with State.open(library.file) as state:
        assert not Journal.of_state(state).runs("watch --then")


def test_looks_at_a_large_state_do_not_follow_each_other_at_once(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[float] = []

    def look(paths: list[str]) -> None:
        began.append(time.monotonic())
        if len(began) == 4:
            raise SystemExit
        time.sleep(0.1)

    basis = Basis("digest", "policy", "options")
    unused: Any = None
    access = OwnAccess(library.file, unused, idle=300, say=lambda text: None)
    resident = Resident([str(library.music)], access, basis, unused, habits=Habits(settle=0.3), say=lambda text: None)
    monkeypatch.setattr(resident, "_update", look)
    monkeypatch.setattr(resident._settling, "due", lambda: [str(library.music / "three.wav")])
    monkeypatch.setattr(resident._settling, "next_in", lambda: 0.0)
    with pytest.raises(SystemExit):
        resident.run()
    assert all(later - earlier >= 0.39 for earlier, later in itertools.pairwise(began[1:]))
