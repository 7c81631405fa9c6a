"""Tables for people, JSON for machines, and a line or a bar that says how far a build is."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:  # every command's help imports this module, and the other one is slow to import
    from edge_reclass_export.engine.process import OnEvent


def say(text: str) -> None:
    """To standard error, where everything goes that is no result."""
    print(text, file=sys.stderr)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be; the last one is not filled up."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    texts = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(text.rstrip() for text in texts)


def json_text(value: object) -> str:
    """JSON for machines; a number that is not finite is null."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


@contextmanager
def progress_bar(what: str, *, verbose: bool) -> Iterator[OnEvent]:
    """A bar while one engine is built, on a terminal only; elsewhere a line at the start.

    With ``verbose``, TensorRT's own errors and warnings are shown.
    """

    def speak(event: Mapping[str, Any]) -> None:
        if event["event"] == "note":
            say(f"{what}: {event['text']}")
        elif event["event"] == "log" and verbose:
            say(f"{what}: TensorRT {event['level']}: {event['text']}")

    if not sys.stderr.isatty():
        say(f"{what}: building")
        yield speak
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[phase]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, phase="", start=True)

        def show(event: Mapping[str, Any]) -> None:
            if event["event"] != "progress":
                speak(event)
                return
            steps = f" {event['phase_done']}/{event['phase_total']}" if event["phase_total"] > 1 else ""
            bar.update(task, completed=event["done"], total=event["total"] or None, phase=f"{event['phase']}{steps}")

        yield show
