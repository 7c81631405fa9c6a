"""``edge-reclass export musicnn``: from the musicnn wheel to a checked ONNX model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_reclass_export.engine.report import say
from edge_reclass_export.recipe import EncoderPlan, Export, encoder_recipe, one_of

if TYPE_CHECKING:
    from edge_reclass_export.exported import ExportedEncoder
    from edge_reclass_export.musicnn_wheel import MusicnnWheel
    from edge_reclass_export.recipe import Progress
    from edge_reclass_export.recipes.musicnn_model import MusicnnOptions, Variant

_HELP = """Export musicnn from the PyPI wheel's checkpoint, which is read and never installed or run.

The graph takes 48128 samples at 16 kHz. What was written is described on standard output, as YAML.

Exit codes: 0 good, 2 wrong usage, 4 the wheel, the head or the bundle is invalid.
"""


def _read(
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
) -> EncoderPlan:
    from edge_reclass_export.musicnn_wheel import WHEEL_REQUIREMENT, MusicnnWheel, fetch_wheel
    from edge_reclass_export.recipes.musicnn_model import (
        EMBEDDINGS,
        SAMPLE_RATE,
        VARIANTS,
        WINDOW_SAMPLES,
        MusicnnOptions,
    )

    options = MusicnnOptions(one_of("embedding", embedding, EMBEDDINGS), tags, float16_cast)
    chosen = one_of("variant", variant, VARIANTS)

    def prepare(_head: Path | None, _mix: Mapping[str, Any]) -> Export:
        if wheel is None:
            say(f"fetching {WHEEL_REQUIREMENT} with pip, without its dependencies")
        source = fetch_wheel() if wheel is None else MusicnnWheel(wheel)

        def export(progress: Progress) -> ExportedEncoder:
            encoder = musicnn_encoder(source, variant=chosen, options=options)
            progress(f"fp32 graph made, {len(encoder.model) / 1e6:.0f} MB")
            return encoder

        return export

    return EncoderPlan(SAMPLE_RATE, WINDOW_SAMPLES, options.dim, prepare, stage=f"musicnn-{chosen}")


RECIPE = encoder_recipe("musicnn", _read, help=_HELP, stage=None, needs=("onnx",), reference_audio=False, output=True)


def musicnn_encoder(
    wheel: MusicnnWheel, *, variant: Variant = "msd", options: MusicnnOptions | None = None
) -> ExportedEncoder:
    """One variant as ``waveform[batch, 48128] → embedding[batch, dim]``, checked, not yet on the disk.

    Raises ``CheckpointError`` where the wheel's checkpoint is not intact.
    """
    from edge_reclass_export.exported import ExportedEncoder
    from edge_reclass_export.musicnn_wheel import WHEEL_REQUIREMENT
    from edge_reclass_export.onnx_writer import model_bytes
    from edge_reclass_export.recipes.musicnn_model import (
        HOP_SAMPLES,
        SAMPLE_RATE,
        WINDOW_SAMPLES,
        MusicnnOptions,
        build,
        interface,
        read_weights,
    )

    options = options or MusicnnOptions()
    licence = wheel.licence()
    model = build(read_weights(wheel.checkpoint(variant)), options)
    provenance: dict[str, object] = {
        "recipe": "musicnn",
        "source": f"PyPI wheel {WHEEL_REQUIREMENT}, musicnn/{variant.upper()}_musicnn",
        "source_sha256": wheel.sha256,
        "licence": "ISC",
        "copyright": "Music Technology Group, Universitat Pompeu Fabra 2019; code by Jordi Pons",
        "embedding": options.embedding,
        "float16_cast": options.float16_cast,
    }
    if options.tags:
        provenance["tag_names"] = list(wheel.tag_names(variant))
    return ExportedEncoder(
        name=f"musicnn-{variant}",
        model=model_bytes(model, expect=interface(options), notice=licence),
        rate=SAMPLE_RATE,
        window_samples=WINDOW_SAMPLES,
        hop_samples=HOP_SAMPLES,
        short="repeat",
        dim=options.dim,
        provenance=provenance,
        licence_file="LICENSE.musicnn",
        licence=licence,
    )
