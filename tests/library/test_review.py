"""``review``: which tracks, what keys do, what the screen shows in any size, and a terminal that is as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from command import run
from edge_reclass.library.review.loop import Review
from edge_reclass.library.review.player import Player
from edge_reclass.library.review.queue import Queue
from edge_reclass.library.review.screen import draw
from edge_reclass.library.state import State
from edge_reclass.verdict import DamageSeen, ExcerptSeen, StageReport, WindowsSeen
from filled import answer, failure, fill

SCORES = {"Pop": 0.31, "Rock": 0.3, "R&B": 0.2, "Jazz": 0.1, "Hip-Hop": 0.05, "Electronic": 0.04}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return fill(
        tmp_path / "library.state",
        [
            answer(tmp_path / "sure.flac", {**SCORES, "Pop": 0.9}),
            answer(tmp_path / "a.flac", SCORES, "unsure", stages=("fma", "musicnn")),
            answer(tmp_path / "b.flac", {**SCORES, "Rock": 0.5}),
            answer(tmp_path / "c.flac", {**SCORES, "Jazz": 0.4}),
            failure(tmp_path / "bad.flac", "corrupt"),
        ],
    )


@pytest.fixture
def state(file: Path) -> Iterator[State]:
    with State.open(file, write=True) as opened:
        yield opened


def review_of(state: State, **options: object) -> Review:
    queue = Queue(state, below=0.6, **options)  # type: ignore[arg-type]
    return Review(queue, str(state.path), Player())


def order(state: State, **options: object) -> list[str]:
    queue, names = Queue(state, below=0.6, **options), []  # type: ignore[arg-type]
    while (track := queue.track) is not None:
        names.append(track.file.stem)
        queue.position += 1
    return names


def corrections(state: State) -> dict[str, str]:
    return {row.file.stem: row.corrected for row in state.tracks() if row.corrected is not None}


def press(review: Review, *keys: str) -> Review:
    for key in keys:
        assert review.press(key)
    return review


def text(review: Review, columns: int = 80, rows: int = 24, utf8: bool = True) -> str:
    return "\n".join(line.plain for line in draw(review, columns, rows, utf8))


def test_what_is_unsure_or_low_is_asked_about_the_least_sure_first(state: State) -> None:
    assert order(state) == ["a", "c", "b"]
    assert order(state, surest_first=True) == ["b", "c", "a"]
    assert order(state, genre="Pop") == ["a"], "of an unsure verdict, what it would have said"


def test_answers_are_kept_at_once_and_the_next_review_goes_on(state: State) -> None:
    review = press(review_of(state), "enter", "s")
    assert corrections(state) == {"a": "Pop"}
    assert order(state) == ["b", "c"], "what was answered is gone, what was skipped comes last"
    assert order(state, again=True) == ["a", "b", "c"]
    press(review, "2")
    assert corrections(state) == {"a": "Pop", "b": "Pop"}
    assert review.track is None and "That was the last one" in text(review)
    assert not review.press("q")


def test_undo_takes_back_what_was_said_whatever_it_was(state: State) -> None:
    first = state.track(state.path.with_name("a.flac"))
    assert first is not None
    state.correct(first.id, "Folk")
    review = press(review_of(state, again=True), "3", "s", "u")
    assert corrections(state) == {"a": "R&B"} and state.skipped() == set()
    press(review, "left")
    assert corrections(state) == {"a": "Folk"} and review.track is not None and review.track.file.stem == "a"
    assert "you said: Folk" in text(review)
    press(review, "b")
    assert review.said == "there is nothing to take back"


def test_a_genre_is_chosen_by_its_first_letters(state: State) -> None:
    review = press(review_of(state), "g", "R")
    assert review.matches[:2] == ["R&B", "Rock"] and "> R&B" in text(review)
    press(review, "down")
    assert "> Rock" in text(review)
    press(review, "enter")
    assert corrections(state) == {"a": "Rock"}
    press(review, "g", "x", "x", "backspace", "backspace", "h", "O", "p", "enter")
    assert corrections(state) == {"a": "Rock", "c": "Hip-Hop"}, "a word within counts too"
    press(review, "g", "escape")
    assert review.typed is None and review.track is not None


def test_a_new_genre_is_taken_only_on_purpose(state: State) -> None:
    review = press(review_of(state), "g", *"Dub", "enter")
    assert corrections(state) == {} and "+Dub is a new one" in text(review)
    press(review, *["backspace"] * 3, *"+Dub techno ", "enter")
    assert corrections(state) == {"a": "Dub techno"}
    assert "Dub techno" in press(review, "g", "d").matches
    press(review, "escape", "g", "+", "enter")
    assert corrections(state) == {"a": "Dub techno"}, "an empty name is none"
    press(review, "escape", "g", *"+2000", "enter")
    assert corrections(state) == {"a": "Dub techno"}
    assert "2000 is a number, which players take for a genre" in text(review)


@pytest.mark.parametrize("key", ["", "0", "7", "9", "²", "x", "up", "escape", "\x1b[5~"])
def test_keys_without_a_meaning_change_nothing(state: State, key: str) -> None:
    review = press(review_of(state), key)
    assert corrections(state) == {} and review.track is not None and review.track.file.stem == "a"


@pytest.mark.parametrize("columns, rows", [(80, 24), (200, 60), (40, 12), (20, 6), (8, 3), (1, 1)])
@pytest.mark.parametrize("utf8", [True, False])
def test_the_screen_is_never_higher_than_the_terminal(state: State, columns: int, rows: int, utf8: bool) -> None:
    for keys in ([], ["g"], ["g", "x"], ["s", "s", "s"]):
        review = press(review_of(state), *keys)
        lines = draw(review, columns, rows, utf8)
        assert len(lines) <= rows
        if utf8 is False:
            assert "".join(line.plain for line in lines).isascii()


def test_the_screen_says_what_was_heard(tmp_path: Path) -> None:
    stages = (
        StageReport("fma", "Pop", 0.5, 1.0, ExcerptSeen(65.0, 30.0), outside=True, windows=WindowsSeen(3, 10)),
        StageReport("musicnn", None, None, 1.0, ExcerptSeen(65.0, 30.0)),
    )
    damaged = answer(tmp_path / os.fsdecode(b"caf\xe9\x1b[2J.flac"), SCORES, "unsure", reason="0.31 < 0.35")
    damaged = type(damaged)(
        **{**vars(damaged), "stages": stages, "damage": DamageSeen(3, 100, 0.03, 200.0), "channel": 1}
    )
    with State.open(fill(tmp_path / "s", [damaged]), write=True) as state:
        shown = text(review_of(state))
    for words in (
        "1 of 1, 0 decided, 0 skipped",
        "caf\\udce9\\x1b[2J",
        "unsure: 0.31 < 0.35",
        "1 Pop        ━━━━━━━━━╌",
        "fma: Pop 0.50, unlike what it was fitted on, 3 of 10 windows, heard 1:05 to 1:35",
        "musicnn: silence, heard 1:05 to 1:35",
        "damaged: 3.0% of what was listened to is missing, ends before its 200 s",
        "channel 1 was heard alone",
        "Enter accept Pop   1-6 this genre   g another genre   s skip",
    ):
        assert words in shown, words
    assert "\x1b" not in shown


def test_only_a_terminal_will_do(file: Path) -> None:
    done = run("review", file)
    assert done.returncode == 2 and "expected a terminal" in done.stderr and "library list" in done.stderr
    assert run("review", file, "--below", 2).returncode == 2


def test_a_genre_that_nobody_knows(file: Path) -> None:
    with OnTerminal(file, "--genre", "Rok") as terminal:
        assert terminal.wait() == 2 and "expected one of Electronic, Hip-Hop" in terminal.seen


def test_nothing_to_review_is_said(tmp_path: Path) -> None:
    file = fill(tmp_path / "s", [answer(tmp_path / "sure.flac", {"Pop": 0.9})])
    with OnTerminal(file) as terminal:
        assert terminal.wait() == 0 and "nothing to review" in terminal.seen


class OnTerminal:
    """The command on a terminal of its own, which is looked at and typed into."""

    def __init__(self, file: Path, *options: str, columns: int = 80, rows: int = 24, **variables: str) -> None:
        self.controller, self.terminal = pty.openpty()
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(self.terminal)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge_reclass", "review", str(file), *options],
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=self.terminal,
            env=os.environ | {"TERM": "xterm", "PYTHONIOENCODING": "utf-8"} | variables,
            start_new_session=True,
            # Tests that run under nohup hand down an ignored SIGHUP, which the command would leave ignored.
            preexec_fn=lambda: (signal.signal(signal.SIGHUP, signal.SIG_DFL), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
        )
        self.seen = ""

    def until(self, *words: str, seconds: float = 60) -> str:
        """What came until all of ``words`` did, without escape sequences; the rest of what was shown before may too."""
        begun, came = time.monotonic(), ""
        while not all(each in came for each in words):
            assert time.monotonic() - begun < seconds, f"{words} never came:\n{came}"
            came += self._read(0.2)
        return came

    def type(self, keys: str) -> None:
        os.write(self.controller, keys.encode())

    def wait(self) -> int:
        deadline = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read(0.1)
        self._read(0.2)
        return self.process.wait(1)

    def _read(self, seconds: float) -> str:
        came = b""
        while select.select([self.controller], [], [], seconds)[0]:
            try:
                part = os.read(self.controller, 65_536)
            except OSError:
                break
            came, seconds = came + part, 0.0
        raw = came.decode("utf-8", "replace")
        self.seen += raw
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw)

    def __enter__(self) -> OnTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for descriptor in {self.controller, self.terminal} - {-1}:
            os.close(descriptor)


def said(file: Path) -> dict[str, str]:
    with State.open(file) as state:
        return corrections(state)


def test_a_review_at_a_terminal(file: Path, tmp_path: Path) -> None:
    player = tmp_path / "bin/mpv"
    player.parent.mkdir()
    player.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/played\necho $$ > {tmp_path}/pid\nexec sleep 60\n')
    player.chmod(0o755)
    (tmp_path / "a.flac").write_bytes(b"x")
    with OnTerminal(file, PATH=f"{player.parent}:{os.environ['PATH']}") as terminal:
        terminal.until("unsure: made for a test", "q quit")
        assert terminal.process.poll() is None and not termios.tcgetattr(terminal.terminal)[3] & termios.ICANON
        terminal.type("p")
        terminal.until("p silence")
        terminal.type("\r")
        terminal.until("kept: Pop", "c.flac", "u undo", "q quit")
        assert said(file) == {"a": "Pop"}, "kept while the review goes on"
        terminal.type("\x1b[C")  # right: skip
        terminal.until("b.flac", "q quit")
        fcntl.ioctl(terminal.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 30, 0, 0))
        terminal.until("Enter accept Rock", "q quit")
        terminal.type("gjaz\r")
        terminal.until("That was the last one")
        terminal.type("q")
        assert terminal.wait() == 0
        assert termios.tcgetattr(terminal.terminal) == terminal.before
        assert terminal.seen.rstrip().endswith("library.state: 2 tracks decided, 1 skipped, 0 left")
        assert terminal.seen.count("\x1b[?1049h") == terminal.seen.count("\x1b[?1049l") == 1
    assert said(file) == {"a": "Pop", "b": "Jazz"}
    assert (tmp_path / "played").read_text() == f"--no-video --no-terminal --start=65.00 -- {tmp_path}/a.flac\n"
    with pytest.raises(ProcessLookupError):  # the next track, or the end, silences it
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    "end, code",
    [("\x03", 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131), ("\x1cq", 0)],
    ids=["ctrl-c", "sigterm", "sighup", "sigquit", "ctrl-backslash"],
)
def test_the_terminal_is_as_before_however_it_ends(file: Path, end: object, code: int) -> None:
    with OnTerminal(file, "--surest-first", NO_COLOR="1") as terminal:
        terminal.until("q quit")
        terminal.type("\n")
        terminal.until("kept: Rock")
        if isinstance(end, str):
            terminal.type(end)
        else:
            terminal.process.send_signal(signal.Signals(end))
        assert terminal.wait() == code
        assert termios.tcgetattr(terminal.terminal) == terminal.before
        assert terminal.seen.count("\x1b[?1049l\x1b") <= 1 and "\x1b[?25h" in terminal.seen.split("\x1b[?25l")[-1]
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", terminal.seen), "NO_COLOR"
    assert said(file) == {"b": "Rock"}


def test_a_terminal_that_cannot_place_its_cursor(file: Path) -> None:
    with OnTerminal(file, TERM="dumb") as terminal:
        assert terminal.wait() == 2 and "set TERM" in terminal.seen


def test_lines_are_as_wide_as_the_terminal_at_most(file: Path) -> None:
    with OnTerminal(file, columns=24, rows=9) as terminal:
        terminal.until("q quit")
        frame = terminal.seen.split("\x1b[H")[1]
        lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame).split("\r\n")
        assert len(lines) == 9 and max(map(cell_len, lines)) <= 24
        terminal.type("q")
        assert terminal.wait() == 0
