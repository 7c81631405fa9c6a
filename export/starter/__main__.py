"""``python -m starter``: builds the embedded starter bundle. Needs the extra [fit], and export/ on the path."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_reclass.errors import EdgeReclassError
from edge_reclass_export.engine.report import say
from edge_reclass_export.musicnn_wheel import MusicnnWheel, fetch_wheel
from edge_reclass_export.recipe import need

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def starter(
    data: Annotated[Path, typer.Option(help="Folder with index.csv and the clips that it names.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle; an earlier one is replaced.")],
    wheel: Annotated[Path | None, typer.Option(help="musicnn-0.1.0 wheel file. [default: fetched with pip]")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads for the encoders.")] = 2,
) -> None:
    """Build the embedded starter bundle: fit its heads and range test, write its model card.

    Takes about 20 minutes on 2 cores. Exit codes: 0 good, 2 wrong usage, 4 the wheel is not intact.
    """
    need("onnx", "onnxruntime", "sklearn", extra="fit")
    from starter.build import build_starter

    source = fetch_wheel() if wheel is None else MusicnnWheel(wheel)
    print(build_starter(data, source, output, threads=threads, say=say))


if __name__ == "__main__":
    try:
        app()
    except EdgeReclassError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
