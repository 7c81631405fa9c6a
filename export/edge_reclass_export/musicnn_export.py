"""From the musicnn wheel to a checked ONNX model, with what a manifest has to say about it."""

from __future__ import annotations

from pathlib import Path

from edge_reclass.errors import UsageError
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.musicnn_wheel import WHEEL_REQUIREMENT, MusicnnWheel
from edge_reclass_export.onnx_writer import WrittenFile, model_bytes, write_bytes
from edge_reclass_export.recipes.musicnn import (
    HOP_SAMPLES,
    SAMPLE_RATE,
    VARIANTS,
    WINDOW_SAMPLES,
    MusicnnOptions,
    Variant,
    build,
    contract,
    read_weights,
)

__all__ = ["export_musicnn", "musicnn_encoder", "parse_variant"]


def parse_variant(text: str) -> Variant:
    """The variant of that name. Raises ``UsageError`` where there is none."""
    for variant in VARIANTS:
        if text == variant:
            return variant
    raise UsageError(f"no variant {text!r} of musicnn; choose one of {', '.join(VARIANTS)}")


def musicnn_encoder(
    wheel: MusicnnWheel, *, variant: Variant = "msd", options: MusicnnOptions | None = None
) -> ExportedEncoder:
    """One variant as ``waveform[batch, 48128] → embedding[batch, dim]``, checked, not yet on the disk.

    Raises ``CheckpointError`` where the wheel's checkpoint is not intact.
    """
    variant = parse_variant(variant)
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
        model=model_bytes(model, expect=contract(options), notice=licence),
        rate=SAMPLE_RATE,
        window_samples=WINDOW_SAMPLES,
        hop_samples=HOP_SAMPLES,
        short="repeat",
        dim=options.dim,
        provenance=provenance,
        licence_file="LICENSE.musicnn",
        licence=licence,
    )


def export_musicnn(
    wheel: MusicnnWheel, output: Path, *, variant: Variant = "msd", options: MusicnnOptions | None = None
) -> WrittenFile:
    """Writes the encoder to the file ``output``, in one step. Raises ``UsageError`` where that fails."""
    return write_bytes(musicnn_encoder(wheel, variant=variant, options=options).model, output)
