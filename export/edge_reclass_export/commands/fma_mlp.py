"""``edge-reclass export fma-mlp``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_reclass_export.commands.common import (
    Activation,
    HeadLayers,
    Planned,
    Progress,
    exporting,
    need,
    say,
    split_genres,
)

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command(name="fma-mlp")(exporting(fma_mlp))


def fma_mlp(
    checkpoint: Annotated[
        Path, typer.Argument(help="msd_model.pth, another checkpoint of a head, .npz or .skops.", metavar="CHECKPOINT")
    ],
    bundle: Annotated[Path, typer.Option(help="Put the stage into this bundle directory; made where there is none.")],
    features: Annotated[
        str,
        typer.Option(
            help="What the head was trained on: fma-csv (FMA's published table), librosa-0.11 (features as this"
            " package computes them), or auto (as the scaler tells)."
        ),
    ] = "auto",
    genres: Annotated[str, typer.Option(help="Names of the head's classes, A,B,..., where CHECKPOINT has none.")] = "",
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
    """Export a trained MLP on the 518 FMA features as a stage of a bundle.

    The scaler becomes a part of the head. What was written is described on standard output, as YAML.

    Exit codes: 0 good, 2 wrong usage, 4 the checkpoint or the bundle is invalid.
    """
    need("onnx", "torch", "safetensors")
    from edge_reclass_export.bundle_writer import BundleChange, check_bundle
    from edge_reclass_export.fma_mlp_export import check_fma_mlp, export_fma_mlp, parse_rate
    from edge_reclass_export.head_files import parse_head_options
    from edge_reclass_export.recipes.fma_mlp import parse_features

    names, chosen_features, chosen_rate = split_genres(genres), parse_features(features), parse_rate(rate)
    options = parse_head_options(activation, head_layers)
    check_bundle(bundle, stage, genres=names)
    read = check_fma_mlp(
        checkpoint, bundle, stage=stage, features=chosen_features, genres=names, excerpt=excerpt, options=options
    )
    for line in read.said:
        say(line)

    def run(root: Path, _: Progress) -> BundleChange:
        return export_fma_mlp(
            checkpoint,
            root,
            stage=stage,
            features=chosen_features,
            genres=names,
            excerpt=excerpt,
            rate=chosen_rate,
            options=options,
        )

    return Planned(stage, read.genres, True, run)
