"""``edge-reclass export fma-mlp``: a trained MLP on the 518 FMA features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_reclass_export.recipe import (
    Activation,
    HeadLayers,
    Planned,
    Progress,
    Recipe,
    need,
    one_of,
    say,
    split_genres,
)

if TYPE_CHECKING:
    from edge_reclass_export.bundle_writer import BundleChange

__all__ = ["RECIPE"]

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
    need("onnx", "torch", "safetensors")
    from edge_reclass_export.bundle_writer import check_bundle
    from edge_reclass_export.head_files import parse_head_options
    from edge_reclass_export.recipes.fma_mlp_model import FEATURES
    from edge_reclass_export.recipes.fma_mlp_stage import check_fma_mlp, export_fma_mlp, parse_rate

    names, chosen_rate = split_genres(genres), parse_rate(rate)
    given: dict[str, Any] = {
        "stage": stage,
        "features": one_of("features", features, FEATURES),
        "genres": names,
        "excerpt": excerpt,
        "options": parse_head_options(activation, head_layers),
    }
    check_bundle(bundle, stage, genres=names)
    read = check_fma_mlp(checkpoint, bundle, **given)
    for line in read.said:
        say(line)

    def run(root: Path, _: Progress) -> BundleChange:
        return export_fma_mlp(checkpoint, root, rate=chosen_rate, **given)

    return Planned(stage, read.genres, True, run)


RECIPE = Recipe("fma-mlp", _plan, _HELP)
