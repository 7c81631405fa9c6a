"""``edge-reclass review``: go through the tracks that the classifier is least sure of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_reclass.cli.library.looking import STATE
from edge_reclass.cli.stopping import say
from edge_reclass.cli.summary import counted
from edge_reclass.errors import UsageError
from edge_reclass.run.text import printable


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
    the verdict; the next review goes on where this one was left. A track is played by mpv or ffplay, where one is
    installed.

    Exit codes: 0 left or done, 2 wrong usage, no terminal, or the state file cannot be used, 130 interrupted.
    """
    from edge_reclass.library.review import Queue, Terminal
    from edge_reclass.library.review import review as go_through
    from edge_reclass.library.state import State

    if not 0 <= below <= 1:
        raise UsageError(f"--below: expected a number from 0 to 1, got {below:g}")
    terminal = Terminal()
    with State.open(state, write=True) as opened:
        queue = Queue(opened, below=below, genre=genre, surest_first=surest_first, again=again)
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
