"""``edge-reclass export mert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_reclass.errors import UsageError
from edge_reclass_export.commands.common import FMA_GENRES, need, print_change, say, split_genres

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(mert)


def mert(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="Directory with config.json, preprocessor_config.json and model.safetensors or pytorch_model.bin.",
            metavar="CHECKPOINT_DIR",
        ),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Put encoder, head and reference vectors into this bundle directory.")
    ] = None,
    head: Annotated[
        Path | None, typer.Option(help="Head of the stage: .onnx, .npz, or a torch or safetensors checkpoint.")
    ] = None,
    layer: Annotated[
        str, typer.Option(help="Hidden state that becomes the embedding: last, a number from 0 on, or mean-of-all.")
    ] = "last",
    window_seconds: Annotated[float, typer.Option(help="Length of the graph's input.")] = 5.0,
    stage: Annotated[str, typer.Option(help="Name of the bundle's stage.")] = "mert",
    genres: Annotated[str, typer.Option(help="Names of the head's classes, A,B,...; for a new bundle.")] = "",
    reference_audio: Annotated[
        list[Path] | None,
        typer.Option(help="Add a window from the middle of this file to the reference vectors; may be repeated."),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Add a graph with 8-bit weights, for CPUs.")] = False,
    random_init: Annotated[
        str | None,
        typer.Option(help="95m or 330m: untrained weights of that size instead of CHECKPOINT_DIR, for measurements."),
    ] = None,
) -> None:
    """Export a MERT checkpoint: float32 and float16, one window of 24 kHz audio to 768 or 1024 values.

    The size comes from the checkpoint and has to fit its config.json and the head. A bundle with untrained weights is
    marked, and classify refuses it without --allow-random. What was written is described on standard output, as YAML.

    Exit codes: 0 good, 2 wrong usage, 4 the checkpoint, the head or the bundle is invalid.
    """
    if bundle is None:
        raise UsageError("say where to: --bundle DIR")
    if (checkpoint is None) == (random_init is None):
        raise UsageError("give either a CHECKPOINT_DIR or --random-init 95m|330m")
    need("onnx", "torch", "transformers", "safetensors")
    from edge_reclass.bundle import MANIFEST, load
    from edge_reclass_export.bundle_writer import check_bundle, put_encoder, stage_head
    from edge_reclass_export.mert_export import MertOptions, mert_encoder, random_head, random_source, window_samples
    from edge_reclass_export.own_audio import read_windows, with_own_audio
    from edge_reclass_export.recipes.mert import parse_layer, read_source

    options = MertOptions(parse_layer(layer), window_seconds, int8)
    names = split_genres(genres)
    source = random_source(random_init or "") if checkpoint is None else read_source(checkpoint)
    width = source.config.hidden_size
    # Whatever does not fit is to be known before the minutes that the export takes.
    new_head = head is not None or random_init is not None
    check_bundle(bundle, stage, genres=names, dim=width, new_head=new_head)
    own = reference_audio or []
    windows = read_windows(own, source.preprocessing.sampling_rate, window_samples(source, options))
    head_content: bytes | None = None
    head_source: dict[str, object] | None = None
    if head is not None:
        read = stage_head(bundle, head, width, names)
        head_content, head_source, names = read.content, read.source, read.genres
    elif random_init is not None:
        if (bundle / MANIFEST).exists():
            classes = len(load(bundle).manifest.genres)
        else:
            names = names or list(FMA_GENRES)
            classes = len(names)
        head_content, head_source = random_head(width, classes), {"random_init": True}
        say("the head is untrained too")
    encoder = with_own_audio(mert_encoder(source, options), own, windows)
    print_change(put_encoder(bundle, encoder, stage=stage, head=head_content, head_source=head_source, genres=names))
