"""``python -m starter``: builds the embedded starter bundle. Needs the extra [fit], and export/ on the path."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does, so that costs are the same

import typer

from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass_export.engine.report import say
from edge_reclass_export.musicnn_wheel import MusicnnWheel, fetch_wheel
from edge_reclass_export.recipe import need

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def starter(
    data: Annotated[Path, typer.Option(help="Folder with index.csv and the clips that it names.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle; an earlier one is replaced.")],
    efficientat: Annotated[Path | None, typer.Option(help="mn04_as_mAP_432.pt: starter plus is built too.")] = None,
    yamnet: Annotated[list[Path] | None, typer.Option(help="yamnet.h5 or a .tflite of it, for starter plus.")] = None,
    wheel: Annotated[Path | None, typer.Option(help="musicnn-0.1.0 wheel file. [default: fetched with pip]")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads for the encoders.")] = 2,
) -> None:
    """Build the embedded starter bundle: fit its heads and range test, write its model card.

    With --efficientat also the heads of starter plus, which the export package ships.
    Takes half an hour on 2 cores. Exit codes: 0 good, 2 wrong usage, 4 the wheel is not intact.
    """
    need("onnx", "onnxruntime", "sklearn", extra="fit")
    from starter.build import build_starter
    from starter.plus import read_sources

    if yamnet and efficientat is None:
        raise UsageError("--yamnet: starter plus needs --efficientat too")

    source = fetch_wheel() if wheel is None else MusicnnWheel(wheel)
    sources = read_sources(efficientat, yamnet or []) if efficientat else None
    print(build_starter(data, source, output, threads=threads, say=say, sources=sources))


if __name__ == "__main__":
    try:
        app()
    except EdgeReclassError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
