"""``edge-reclass export fma-mlp``: a trained MLP on the 518 FMA features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_reclass_export.engine.report import say
from edge_reclass_export.recipe import (
    Activation,
    GenreMapFile,
    HeadLayers,
    Planned,
    Recipe,
    need,
    one_of,
    split_genres,
)

_HELP = """Export a trained MLP on the 518 FMA features as a stage of a bundle.

The scaler becomes a part of the head. What was written is described on standard output, as YAML.

Exit codes: 0 good, 2 wrong usage, 4 the checkpoint or the bundle is invalid.
"""


def _plan(
    checkpoint: Annotated[
        Path, typer.Argument(help="msd_model.pth, another checkpoint of a head, .npz or .skops.", metavar="CHECKPOINT")
    ],
    bundle: Annotated[Path, typer.Option(help="Put the stage into this bundle directory; made where there is none.")],
    features: Annotated[
        str,
        typer.Option(
            help="What the head was trained on: fma-csv (FMA's published table), librosa-0.11 (features as this"
            " package computes them), or auto (as the scaler shows)."
        ),
    ] = "auto",
    genres: Annotated[
        str, typer.Option(help="Names of the head's classes, A,B,..., where CHECKPOINT has none; the bundle's.")
    ] = "",
    map: GenreMapFile = None,
    stage: Annotated[str, typer.Option(help="Name of the bundle's stage.")] = "fma",
    excerpt: Annotated[
        str | None,
        typer.Option(
            help="What the head was trained on: full, SECONDS (from the middle) or START:SECONDS."
            " [default: full for fma-csv, else the bundle's]"
        ),
    ] = None,
    rate: Annotated[str, typer.Option(help="Rate at which the features are computed: Hz, or native.")] = "44100",
    activation: Activation = None,
    head_layers: HeadLayers = None,
) -> Planned:
    need("onnx", "torch", "safetensors")
    from edge_reclass_export.bundle_writer import check_bundle
    from edge_reclass_export.head_files import parse_head_options
    from edge_reclass_export.own_genres import read_own_genres
    from edge_reclass_export.recipes.fma_mlp_model import FEATURES
    from edge_reclass_export.recipes.fma_mlp_stage import parse_rate, read_fma_mlp

    names = split_genres(genres)
    check_bundle(bundle, stage, genres=names)
    read = read_fma_mlp(
        checkpoint,
        bundle,
        stage=stage,
        features=one_of("features", features, FEATURES),
        genres=names,
        excerpt=excerpt,
        rate=parse_rate(rate),
        own=None if map is None else read_own_genres(map),
        options=parse_head_options(activation, head_layers),
    )
    for line in read.head.said:
        say(line)
    return Planned(stage, read.genres, True, lambda root, _: read.put(root))


RECIPE = Recipe("fma-mlp", _plan, _HELP)
