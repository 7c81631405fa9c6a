"""``edge-reclass export mert``."""

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
    split_genres,
)

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command(name="mert")(exporting(mert))


def mert(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="Directory with config.json, preprocessor_config.json and the weights, the file with the weights in"
            " it, or the model's folder in the hub's cache.",
            metavar="CHECKPOINT",
        ),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Put encoder, head and reference vectors into this bundle directory.")
    ] = None,
    head: Annotated[
        Path | None, typer.Option(help="Head of the stage: .onnx, .npz, .skops, or a torch or safetensors checkpoint.")
    ] = None,
    layer: Annotated[
        str,
        typer.Option(
            help="Hidden state that becomes the embedding: last, a number from 0 on, mean-of-all, or a learned mix of"
            " all: mix (a Conv1d's weights), mix-plain or mix-softmax (a vector's)."
        ),
    ] = "last",
    layer_weights: Annotated[
        Path | None,
        typer.Option(help="The mix's weights: a checkpoint, .npz or .npy. [default: as they lie in the head's file]"),
    ] = None,
    window_seconds: Annotated[float, typer.Option(help="Length of the graph's input.")] = 5.0,
    stage: Annotated[str, typer.Option(help="Name of the bundle's stage.")] = "mert",
    genres: Annotated[str, typer.Option(help="Names of the head's classes, A,B,...; for a new bundle.")] = "",
    reference_audio: Annotated[
        list[Path] | None,
        typer.Option(help="Add a window from the middle of this file to the reference vectors; may be repeated."),
    ] = None,
    activation: Activation = None,
    head_layers: HeadLayers = None,
    random_init: Annotated[
        str | None,
        typer.Option(help="95m or 330m: untrained weights of that size instead of CHECKPOINT, for measurements."),
    ] = None,
) -> Planned:
    """Export a MERT checkpoint: float32 and float16, one window of 24 kHz audio to 768 or 1024 values.

    The size comes from the checkpoint and has to fit its config.json and the head. A bundle with untrained weights is
    marked, and classify refuses it without --allow-random. What was written is described on standard output, as YAML.

    Exit codes: 0 good, 2 wrong usage, 4 the checkpoint, the head or the bundle is invalid.
    """
    if bundle is None:
        raise UsageError("say where to: --bundle DIR")
    if (checkpoint is None) == (random_init is None):
        raise UsageError("give either a CHECKPOINT or --random-init 95m|330m")
    need("onnx", "onnxscript", "torch", "safetensors")
    from edge_reclass_export.bundle_writer import BundleChange, check_bundle, put_encoder
    from edge_reclass_export.head_files import parse_head_options
    from edge_reclass_export.layer_mix import LayerMix, mix_of, read_mix
    from edge_reclass_export.mert_export import MertOptions, mert_encoder, random_source, window_samples
    from edge_reclass_export.own_audio import read_windows, with_own_audio
    from edge_reclass_export.recipes.mert import Layer, MertSource, parse_layer, read_source

    wanted, names = parse_layer(layer), split_genres(genres)
    head_options = parse_head_options(activation, head_layers)

    def read() -> MertSource:
        return random_source(random_init or "") if checkpoint is None else read_source(checkpoint)

    source = read()
    width, states = source.config.hidden_size, source.config.num_hidden_layers + 1
    # Whatever does not fit is to be known before the minutes that the export takes.
    check_bundle(bundle, stage, genres=names, dim=width, new_head=head is not None or random_init is not None)
    found = plan_head(bundle, head, width, names, head_options, untrained=random_init is not None)
    beside = found.mix if found is not None else {}
    chosen: Layer | LayerMix
    if wanted == "mix" or wanted == "mix-plain" or wanted == "mix-softmax":  # noqa: PLR1714 - mypy narrows these
        if layer_weights is not None:
            chosen = read_mix(layer_weights, wanted, states)
        elif head is not None and beside:
            chosen = mix_of(head, beside, wanted, states)
        else:
            raise UsageError(f"--layer {wanted}: the weights lie in no file: give --layer-weights FILE")
    else:
        chosen = wanted
    if not isinstance(chosen, LayerMix) and (layer_weights is not None or beside):
        where = "--layer-weights goes" if layer_weights is not None else f"the layer weights in {head} go"
        raise UsageError(f"{where} with --layer mix, mix-plain or mix-softmax, got --layer {layer}")
    options = MertOptions(chosen, window_seconds)
    own = reference_audio or []
    windows = read_windows(own, source.preprocessing.sampling_rate, window_samples(source, options))
    del source  # read again when its turn comes: several checkpoints are never in memory at once

    def run(root: Path, progress: Progress) -> BundleChange:
        encoder = with_own_audio(mert_encoder(read(), options, progress), own, windows)
        content, known = (found.content, found.source) if found is not None else (None, None)
        return put_encoder(root, encoder, stage=stage, head=content, head_source=known, genres=classes)

    classes = found.genres if found is not None else names
    return Planned(stage, classes, found is not None, run)
