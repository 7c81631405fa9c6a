"""``edge-reclass export fma-mlp``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_reclass_export.commands.common import need, print_change, split_genres

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command(name="fma-mlp")(fma_mlp)


def fma_mlp(
    checkpoint: Annotated[
        Path, typer.Argument(help="msd_model.pth, or the bare state dict of an MLP.", metavar="CHECKPOINT")
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
) -> None:
    """Export a trained MLP on the 518 FMA features as a stage of a bundle.

    The scaler becomes a part of the head. What was written is described on standard output, as YAML.

    Exit codes: 0 good, 2 wrong usage, 4 the checkpoint or the bundle is invalid.
    """
    need("onnx", "torch", "safetensors")
    from edge_reclass_export.bundle_writer import check_bundle
    from edge_reclass_export.fma_mlp_export import export_fma_mlp, parse_rate
    from edge_reclass_export.recipes.fma_mlp import parse_features

    names, chosen_features, chosen_rate = split_genres(genres), parse_features(features), parse_rate(rate)
    check_bundle(bundle, stage, genres=names)
    change = export_fma_mlp(
        checkpoint,
        bundle,
        stage=stage,
        features=chosen_features,
        genres=names,
        excerpt=excerpt,
        rate=chosen_rate,
    )
    print_change(change)
