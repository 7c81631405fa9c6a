"""``edge-reclass export efficientat``: EfficientAT's MobileNetV3 of any width, proved against torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.recipe import EncoderPlan, encoder_recipe, one_of, window_length

if TYPE_CHECKING:
    from edge_reclass_export.exported import ExportedEncoder
    from edge_reclass_export.recipes.efficientat_model import EfficientAtWeights, Embedding
    from edge_reclass_export.torch_export import Progress

STAGE = "efficientat"

_MOST_SECONDS = 60.0
_LEAST_SECONDS = 0.1
_OTHER_TRAINING = re.compile(r"mn\d\d_(im)(?![a-z])|mn\d\d_as_(hop_(?!10_)\d+|mels_(?!128_)\d+|fc_s\d+|s\d{4})")
"""In a file's name: trained on pictures, or with another spectrogram or other strides, which no tensor shows."""

_HELP = """Export EfficientAT's MobileNetV3 (mn01 to mn40): 32 kHz audio to an embedding, in float32 and float16.

The width comes from the checkpoint. What was written is described on standard output, as YAML.

Exit codes: 0 good, 2 wrong usage, 4 the checkpoint, the head or the bundle is invalid.
"""


def _read(
    checkpoint: Annotated[Path, typer.Argument(help="mn04_as_mAP_432.pt or another width.", metavar="CHECKPOINT")],
    embedding: Annotated[
        str,
        typer.Option(help="pooled (mn04: 384), penultimate (512: the hidden layer) or logits (527 AudioSet classes)."),
    ] = "penultimate",
    window_seconds: Annotated[float, typer.Option(help="Length of the graph's input; it was trained on 10 s.")] = 10.0,
) -> EncoderPlan:
    from edge_reclass_export.recipes.efficientat_model import EMBEDDINGS, SAMPLE_RATE

    chosen = one_of("embedding", embedding, EMBEDDINGS)
    samples = window_length(window_seconds, SAMPLE_RATE, _MOST_SECONDS, least=_LEAST_SECONDS)
    return EncoderPlan(
        SAMPLE_RATE,
        samples,
        read_source(checkpoint).weights.geometry.dim(chosen),
        lambda _head, _mix: lambda progress: efficientat_encoder(read_source(checkpoint), chosen, samples, progress),
    )


RECIPE = encoder_recipe("efficientat", _read, help=_HELP, stage=STAGE, excerpt=True)


@dataclass(frozen=True)
class EfficientAtSource:
    """The weights, and where they are from: the part of the provenance that says so."""

    weights: EfficientAtWeights
    provenance: Mapping[str, object]


def read_source(checkpoint: Path) -> EfficientAtSource:
    """The network in a checkpoint.

    Raises:
        UsageError: the file cannot be read.
        CheckpointError: it is damaged or holds no such network, or its name is that of one with another front end.
    """
    from edge_reclass_export.checkpoints import load_state
    from edge_reclass_export.recipes.efficientat_model import read_weights

    if other := _OTHER_TRAINING.search(checkpoint.name):
        raise CheckpointError(
            f"{checkpoint}: {other[1] or other[2]!r} in its name: expected a network trained on AudioSet with the"
            " release's usual spectrogram (hop of 10 ms, 128 bands) and strides, e.g. mn04_as_mAP_432.pt"
        )
    loaded = load_state(checkpoint)
    weights = read_weights(loaded)
    said = {
        "source": checkpoint.name,
        "source_sha256": loaded.sha256,
        "source_prefix": weights.prefix,
        "stored_dtypes": list(loaded.stored_dtypes),
        "licence": "MIT where the file is one of fschmid56/EfficientAT, release v0.0.1",
        "copyright": "Florian Schmid 2022",
    }
    return EfficientAtSource(weights, said)


def efficientat_encoder(
    source: EfficientAtSource,
    embedding: Embedding = "penultimate",
    window_samples: int = 320_000,
    progress: Progress = lambda _: None,
) -> ExportedEncoder:
    """The encoder of ``source`` in all its precisions, proved against torch, not yet on the disk.

    Raises ``ParityError`` where a graph does not give what torch gives.
    """
    from edge_reclass_export.recipes.efficientat_model import FLOAT32_REGIONS, SAMPLE_RATE, build
    from edge_reclass_export.torch_export import export_encoder

    geometry = source.weights.geometry
    parameters = sum(tensor.numel() for name, tensor in source.weights.tensors.items() if ".running_" not in name)
    network = {key: value for key, value in asdict(geometry).items() if key != "blocks"}
    return export_encoder(
        build(source.weights, embedding),
        name=STAGE,
        rate=SAMPLE_RATE,
        window_samples=window_samples,
        dim=geometry.dim(embedding),
        provenance={
            "recipe": "efficientat",
            **source.provenance,
            "network": {"width": geometry.width, **network, "parameters": parameters},
            "embedding": embedding,
        },
        title="EfficientAT (Schmid et al., arXiv 2211.04772)",
        float32_regions=FLOAT32_REGIONS,
        progress=progress,
    )
