"""``edge-reclass bench report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_reclass.errors import UsageError

__all__ = ["report"]


def report(
    files: Annotated[list[Path], typer.Argument(help="Records of bench run or bench peers.", metavar="FILE...")],
    html: Annotated[
        Path | None, typer.Option(help="Write a page that opens offline, with pictures.", metavar="OUT.html")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
) -> None:
    """Show records: what was measured, on what, and every number; several files side by side.

    The page holds everything, the raw records too: no script, no net. Without --html, Markdown is printed.

    Exit codes: 0 good, 2 a file is no record, or the page cannot be written.
    """
    from edge_reclass_bench.report import html_page, markdown_report, read

    sources = read(files)
    if html is not None:
        _write(html, html_page(sources))
        print(f"wrote {html}", file=sys.stderr)
    if markdown or html is None:
        sys.stdout.write(markdown_report(sources))


def _write(path: Path, text: str) -> None:
    """The file appears complete or not at all."""
    if path.is_dir():
        raise UsageError(f"--html {path}: expected a file, got a folder; name a file in it")
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"--html {path}: cannot be written ({error.strerror or error})") from error
