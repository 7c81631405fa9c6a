"""``edge-reclass library ...``: what a state file knows. One module per group of commands, one line each here."""

from __future__ import annotations

import typer

from edge_reclass.cli.library.looking import export, list_tracks, show, status
from edge_reclass.cli.library.tending import forget, merge, vacuum
from edge_reclass.cli.library.views import playlists, report, similar

app = typer.Typer(
    name="library",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Ask and tend a state file, which classify --state FILE makes.",
)

app.command()(status)
app.command(name="list")(list_tracks)
app.command()(show)
app.command()(export)
app.command()(similar)
app.command()(report)
app.command()(playlists)
app.command()(forget)
app.command()(vacuum)
app.command()(merge)
