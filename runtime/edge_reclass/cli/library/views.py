"""Views of a state file: what sounds alike, playlists, and the report as a page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass.cli.library.looking import STATE
from edge_reclass.cli.stopping import say
from edge_reclass.cli.summary import counted
from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass.run.output import open_output
from edge_reclass.run.output_file import refuse_inputs
from edge_reclass.run.text import json_text, printable

if TYPE_CHECKING:
    from edge_reclass.library.label import Labels
    from edge_reclass.library.rows import TrackRow

_PLAYLISTS = (".m3u8", ".m3u")
_MANY = 5000
"""Tracks whose tags take more than a moment to read."""


def similar(
    state: Annotated[Path, STATE],
    track: Annotated[Path, typer.Argument(help="A track of the state.", metavar="TRACK")],
    top: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="Show this many tracks.")] = 20,
    stage: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Compare what this stage heard. [default: the last that heard TRACK]"),
    ] = None,
    format: Annotated[str, typer.Option("--format", "-f", metavar="NAME", help="table | jsonl.")] = "table",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write a playlist instead, FILE.m3u8.")
    ] = None,
) -> None:
    """List the tracks that sound most like TRACK, by the embeddings that classify --keep-embeddings kept.

    Exit codes: 0 good, 2 wrong usage, TRACK is not in the state, or no embedding is kept.
    """
    import json

    from edge_reclass.library.label import Labels
    from edge_reclass.library.m3u import playlist_of
    from edge_reclass.library.playlists import SIMILAR, mark_of
    from edge_reclass.library.similar import similar as neighbours_of
    from edge_reclass.library.state import State

    if format not in {"table", "jsonl"}:
        raise UsageError(f"--format: expected table or jsonl, got {format!r}")
    if output is not None and output.suffix.lower() not in _PLAYLISTS:
        raise UsageError(f"--output: expected a playlist, {' or '.join(_PLAYLISTS)}, got {printable(str(output))}")
    refuse_inputs(output, None, [state])
    if output is not None and os.path.lexists(output) and mark_of(output) != SIMILAR:
        raise UsageError(
            f"--output {printable(str(output))}: was not made by similar, and would be overwritten; name another file"
        )
    with State.open(state) as opened:
        neighbours = neighbours_of(opened, track, top, stage)
    say(f"by {printable(neighbours.stage)}, which heard {counted(neighbours.compared, 'other track')}")
    if output is not None:
        labels = Labels()
        playlist = playlist_of((row.file for _, row in neighbours.found), output.parent, labels, (SIMILAR,))
        with open_output(output) as out:
            out(playlist.content().decode("utf-8"))
        _say_problems(labels, playlist.left_out)
        return
    with open_output(None) as out:
        if format == "table" and neighbours.found:
            genres = [_genre(row) for _, row in neighbours.found]
            width = max(map(len, genres))
            for (score, row), genre in zip(neighbours.found, genres, strict=True):
                out(f"{score:5.2f}  {genre:<{width}}  {printable(str(row.file))}\n")
        elif format == "jsonl":
            for score, row in neighbours.found:
                plain = {
                    "path": str(row.file),
                    "similarity": round(score, 6),
                    "stage": neighbours.stage,
                    "genre": row.final_genre,
                    "status": row.status,
                }
                out(json_text(json.dumps(plain, ensure_ascii=False), out.utf8) + "\n")


def playlists(
    state: Annotated[Path, STATE],
    folder: Annotated[Path, typer.Argument(help="Where the playlists lie; made where it is missing.", metavar="DIR")],
    min_confidence: Annotated[
        float, typer.Option(metavar="X", help="List only tracks of at least this confidence, 0 to 1.")
    ] = 0.0,
) -> None:
    """Write a playlist for each genre into DIR: GENRE.m3u8.

    What a person said wins over the verdict. Unsure tracks, and those that were not there when last looked for, are in
    no playlist. A playlist that this state made and that would be empty now is removed; files of others stay.

    Exit codes: 0 good, 2 wrong usage, or a file of that name is not ours.
    """
    from edge_reclass.library.label import Labels
    from edge_reclass.library.playlists import write_playlists
    from edge_reclass.library.state import State

    if not 0 <= min_confidence <= 1:
        raise UsageError(f"--min-confidence: expected a number from 0 to 1, got {min_confidence:g}")
    labels = Labels()
    with State.open(state) as opened:
        try:
            written = write_playlists(opened, folder, labels, min_confidence=min_confidence)
        except OSError as error:
            raise EdgeReclassError(f"{folder}: cannot be written ({error.strerror})") from error
    with open_output(None) as out:
        for name, tracks in written.playlists.items():
            out(f"{tracks:>7}  {printable(str(folder / name))}\n")
    _say_problems(labels, written.left_out)
    for file in written.removed:
        say(f"removed {printable(str(file))}: no track belongs there now")
    say(
        f"{counted(len(written.playlists), 'playlist')}, {written.changed} changed, {len(written.removed)} removed"
        if written.playlists or written.removed
        else "no track has a genre yet"
    )


def report(
    state: Annotated[Path, STATE],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The page; - is standard output.")],
    tags: Annotated[
        bool, typer.Option("--tags/--no-tags", help="Read artist and title from the files; off is quicker.")
    ] = True,
) -> None:
    """Write a page of the whole library: genres, confidence, who decided, and a table to search and sort.

    The page is one file. It loads nothing from anywhere, and can be sent or kept.
    """
    from edge_reclass.library.label import Labels
    from edge_reclass.library.report import page
    from edge_reclass.library.state import State

    target = None if str(output) == "-" else output
    refuse_inputs(target, None, [state])
    labels = Labels() if tags else None
    with State.open(state) as opened:
        if labels is not None and (tracks := opened.counts().tracks) >= _MANY:
            say(f"reading the tags of {tracks} files; --no-tags is quicker")
        text = page(opened, labels)
    with open_output(target) as out:
        out(text)
    if labels is not None:
        _say_problems(labels, [])


def _genre(row: TrackRow) -> str:
    return printable(row.final_genre or row.status or "-")


def _say_problems(labels: Labels, left_out: list[Path]) -> None:
    if labels.problem is not None:
        say(f"files stand for artist and title: {labels.problem}")
    if left_out:
        say(
            f"{counted(len(left_out), 'track')} left out, whose names are not UTF-8, have several lines or end in a "
            f"blank, such as {printable(str(left_out[0]))}"
        )
