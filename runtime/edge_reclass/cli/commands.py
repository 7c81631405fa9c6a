"""The command line: ``edge-reclass``. Mounts the commands that other packages offer as entry points."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from edge_reclass import __version__
from edge_reclass.cli.classify import classify
from edge_reclass.cli.stopping import INTERRUPTED, handle_signals, leave, say
from edge_reclass.cli.wording import in_words
from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass.run.output import StdoutClosed, open_output
from edge_reclass.run.text import json_text, printable

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "edge_reclass.commands"


class Commands(TyperGroup):
    """Our own commands, and those that other packages offer as entry points.

    An entry point is a Typer app with commands of its own, or a function, which is one command. A function with the
    attribute ``takes_all_arguments`` has a parser of its own, which reads ``sys.argv``. It is imported only
    when it is called or its help is shown, and one that cannot be imported is a line in the help.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, ours first."""
        own = super().list_commands(ctx)
        return [*own, *sorted({entry.name for entry in entry_points(group=ENTRY_POINTS)} - set(own))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command called ``cmd_name``; None where there is none."""
        command = super().get_command(ctx, cmd_name)
        if command is None:
            entry = next((one for one in entry_points(group=ENTRY_POINTS) if one.name == cmd_name), None)
            if entry is None:
                return None
            command = self.commands[cmd_name] = _load(entry)
        return in_words(command)


def entry_points(group: str) -> Iterable[EntryPoint]:
    """The entry points of all installed packages; what reads them is slow to import, and seldom needed."""
    from importlib import metadata

    return metadata.entry_points(group=group)


def _load(entry: EntryPoint) -> Any:
    """The command of an entry point; where it cannot be loaded, one that says why."""
    try:
        offered = entry.load()
        if isinstance(offered, typer.Typer):
            return typer.main.get_group(offered)
        if not callable(offered):
            raise TypeError(f"expected a Typer app or a function, got {type(offered).__name__}")
        return _command(entry.name, offered)
    except (Exception, SystemExit) as error:  # it is not our code: whatever it does, the other commands stay
        reason = printable(f"{type(error).__name__}: {error}")
        what = f"{entry.value} of {entry.dist.name}" if entry.dist is not None else entry.value

        def broken() -> None:
            raise EdgeReclassError(
                f"{entry.name}: the plug-in {what} cannot be loaded ({reason}); reinstall or remove it"
            )

        return _command(entry.name, broken, f"cannot be loaded: {reason}")


def _command(name: str, function: Any, help: str | None = None) -> Any:
    one = typer.Typer(add_completion=False, rich_markup_mode=None)
    settings: dict[str, Any] = {}
    if help is not None or getattr(function, "takes_all_arguments", False):
        settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    if getattr(function, "takes_all_arguments", False):
        settings["help_option_names"] = []
    one.command(name=name, help=help, context_settings=settings)(function)
    return typer.main.get_command(one)


app = typer.Typer(
    name="edge-reclass",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Classify the genre of music files, offline, with a staged cascade that leaves early when it is sure.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"edge-reclass {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Options that stand before the command."""


app.command()(classify)


@app.command()
def inspect(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle directory. [default: the starter bundle]")] = None,
    format: Annotated[str, typer.Option("--format", "-f", help="text | json.")] = "text",
) -> None:
    """Verify every file of a bundle and print what is in it."""
    from edge_reclass.bundle.loading import load, starter_path
    from edge_reclass.cascade.plan import choose_policy
    from edge_reclass.cli.inspection import describe, describe_json

    if format not in {"text", "json"}:
        raise UsageError(f"--format: expected text or json, got {format!r}")
    loaded = load(starter_path() if bundle is None else bundle)
    loaded.verify()
    choose_policy(loaded)
    with open_output(None) as write:
        write((json_text(describe_json(loaded), write.utf8) if format == "json" else describe(loaded)) + "\n")


def main() -> None:
    """Run the command line; every error that is raised on purpose ends as one message and its exit code."""
    _repair_streams()
    handle_signals()
    try:
        app()
    except EdgeReclassError as error:
        say("\n".join(map(printable, f"error: {error}".splitlines())))
        leave(error.exit_code)
    except SystemExit as error:
        leave(error.code if isinstance(error.code, int) else 0 if error.code is None else 1)
    except KeyboardInterrupt:
        leave(INTERRUPTED)
    except StdoutClosed:
        # What Python would flush at exit goes where nobody misses it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        leave(0)


def _repair_streams() -> None:
    """A service may start us with standard streams closed; then there is nowhere to write, which is no error."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
