"""``edge-reclass export openjmla``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_reclass.errors import UsageError
from edge_reclass_export.commands.common import (
    Activation,
    HeadLayers,
    Planned,
    Progress,
    exporting,
    need,
    plan_head,
    refuse_mix,
    split_genres,
)

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command(name="openjmla")(exporting(openjmla))


def openjmla(
    bundle: Annotated[Path, typer.Option(help="Put encoder, reference vectors and head into this bundle directory.")],
    checkpoint: Annotated[
        Path | None,
        typer.Argument(help="epoch_20.pth, or the checkpoint with the language model.", metavar="CHECKPOINT"),
    ] = None,
    head: Annotated[
        Path | None, typer.Option(help="Head of the stage: .onnx, .npz, .skops, or a torch or safetensors checkpoint.")
    ] = None,
    pool: Annotated[str, typer.Option(help="mean (of the patch tokens) or cls (the class token).")] = "mean",
    stage: Annotated[str, typer.Option(help="Name of the bundle's stage.")] = "jmla",
    genres: Annotated[str, typer.Option(help="Names of the head's classes, A,B,...; for a new bundle.")] = "",
    excerpt: Annotated[
        str | None,
        typer.Option(
            help="What the stage looks at: full, SECONDS (from the middle) or START:SECONDS."
            " [default: one window from the middle]"
        ),
    ] = None,
    reference_audio: Annotated[
        list[Path] | None,
        typer.Option(help="Add a window from the middle of this file to the reference vectors; may be repeated."),
    ] = None,
    activation: Activation = None,
    head_layers: HeadLayers = None,
    random_init: Annotated[
        bool,
        typer.Option("--random-init", help="Untrained weights of full size in place of CHECKPOINT, for measurements."),
    ] = False,
) -> Planned:
    """Export OpenJMLA's audio encoder: 29.92 s at 16 kHz to 768 values, in float32 and float16.

    Only the encoder's tensors are taken from the checkpoint, and its size from them. A bundle with untrained weights is
    marked, and classify refuses it without --allow-random. What was written is described on standard output, as YAML.

    Exit codes: 0 good, 2 wrong usage, 4 the checkpoint, the head or the bundle is invalid.
    """
    if (checkpoint is not None) == random_init:
        raise UsageError("give either a CHECKPOINT or --random-init")
    need("onnx", "onnxscript", "torch", "safetensors")
    from edge_reclass_export.bundle_writer import BundleChange, check_bundle, put_encoder
    from edge_reclass_export.excerpt_option import choose_excerpt
    from edge_reclass_export.head_files import parse_head_options
    from edge_reclass_export.openjmla_export import (
        OpenJmlaOptions,
        OpenJmlaSource,
        one_window,
        openjmla_encoder,
        random_source,
        read_source,
    )
    from edge_reclass_export.own_audio import read_windows, with_own_audio
    from edge_reclass_export.recipes.openjmla import SAMPLE_RATE
    from edge_reclass_export.recipes.openjmla_model import parse_pool

    options, names = OpenJmlaOptions(parse_pool(pool)), split_genres(genres)
    head_options = parse_head_options(activation, head_layers)

    def read() -> OpenJmlaSource:
        return random_source() if checkpoint is None else read_source(checkpoint)

    geometry = read().weights.geometry
    # Whatever does not fit is to be known before the minutes that the export takes.
    check_bundle(bundle, stage, genres=names, dim=geometry.width, new_head=head is not None or random_init)
    own = reference_audio or []
    windows = read_windows(own, SAMPLE_RATE, geometry.window_samples)
    chosen_excerpt = choose_excerpt(excerpt, one_window(geometry.window_samples), bundle, stage)
    found = plan_head(bundle, head, geometry.width, names, head_options, untrained=random_init)
    refuse_mix(head, found)
    classes = found.genres if found is not None else names

    def run(root: Path, progress: Progress) -> BundleChange:
        encoder = with_own_audio(openjmla_encoder(read(), options, progress), own, windows)
        content, known = (found.content, found.source) if found is not None else (None, None)
        return put_encoder(
            root, encoder, stage=stage, head=content, head_source=known, genres=classes, excerpt=chosen_excerpt
        )

    return Planned(stage, classes, found is not None, run)
