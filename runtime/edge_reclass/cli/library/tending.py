"""What is done to a state file as a whole: forget, vacuum, merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_reclass.cli.library.looking import STATE
from edge_reclass.cli.serving import writable
from edge_reclass.cli.stopping import say
from edge_reclass.cli.summary import counted
from edge_reclass.errors import UsageError
from edge_reclass.run.text import printable


def forget(
    state: Annotated[Path, STATE],
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Tracks, and folders with all tracks below.", metavar="PATH...")
    ] = None,
    absent: Annotated[
        bool, typer.Option("--absent", help="Only what was not there when last looked for; without PATH, all of it.")
    ] = False,
) -> None:
    """Forget tracks: verdicts, corrections and embeddings. Files are not touched."""
    from edge_reclass.library import tending

    if not paths and not absent:
        raise UsageError("expected tracks or folders to forget, or --absent")
    with writable(state) as opened:
        number = tending.forget(opened, paths or [], absent=absent)
    if not number and not absent:
        places = ", ".join(printable(str(path)) for path in paths or [])
        raise UsageError(f"the state knows no track at or below {places}; nothing was forgotten")
    say(f"forgot {counted(number, 'track')}")


def vacuum(state: Annotated[Path, STATE]) -> None:
    """Give back the room of what was forgotten; brings a state file of an older program up to date, too."""
    with writable(state) as opened:
        before = opened.path.stat().st_size
        opened.vacuum()
    after = opened.path.stat().st_size
    say(f"{before / 1e6:.1f} MB, now {after / 1e6:.1f} MB")


def merge(
    state: Annotated[Path, typer.Argument(help="The state file that takes the others in; made if need be.")],
    others: Annotated[list[Path], typer.Argument(help="State files; they stay as they are.", metavar="OTHER...")],
) -> None:
    """Take other state files in: those of shards, or of other machines with the same paths.

    Of a track that both know, the later verdict and the later correction stay.
    """
    from edge_reclass.library import tending
    from edge_reclass.library.state import State

    for other in others:
        State.open(other).close()  # before anything is made or changed
    with writable(state, create=True) as opened:
        for other in others:
            merged = tending.merge(opened, other)
            say(
                f"{printable(str(other))}: {merged.new} new, {merged.newer} newer, {merged.kept} kept as they were,"
                f" {counted(merged.corrections, 'correction')}"
            )
