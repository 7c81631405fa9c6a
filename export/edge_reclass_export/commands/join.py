"""``edge-reclass export join``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_reclass_export.engine.report import say
from edge_reclass_export.recipe import GenreMapFile, need, split_genres


def join(
    bundle: Annotated[
        Path, typer.Argument(help="Bundle directory, which gets the stages; made with --genres.", metavar="BUNDLE")
    ],
    other: Annotated[
        Path, typer.Argument(help="Bundle that they are copied from; starter is the embedded one.", metavar="OTHER")
    ],
    stage: Annotated[
        list[str] | None,
        typer.Option(help="Only this stage, and those whose embeddings its head takes; may be repeated."),
    ] = None,
    prefix: Annotated[str, typer.Option(help="Put before the stages' names, where the bundle has such already.")] = "",
    genres: Annotated[str, typer.Option(help="The bundle's genres, A,B,...; for a new bundle.")] = "",
    map: GenreMapFile = None,
) -> None:
    """Copy stages of another bundle, whose genres may be others, so that they vote together.

    A genre of the same name is the same, whatever its capitals, spaces and hyphens; --map says what the others are. The
    heads, their temperatures and range tests stay as they are; the policies of OTHER are left behind.

    Exit codes: 0 good, 2 wrong usage or a genre without counterpart, 4 a bundle is invalid or a stage cannot answer.
    """
    need("onnx", "onnxruntime")
    from edge_reclass.bundle import starter_path
    from edge_reclass_export.joining import join_bundles
    from edge_reclass_export.own_genres import read_own_genres

    own = None if map is None else read_own_genres(map)
    new = split_genres(genres)
    source = starter_path() if str(other) == "starter" and not other.exists() else other
    for note in join_bundles(bundle, source, stages=stage or (), prefix=prefix, genres=new, own=own):
        say(note)
    say(f"next: edge-reclass verify {bundle}")
