"""``edge-reclass watch``: stay, and keep a state up to date with folders as files come, change and go."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from edge_reclass.cli.stopping import TERMINATED, say
from edge_reclass.errors import StateBusyError, UsageError
from edge_reclass.run.text import printable

FORMATS = ("table", "jsonl", "csv")


def watch(
    roots: Annotated[list[str], typer.Argument(help="Folders to watch.", metavar="ROOT...")],
    state: Annotated[
        Path, typer.Option(metavar="FILE", help="The state file; as with classify, it is made where there is none.")
    ],
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Bundle directory. [default: the starter bundle]")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto | cpu | cuda | tensorrt.")] = "auto",
    policy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Policy of the bundle, or a preset. [default: the bundle's]")
    ] = None,
    min_confidence: Annotated[
        float | None, typer.Option(metavar="X", help="Answer unsure below this confidence. [default: the bundle's]")
    ] = None,
    format: Annotated[str, typer.Option("--format", "-f", metavar="NAME", help=f"{' | '.join(FORMATS)}.")] = "table",
    workers: Annotated[
        int,
        typer.Option("--workers", min=1, metavar="N", help="Worker processes that decode, one track at a time each."),
    ] = 1,
    settle: Annotated[
        float, typer.Option(metavar="SECONDS", help="A file is finished when it has not changed for so long.")
    ] = 10,
    rescan: Annotated[float, typer.Option(metavar="HOURS", help="Search the folders through so often, too.")] = 24,
    poll: Annotated[
        float,
        typer.Option(metavar="MINUTES", help="Search a folder so often where no events come (network, limit)."),
    ] = 15,
    then: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT", help="tag: write the genre into each file that has none, as tag STATE --write does."
        ),
    ] = None,
    idle: Annotated[
        float, typer.Option(metavar="MINUTES", help="Close the encoders after so long without anything to do.")
    ] = 5,
) -> None:
    """Watch folders, and classify what is new or changed as soon as its file is finished.

    Files are finished when size and time stay the same for a while. Hidden files, and downloads in progress by their
    names, are passed over. A folder that goes (a disk that is taken out) is waited for, and nothing is marked.

    Exit codes: 0 terminated, 2 wrong usage, 4 the bundle is invalid or an engine is missing, 5 the device cannot be
    used or was lost, 130 interrupted.
    """
    from edge_reclass.cascade import choose_policy, load_bundle
    from edge_reclass.library.basis import Basis
    from edge_reclass.library.state import State, absolute
    from edge_reclass.library.tags.reading import import_mutagen
    from edge_reclass.library.watching.access import OwnAccess
    from edge_reclass.library.watching.resident import Habits, Resident
    from edge_reclass.library.watching.tagging import write_genres
    from edge_reclass.run.output import open_output
    from edge_reclass.run.sinks import TextSink
    from edge_reclass.run.workers.pool import WorkerPool

    if format not in FORMATS:
        raise UsageError(f"--format: expected one of {', '.join(FORMATS)}, got {format!r}")
    for name, value in (("settle", settle), ("rescan", rescan), ("poll", poll), ("idle", idle)):
        if not 0 < value < float("inf"):
            raise UsageError(f"--{name}: expected a number above 0, got {value:g}")
    if then not in (None, "tag"):
        raise UsageError(f"--then: expected tag, got {then!r}")
    if then is not None:
        import_mutagen()
    paths = [absolute(root) for root in roots]
    for given, path in zip(roots, paths, strict=True):
        if os.path.exists(path) and not os.path.isdir(path):  # noqa: PTH110, PTH112
            raise UsageError(f"{given}: expected a folder, got a file; classify FILE --state STATE takes files")
    loaded = load_bundle(bundle)
    chosen = choose_policy(loaded, policy)
    try:
        State.open(state, create=True).close()  # what is wrong with it is said now
    except StateBusyError as busy:
        if busy.socket is None:
            raise
        raise UsageError(
            f"{state}: the service at {busy.socket} keeps it, and watches its roots if it was started with --watch:"
            " edge-reclass serve --watch --root FOLDER; or stop it first"
        ) from busy
    with open_output(None) as out:
        sink = TextSink(format, out, genres=loaded.manifest.genres, stages=chosen.stages)

        def told(text: str) -> None:
            say(printable(text))

        open_pool = partial(WorkerPool.open, workers, loaded, device, policy, min_confidence=min_confidence)
        resident = Resident(
            paths,
            OwnAccess(state, open_pool, idle=idle * 60, say=told),
            Basis.of(loaded, chosen, min_confidence),
            sink,
            habits=Habits(settle, rescan * 3600, poll * 60),
            then=None if then is None else write_genres,
            say=told,
        )
        say(f"watching {', '.join(map(printable, paths))}; Ctrl-C ends it")
        try:
            resident.run()
        except SystemExit as stopped:
            raise typer.Exit(0 if stopped.code == TERMINATED else int(stopped.code or 0)) from None
