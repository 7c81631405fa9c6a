"""Writes docs/cli.md, the help of every command, from the program itself.

    python docs/_scripts/cli_reference.py [--check]

``--check`` writes nothing and exits with 1 where the page is not what the program says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from edge_reclass.cli import app

PAGE = Path(__file__).parents[1] / "cli.md"

BEGINNING = """# Command line

The help of every command, as `edge-reclass COMMAND --help` prints it.
`python docs/_scripts/cli_reference.py` writes this page; do not edit it.
Exit codes and statuses: [Verdicts and exit codes](verdicts.md).
"""


def helps(command: Any, context: Any) -> Iterator[tuple[str, str]]:
    """Each command's path and its help, 80 columns wide, depth first."""
    yield context.command_path, command.get_help(context)
    for name in getattr(command, "list_commands", lambda _: [])(context):
        child = command.get_command(context, name)
        yield from helps(child, type(context)(child, info_name=name, parent=context))


def page() -> str:
    """The page as Markdown."""
    command = typer.main.get_command(app)
    context = command.context_class(
        command, info_name="edge-reclass", terminal_width=80, max_content_width=80, **command.context_settings
    )
    blocks = [f"## {path}\n\n```text\n{text.rstrip()}\n```\n" for path, text in helps(command, context)]
    return "\n".join([BEGINNING, *blocks])


def main() -> int:
    """Write the page, or check it."""
    text = page()
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") == text:
            return 0
        print(f"{PAGE}: not what the program says; run python docs/_scripts/cli_reference.py", file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
