"""``edge-reclass export musicnn``."""

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
    say,
    split_genres,
)

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command(name="musicnn")(exporting(musicnn))


def musicnn(
    wheel: Annotated[Path | None, typer.Option(help="musicnn-0.1.0 wheel file. [default: fetched with pip]")] = None,
    variant: Annotated[str, typer.Option(help="msd (Million Song Dataset) or mtt (MagnaTagATune).")] = "msd",
    embedding: Annotated[
        str,
        typer.Option(help="penultimate (200), pool (1506: means, then maxima) or penultimate+pool (1706)."),
    ] = "penultimate",
    tags: Annotated[bool, typer.Option("--tags", help="Add the 50 tags as a second output.")] = False,
    float16_cast: Annotated[
        bool, typer.Option("--float16-cast", help="Round the mel power to float16, as in training.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the ONNX file only.")] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Put encoder, reference vectors and licence into this bundle directory."),
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Name of the bundle's stage. [default: musicnn-VARIANT]")] = None,
    head: Annotated[
        Path | None,
        typer.Option(help="Head of the stage: .onnx, .npz, .skops, or a torch or safetensors checkpoint."),
    ] = None,
    genres: Annotated[str, typer.Option(help="Names of the head's classes, A,B,...; for a new bundle.")] = "",
    activation: Activation = None,
    head_layers: HeadLayers = None,
) -> Planned:
    """Export musicnn from the PyPI wheel's checkpoint, which is read and never installed or run.

    The graph takes 48128 samples at 16 kHz. What was written is described on standard output, as YAML.

    Exit codes: 0 good, 2 wrong usage, 4 the wheel, the head or the bundle is invalid.
    """
    if (output is None) == (bundle is None):
        raise UsageError("say where to: either --output FILE or --bundle DIR")
    if bundle is None and (head is not None or stage is not None or genres):
        raise UsageError("--head, --stage and --genres go with --bundle DIR")
    need("onnx")
    import yaml

    from edge_reclass_export.bundle_writer import BundleChange, check_bundle, put_encoder
    from edge_reclass_export.head_files import parse_head_options
    from edge_reclass_export.musicnn_export import musicnn_encoder, parse_variant
    from edge_reclass_export.musicnn_wheel import WHEEL_REQUIREMENT, MusicnnWheel, fetch_wheel
    from edge_reclass_export.onnx_writer import write_bytes
    from edge_reclass_export.recipes.musicnn import MusicnnOptions, parse_embedding

    options, chosen = MusicnnOptions(parse_embedding(embedding), tags, float16_cast), parse_variant(variant)
    names, head_options = split_genres(genres), parse_head_options(activation, head_layers)
    name = stage if stage is not None else f"musicnn-{chosen}"
    found = None
    if bundle is not None:
        check_bundle(bundle, name, genres=names, dim=options.dim, new_head=head is not None)
        found = plan_head(bundle, head, options.dim, names, head_options)
        refuse_mix(head, found)
    classes = found.genres if found is not None else names
    if wheel is None:
        say(f"fetching {WHEEL_REQUIREMENT} with pip, without its dependencies")
    source = fetch_wheel() if wheel is None else MusicnnWheel(wheel)

    def run(root: Path, progress: Progress) -> BundleChange:
        encoder = musicnn_encoder(source, variant=chosen, options=options)
        progress(f"fp32 graph made, {len(encoder.model) / 1e6:.0f} MB")
        if output is None:
            content, known = (found.content, found.source) if found is not None else (None, None)
            return put_encoder(root, encoder, stage=stage, head=content, head_source=known, genres=classes)
        written = write_bytes(encoder.model, output)
        described = {
            "file": str(written.path),
            "sha256": written.sha256,
            "bytes": written.bytes,
            "rate": encoder.rate,
            "window_samples": encoder.window_samples,
            "hop_samples": encoder.hop_samples,
            "dim": encoder.dim,
            "provenance": dict(encoder.provenance),
        }
        return BundleChange(yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=110), False, ())

    return Planned(name, classes, found is not None, run)
