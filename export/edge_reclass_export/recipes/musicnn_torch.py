"""``edge-reclass export musicnn-torch``: musicnn, FCN and CRNN as torch checkpoints, proved against torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass_export.recipe import EncoderPlan, encoder_recipe, one_of, window_length

if TYPE_CHECKING:
    from edge_reclass_export.exported import ExportedEncoder
    from edge_reclass_export.recipes.musicnn_torch_model import Embedding, TaggerWeights
    from edge_reclass_export.torch_export import Progress

STAGE = "musicnn-torch"

_HELP = """Export a tagger of sota-music-tagging-models (musicnn, FCN or CRNN): 16 kHz audio to an embedding.

Which of the three it is comes from the checkpoint. The graphs are in float32 and float16. What was written is described
on standard output, as YAML.

Exit codes: 0 good, 2 wrong usage, 4 the checkpoint, the head or the bundle is invalid.
"""


def _read(
    checkpoint: Annotated[Path, typer.Argument(help="The state dict, e.g. best_model.pth.", metavar="CHECKPOINT")],
    embedding: Annotated[
        str, typer.Option(help="penultimate (musicnn: 200, FCN: 64, CRNN: 32) or logits (50 tags).")
    ] = "penultimate",
    window_seconds: Annotated[
        float | None,
        typer.Option(help="Length of the graph's input. [default: as trained: musicnn 3, FCN and CRNN 29]"),
    ] = None,
) -> EncoderPlan:
    from edge_reclass_export.recipes.musicnn_torch_model import EMBEDDINGS, FRAME_HOP, FRAMES, SAMPLE_RATE
    from edge_reclass_export.recipes.musicnn_torch_model import TRAINED_SECONDS as TRAINED

    chosen = one_of("embedding", embedding, EMBEDDINGS)
    weights = read_source(checkpoint).weights
    seconds = TRAINED[weights.variant] if window_seconds is None else window_seconds
    fewest, most = FRAMES[weights.variant]
    shortest, longest = (fewest - 1) * FRAME_HOP / SAMPLE_RATE, (most * FRAME_HOP - 1) / SAMPLE_RATE
    samples = window_length(seconds, SAMPLE_RATE, longest, least=shortest)
    return EncoderPlan(
        SAMPLE_RATE,
        samples,
        weights.dim(chosen),
        lambda _head, _mix: lambda progress: tagger_encoder(read_source(checkpoint), chosen, samples, progress),
    )


RECIPE = encoder_recipe("musicnn-torch", _read, help=_HELP, stage=STAGE, excerpt=True)


@dataclass(frozen=True)
class TaggerSource:
    """The weights, and where they are from: the part of the provenance that says so."""

    weights: TaggerWeights
    provenance: Mapping[str, object]


def read_source(checkpoint: Path) -> TaggerSource:
    """The network in a checkpoint.

    Raises:
        UsageError: the file cannot be read.
        CheckpointError: it is damaged or holds none of the networks.
    """
    from edge_reclass_export.checkpoints import load_state
    from edge_reclass_export.recipes.musicnn_torch_model import read_weights

    loaded = load_state(checkpoint)
    weights = read_weights(loaded)
    said = {
        "source": checkpoint.name,
        "source_sha256": loaded.sha256,
        "source_prefix": weights.prefix,
        "stored_dtypes": list(loaded.stored_dtypes),
        "licence": "MIT where the file is one of minzwon/sota-music-tagging-models",
        "copyright": "Music Technology Group, Universitat Pompeu Fabra 2020",
    }
    return TaggerSource(weights, said)


def tagger_encoder(
    source: TaggerSource,
    embedding: Embedding = "penultimate",
    window_samples: int = 48_000,
    progress: Progress = lambda _: None,
) -> ExportedEncoder:
    """The encoder of ``source`` in all its precisions, proved against torch, not yet on the disk.

    Raises ``ParityError`` where a graph does not give what torch gives.
    """
    from edge_reclass_export.recipes.musicnn_torch_model import FLOAT32_REGIONS, SAMPLE_RATE, build
    from edge_reclass_export.torch_export import export_encoder

    weights = source.weights
    return export_encoder(
        build(weights, embedding),
        name=STAGE,
        rate=SAMPLE_RATE,
        window_samples=window_samples,
        dim=weights.dim(embedding),
        provenance={
            "recipe": "musicnn-torch",
            **source.provenance,
            "network": {"variant": weights.variant, "parameters": weights.parameters},
            "embedding": embedding,
        },
        title="Music tagging models (Won et al., arXiv 2006.00751)",
        float32_regions=FLOAT32_REGIONS[weights.variant],
        progress=progress,
    )
