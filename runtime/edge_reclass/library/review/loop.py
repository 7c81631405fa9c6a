"""The review itself: what each key does, until nothing is left or somebody leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from edge_reclass.library.label import Labels, name_of
from edge_reclass.library.review.player import Player
from edge_reclass.library.review.queue import Queue
from edge_reclass.library.review.screen import SHORTCUTS, draw
from edge_reclass.library.review.terminal import Terminal
from edge_reclass.library.rows import TrackRow
from edge_reclass.library.tags import FileTags
from edge_reclass.library.tags.names import objection
from edge_reclass.verdict import Verdict

_TICK: Final = 0.5
"""Seconds after which the size of the terminal and the player are looked at, key or not."""
NEW: Final = "+"
"""Typed before the name of a genre that is none of the bundle's."""


class Review:
    """What is on the screen, and what a key does to it.

    ``typed`` is what was typed of a genre's name, None while no genre is chosen by name; ``marked`` is the number of
    the genre that Enter takes; ``said`` is a line for the user about the last key.
    """

    def __init__(self, queue: Queue, state: str, player: Player) -> None:
        self.queue, self.state, self._player = queue, state, player
        self.typed: str | None = None
        self.marked = 0
        self._labels = Labels()
        self._look()
        self.said = self._labels.problem or ""

    def _look(self) -> None:
        """Read what is shown of the present track, once."""
        self.track: TrackRow | None = self.queue.track
        self.verdict: Verdict | None = None if self.track is None else self.track.verdict
        self.tags = FileTags() if self.track is None else self._labels.tags(self.track.file)
        self.name = "" if self.track is None else name_of(self.track.file, self.tags)

    @property
    def matches(self) -> list[str]:
        """The genres that ``typed`` means: that begin like it, then those with a word that does."""
        typed = (self.typed or "").casefold()
        begin = [genre for genre in self.queue.genres if genre.casefold().startswith(typed)]
        within = [genre for genre in self.queue.genres if typed in genre.casefold() and genre not in begin]
        return begin + within

    def offered(self) -> Iterator[tuple[str, str]]:
        """The keys that do something now, and what."""
        if self.typed is not None:
            yield from (("Enter", "take"), ("Up Down", "another"), ("Esc", "back to the track"))
            return
        top = () if self.verdict is None else self.verdict.top
        if top:
            yield "Enter", f"accept {top[0].genre}"
            if len(top) > 1:
                yield f"1-{min(len(top), SHORTCUTS)}", "this genre"
        if self.track is not None:
            yield from (("g", "another genre"), ("s", "skip"))
            if self._player.name is not None:
                yield "p", "silence" if self._player.is_playing else "play"
        if self.queue.can_go_back:
            yield "u", "undo, back"
        yield "q", "quit"

    def press(self, key: str) -> bool:
        """Do what a key means; False: leave."""
        self.said = ""
        if self.typed is not None:
            self._choose(key)
        elif key == "q":
            return False
        elif key in {"u", "b", "left"}:
            self._go_back()
        elif self.track is not None:
            self._answer(key, self.track)
        return True

    def _answer(self, key: str, track: TrackRow) -> None:
        top = () if self.verdict is None else self.verdict.top
        if key in {"enter", "a"}:
            key = "1"
        if key.isdecimal() and key.isascii():
            if 0 < int(key) <= len(top):
                self._correct(top[int(key) - 1].genre)
            else:
                self.said = "there is no such genre on the list; g takes one by its name"
        elif key in {"g", "/"}:
            self.typed, self.marked = "", 0
        elif key in {"s", "right"}:
            self.queue.skip()
            self._next("skipped; it comes again at the end of the next review")
        elif key in {"p", " "}:
            self._play(track)

    def _choose(self, key: str) -> None:
        found = self.matches
        if key == "escape":
            self.typed = None
        elif key in {"up", "down"}:
            self.marked = (self.marked + (1 if key == "down" else -1)) % max(len(found), 1)
        elif key == "backspace":
            self.typed, self.marked = (self.typed or "")[:-1], 0
        elif key == "enter":
            genre = found[self.marked] if found else (self.typed or "").removeprefix(NEW).strip()
            if found or ((self.typed or "").startswith(NEW) and genre):
                if not found and (reason := objection(genre)) is not None:
                    self.said = f"{genre} {reason}"
                    return
                self.typed = None
                self._correct(genre)
        elif len(key) == 1:
            self.typed, self.marked = (self.typed or "") + key, 0

    def _correct(self, genre: str) -> None:
        self.queue.correct(genre)
        self._next(f"kept: {genre}")

    def _go_back(self) -> None:
        if self.queue.back() is None:
            self.said = "there is nothing to take back"
        else:
            self._next("taken back")

    def _next(self, said: str) -> None:
        self._player.stop()
        self.said = said
        self._look()

    def _play(self, track: TrackRow) -> None:
        if self._player.is_playing:
            self._player.stop()
        elif self._player.name is None:
            self.said = "no player is installed; mpv or ffplay would do"
        elif not track.file.is_file():
            self.said = "the file is not there"
        else:
            # From where the last stage began to listen: what the verdict is about.
            stages = () if self.verdict is None else self.verdict.stages
            try:
                self._player.play(track.file, stages[-1].excerpt.start if stages else 0.0)
            except OSError as error:
                self.said = f"{self._player.name} cannot be started ({error.strerror})"

    def tick(self) -> None:
        """Notice what happened without a key."""
        if (code := self._player.failed()) is not None:
            self.said = f"{self._player.name} could not play it (exit status {code})"


def review(queue: Queue, state: str | os.PathLike[str], terminal: Terminal) -> None:
    """Go through ``queue`` on the terminal until somebody leaves. What was answered is in the state at once."""
    with terminal, Player() as player:
        session = Review(queue, os.fspath(state), player)
        before: object = None
        while True:
            now = (terminal.size, session.said, player.is_playing)
            if now != before:
                terminal.show(draw(session, *terminal.size, terminal.utf8))
                before = now
            try:
                key = terminal.key(_TICK)
            except EOFError:  # the terminal is gone
                return
            session.tick()
            if key is not None:
                before = None
                if not session.press(key):
                    return
