"""``edge-reclass review``: go through the tracks that the classifier is least sure of."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass.cli.library.looking import STATE
from edge_reclass.cli.stopping import say
from edge_reclass.cli.summary import counted
from edge_reclass.errors import StateBusyError, UsageError
from edge_reclass.run.text import printable

if TYPE_CHECKING:
    from edge_reclass.library.review.queue import Answers
    from edge_reclass.library.state import State


class SentAnswers:
    """Sends what a person says to the service that holds the state; ``state`` is open for reading."""

    def __init__(self, state: State, socket: str) -> None:
        from edge_reclass.client import Client

        self._state, self._client = state, Client(socket)

    def correct(self, track: int, genre: str | None) -> None:
        """See :meth:`edge_reclass.library.State.correct`. Raises ServiceError."""
        if genre is not None:
            self._client.correct(self._path(track), genre)
        else:
            self._client.uncorrect(self._path(track))

    def skip(self, track: int, skipped: bool) -> None:
        """See :meth:`edge_reclass.library.State.skip`. Raises ServiceError."""
        self._client.skip(self._path(track), skipped)

    def _path(self, track: int) -> Path:
        return self._state.tracks_by_id([track])[track].file


def review(
    state: Annotated[Path, STATE],
    below: Annotated[
        float, typer.Option(metavar="X", help="Beside the unsure tracks, those of less confidence than this, 0 to 1.")
    ] = 0.6,
    genre: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only tracks of which the verdict says or guesses this genre.")
    ] = None,
    surest_first: Annotated[bool, typer.Option("--surest-first", help="Begin with the most confidence.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Ask again about tracks that were answered before.")] = False,
) -> None:
    """Say of unsure tracks what they are, one by one, in the terminal.

    Begins with the least confidence, where mistakes are the most frequent. Every answer is kept at once and wins over
    the verdict; the next review goes on where this one was left. Where a service (edge-reclass serve) holds the state,
    the answers are sent to it. A track is played by mpv or ffplay, where one is
    installed.

    Exit codes: 0 left or done, 2 wrong usage, no terminal, or the state file cannot be used, 130 interrupted.
    """
    from edge_reclass.library.review import Queue, Terminal
    from edge_reclass.library.review import review as go_through
    from edge_reclass.library.state import State

    if not 0 <= below <= 1:
        raise UsageError(f"--below: expected a number from 0 to 1, got {below:g}")
    terminal = Terminal()
    with ExitStack() as held:
        answers: Answers | None = None
        try:
            opened = held.enter_context(State.open(state, write=True))
        except StateBusyError as busy:
            if busy.socket is None:
                raise
            opened = held.enter_context(State.open(state))
            answers = SentAnswers(opened, busy.socket)
        queue = Queue(opened, below=below, genre=genre, surest_first=surest_first, again=again, answers=answers)
        if genre is not None and genre not in queue.genres:
            raise UsageError(f"--genre: expected one of {', '.join(queue.genres) or 'none yet'}, got {genre!r}")
        if not len(queue):
            say(f"nothing to review: no track is unsure, or of less confidence than {below:g}, and not answered yet")
            return
        try:
            go_through(queue, state, terminal)
        finally:
            done = f"{counted(queue.decided, 'track')} decided, {queue.skipped} skipped"
            say(f"{printable(str(state))}: {done}, {len(queue) - queue.position} left")
