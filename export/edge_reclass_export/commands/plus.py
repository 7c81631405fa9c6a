"""``edge-reclass export plus``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_reclass_export.engine.report import say
from edge_reclass_export.recipe import Progress, need


def plus(
    efficientat: Annotated[Path, typer.Option(help="mn04_as_mAP_432.pt of EfficientAT's release v0.0.1 (MIT).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle; an earlier one is replaced.")],
    yamnet: Annotated[
        list[Path] | None,
        typer.Option(help="yamnet.h5 (Apache-2.0), or a .tflite of it; may be given twice. A fourth stage."),
    ] = None,
) -> None:
    """Make a better bundle from the embedded starter and your copy of public weights; needs no audio.

    The heads for them come with edge-reclass. Another file than the one that a head was fitted on is a warning, and an
    error where it does not fit. Exit codes: 0 good, 2 wrong usage, 4 a checkpoint is invalid or does not fit.
    """
    need("torch", "onnx", "onnxruntime")
    from edge_reclass_export.plus.assemble import assemble_plus, check_place, foreign
    from edge_reclass_export.plus.parts import read_parts
    from edge_reclass_export.recipes import efficientat as mobile_net
    from edge_reclass_export.recipes import yamnet as yam_net

    progress = Progress()
    parts = read_parts()
    check_place(output)
    first = mobile_net.read_source(efficientat)
    second = yam_net.read_source(yamnet) if yamnet else None

    def checked(stage: str, dim: int, provenance: Mapping[str, object]) -> dict[str, Any]:
        extra = parts.extras[stage]
        extra.check(stage, dim, str(provenance["source"]))
        if warning := foreign(extra, stage, provenance):
            say(warning)
        progress(f"{provenance['source']}: read; licence of the file from {extra.source}: {extra.licence}")
        return extra.options

    stage = mobile_net.STAGE
    options = checked(stage, first.weights.geometry.dim(parts.extras[stage].options["embedding"]), first.provenance)
    encoders = {stage: mobile_net.efficientat_encoder(first, **options, progress=progress)}
    if second is not None:
        stage = yam_net.STAGE
        options = checked(stage, second.weights.dim(parts.extras[stage].options["embedding"]), second.provenance)
        encoders[stage] = yam_net.yamnet_encoder(second, **options, progress=progress)
    assemble_plus(output, encoders, parts)
    say(f"done in {progress.seconds:.0f} s: {output}; next: edge-reclass classify --bundle {output} FOLDER")
