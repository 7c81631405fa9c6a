"""What a state file knows, to be looked at: counts, lists, one track in full, all of it in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_reclass.cli.stopping import say
from edge_reclass.errors import MissingExtraError, Status, UsageError
from edge_reclass.run.formatters import FORMATS
from edge_reclass.run.output import open_output
from edge_reclass.run.text import json_text, printable

if TYPE_CHECKING:
    from edge_reclass.library.rows import TrackRow, Wanted
    from edge_reclass.library.state import Counts, State
    from edge_reclass.run.output import Output

STATE = typer.Argument(help="A state file, made by classify --state.", metavar="STATE")

GENRE = typer.Option(metavar="NAME", help="Only tracks of this genre; what a person said counts.")
STATUS = typer.Option(metavar="NAME", help="Only tracks of this status: ok, unsure, corrupt, …; or corrected.")
BELOW = typer.Option(metavar="X", help="Only tracks of which the confidence is below X, 0 to 1.")
SINCE = typer.Option(metavar="DATE", help="Only what was classified or corrected since, as 2026-05-31 or with a time.")
FORMAT = typer.Option("--format", "-f", metavar="NAME", help=f"{' | '.join(FORMATS)}.")
TOP = typer.Option(min=1, metavar="N", help="Show this many genres per track.")
BOM_OPTION = typer.Option("--bom", help="Begin CSV with the mark by which spreadsheets know UTF-8.")


def status(
    state: Annotated[Path, STATE],
    format: Annotated[str, typer.Option("--format", "-f", metavar="NAME", help="text | json.")] = "text",
) -> None:
    """Count the tracks of a state file: by status, genre and deciding stage."""
    from dataclasses import asdict

    from edge_reclass.library.state import State

    _check_format(format)
    with State.open(state) as opened:
        counts = opened.counts()
    _print(format, asdict(counts), _described(counts))


def list_tracks(
    state: Annotated[Path, STATE],
    genre: Annotated[str | None, GENRE] = None,
    status: Annotated[str | None, STATUS] = None,
    below: Annotated[float | None, BELOW] = None,
    changed_since: Annotated[str | None, SINCE] = None,
    absent: Annotated[
        bool, typer.Option("--absent", help="What was not there when last looked for, instead of what was.")
    ] = False,
    format: Annotated[str, FORMAT] = "table",
    top: Annotated[int, TOP] = 1,
    bom: Annotated[bool, BOM_OPTION] = False,
) -> None:
    """List tracks of a state file, as classify prints verdicts; a person's correction wins.

    CSV has artist, title and genre of the file's tags beside the genre that it was given.
    """
    from edge_reclass.library.state import State

    wanted = _wanted(genre, status, below, changed_since, absent)
    _check_csv(format, bom)
    with State.open(state) as opened, open_output(None) as out:
        if not _write(opened, wanted, out, format, top, bom):
            say("no such tracks")


def export(
    state: Annotated[Path, STATE],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to this file; - is standard output, the default."),
    ] = None,
    genre: Annotated[str | None, GENRE] = None,
    status: Annotated[str | None, STATUS] = None,
    below: Annotated[float | None, BELOW] = None,
    changed_since: Annotated[str | None, SINCE] = None,
    absent: Annotated[
        bool | None,
        typer.Option("--absent/--present", help="Only what was not there when last looked for, or only what was."),
    ] = None,
    format: Annotated[str, FORMAT] = "jsonl",
    top: Annotated[int, TOP] = 1,
    bom: Annotated[bool, BOM_OPTION] = False,
) -> None:
    """Write every track of a state file, as list; with what was not there, too, unless told otherwise.

    The file appears when it is complete.
    """
    from edge_reclass.library.state import State
    from edge_reclass.run.output import descriptor_of
    from edge_reclass.run.output_file import refuse_inputs

    wanted = _wanted(genre, status, below, changed_since, absent)
    _check_csv(format, bom)
    with State.open(state) as opened:
        target = None if str(output) == "-" else output
        descriptor = 1 if target is None else descriptor_of(target)
        refuse_inputs(target, descriptor, [opened.path, *(row.file for row in opened.tracks())])
        with open_output(output) as out:
            number = _write(opened, wanted, out, format, top, bom)
    if target is not None:
        say(f"{number} tracks in {printable(str(target))}")


def show(
    state: Annotated[Path, STATE],
    track: Annotated[list[Path], typer.Argument(help="Tracks, by path.", metavar="TRACK...")],
    format: Annotated[str, typer.Option("--format", "-f", metavar="NAME", help="text | json.")] = "text",
) -> None:
    """Print all that is known of a track."""
    from edge_reclass.library.state import State

    _check_format(format)
    with State.open(state) as opened:
        rows = []
        for path in track:
            row = opened.track(path)
            if row is None:
                raise UsageError(
                    f"{printable(str(path))}: the state knows no such track; edge-reclass library list"
                    f" {printable(str(state))} prints those that it knows"
                )
            rows.append((row, opened.kept_stages(row.id)))
    for row, stages in rows:
        _print(format, _facts(row, stages), list(_told(row, stages)))


def _check_format(format: str) -> None:
    if format not in {"text", "json"}:
        raise UsageError(f"--format: expected text or json, got {format!r}")


def _check_csv(format: str, bom: bool) -> None:
    if format not in FORMATS:
        raise UsageError(f"--format: expected one of {', '.join(FORMATS)}, got {format!r}")
    if bom and format != "csv":
        raise UsageError(f"--bom goes with --format csv, got {format}")


def _print(format: str, plain: dict[str, Any], lines: list[str]) -> None:
    import json

    with open_output(None) as out:
        if format == "json":
            out(json_text(json.dumps(plain, ensure_ascii=False), out.utf8) + "\n")
        else:
            out("".join(f"{line}\n" for line in lines))


def _wanted(
    genre: str | None, status: str | None, below: float | None, since: str | None, absent: bool | None
) -> Wanted:
    from edge_reclass.library.rows import Wanted
    from edge_reclass.library.state import moment

    if status is not None and status not in (*Status, "corrected"):
        raise UsageError(f"--status: expected one of {', '.join(Status)}, corrected, got {status!r}")
    if below is not None and not 0 <= below <= 1:
        raise UsageError(f"--below: expected a number from 0 to 1, got {below:g}")
    try:
        at = None if since is None else moment(since)
    except ValueError:
        raise UsageError(f"--changed-since: expected a date as 2026-05-31, or with a time, got {since!r}") from None
    return Wanted(genre, status, below, at, absent)


def _write(state: State, wanted: Wanted, out: Output, format: str, top: int, bom: bool) -> int:
    """The tracks that are wanted and have a verdict; how many."""
    from edge_reclass.library import spreadsheet
    from edge_reclass.run.formatters import formatter

    number = 0

    def counted() -> Iterator[TrackRow]:
        nonlocal number
        for row in state.tracks(wanted):
            if row.verdict_json is not None:
                number += 1
                yield row

    if format == "csv":
        for line in spreadsheet.lines(counted(), tags=_can_read_tags()):
            out(spreadsheet.BOM + line if bom else line)
            bom = False
        return number
    view = formatter(format, genres=state.all_genres(), stages=state.stages(), top=top, utf8=out.utf8)
    out(view.begin())
    for row in counted():
        if verdict := row.final_verdict:
            out(view.verdict(verdict))
    out(view.end())
    return number


def _can_read_tags() -> bool:
    from edge_reclass.library.tags.reading import import_mutagen

    try:
        import_mutagen()
    except MissingExtraError as error:
        say(f"warning: artist, title and file_genre stay empty: {error}")
        return False
    return True


def _described(counts: Counts) -> list[str]:
    lines = [f"{'tracks':<14}{counts.tracks}"]
    for label, number in (
        ("absent", counts.absent),
        ("unclassified", counts.unclassified),
        ("corrected", counts.corrected),
    ):
        if number:
            lines.append(f"{label:<14}{number}")
    for label, table in (
        ("by status", counts.statuses),
        ("by genre", counts.genres),
        ("decided by", counts.decided_by),
    ):
        if table:
            width = max(len(printable(name)) for name in table)
            lines += ["", label, *(f"  {printable(name):<{width}}  {number:>7}" for name, number in table.items())]
    return lines


def _facts(row: TrackRow, stages: list[str]) -> dict[str, Any]:
    verdict = row.verdict
    return {
        "path": str(row.file),
        "genre": row.final_genre,
        "corrected": row.corrected,
        "verdict": None if verdict is None else verdict.to_dict(),
        "size": row.size,
        "mtime_ns": row.mtime_ns,
        "first_seen": row.first_seen,
        "last_seen": row.last_seen,
        "absent_since": row.absent_since,
        "embeddings": stages,
    }


def _told(row: TrackRow, stages: list[str]) -> Iterator[str]:
    from edge_reclass.library.tags import read
    from edge_reclass.run.formatters import explain

    verdict = row.verdict
    yield printable(str(row.file))
    if row.corrected is not None:
        yield f"    genre: {printable(row.corrected)}, corrected by a person"
    if verdict is None:
        yield "    not classified yet"
    else:
        genre = "" if verdict.genre is None else f", {printable(verdict.genre)} {verdict.confidence:.3f}"
        yield f"    verdict: {verdict.status}{genre}" + (f" ({printable(verdict.error)})" if verdict.error else "")
        yield from explain(verdict, 5).splitlines()
        rests = f"bundle {printable(verdict.bundle)}, policy {printable(verdict.policy)}"
        yield f"    by {verdict.program}, {rests}, {verdict.at}"
    if row.absent_since is None and _can_read_tags():
        tags = read(row.file)
        said = [
            ("artist", tags.artist),
            ("title", tags.title),
            ("album", tags.album),
            ("genre", "; ".join(tags.genres)),
        ]
        if text := ", ".join(f"{name} {printable(value)}" for name, value in said if value):
            yield f"    tags: {text}"
    if stages:
        yield f"    embeddings: {', '.join(map(printable, stages))}"
    yield f"    first seen {row.first_seen}, last seen {row.last_seen}"
    if row.absent_since is not None:
        yield f"    not there since {row.absent_since}"
