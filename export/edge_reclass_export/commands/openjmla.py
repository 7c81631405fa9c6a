"""``edge-reclass export openjmla``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_reclass.errors import UsageError
from edge_reclass_export.commands.common import FMA_GENRES, need, print_change, say, split_genres

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command(name="openjmla")(openjmla)


def openjmla(
    bundle: Annotated[Path, typer.Option(help="Put encoder, reference vectors and head into this bundle directory.")],
    checkpoint: Annotated[
        Path | None,
        typer.Argument(help="epoch_20.pth, or the checkpoint with the language model.", metavar="CHECKPOINT"),
    ] = None,
    head: Annotated[
        Path | None, typer.Option(help="Head of the stage: .onnx, .npz, or a torch or safetensors checkpoint.")
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
    int8: Annotated[bool, typer.Option("--int8", help="Add a graph with 8-bit weights, for CPUs.")] = False,
    random_init: Annotated[
        bool,
        typer.Option("--random-init", help="Untrained weights of full size in place of CHECKPOINT, for measurements."),
    ] = False,
) -> None:
    """Export OpenJMLA's audio encoder: 29.92 s at 16 kHz to 768 values, in float32 and float16.

    Only the encoder's tensors are taken from the checkpoint, and its size from them. A bundle with untrained weights is
    marked, and classify refuses it without --allow-random. What was written is described on standard output, as YAML.

    Exit codes: 0 good, 2 wrong usage, 4 the checkpoint, the head or the bundle is invalid.
    """
    if (checkpoint is not None) == random_init:
        raise UsageError("give either a CHECKPOINT or --random-init")
    need("onnx", "onnxscript", "torch", "safetensors")
    from edge_reclass.bundle import MANIFEST, load
    from edge_reclass_export.bundle_writer import check_bundle, put_encoder, stage_head
    from edge_reclass_export.excerpt_option import choose_excerpt
    from edge_reclass_export.openjmla_export import (
        OpenJmlaOptions,
        one_window,
        openjmla_encoder,
        random_source,
        read_source,
    )
    from edge_reclass_export.own_audio import read_windows, with_own_audio
    from edge_reclass_export.recipes.openjmla import SAMPLE_RATE
    from edge_reclass_export.recipes.openjmla_model import parse_pool

    options = OpenJmlaOptions(parse_pool(pool), int8)
    names = split_genres(genres)
    source = random_source() if checkpoint is None else read_source(checkpoint)
    geometry = source.weights.geometry
    # Whatever does not fit is to be known before the minutes that the export takes.
    check_bundle(bundle, stage, genres=names, dim=geometry.width, new_head=head is not None or random_init)
    own = reference_audio or []
    windows = read_windows(own, SAMPLE_RATE, geometry.window_samples)
    chosen_excerpt = choose_excerpt(excerpt, one_window(geometry.window_samples), bundle, stage)
    head_content: bytes | None = None
    head_source: dict[str, object] | None = None
    if head is not None:
        read = stage_head(bundle, head, geometry.width, names)
        head_content, head_source, names = read.content, read.source, read.genres
    elif random_init:
        from edge_reclass_export.mert_export import random_head

        if (bundle / MANIFEST).exists():
            classes = len(load(bundle).manifest.genres)
        else:
            names = names or list(FMA_GENRES)
            classes = len(names)
        head_content, head_source = random_head(geometry.width, classes), {"random_init": True}
        say("the head is untrained too")
    encoder = with_own_audio(openjmla_encoder(source, options), own, windows)
    change = put_encoder(
        bundle,
        encoder,
        stage=stage,
        head=head_content,
        head_source=head_source,
        genres=names,
        excerpt=chosen_excerpt,
    )
    print_change(change)
