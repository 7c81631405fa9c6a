"""``edge-reclass export yamnet``: YAMNet from Keras weights or TensorFlow Lite files, proved against torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass.errors import UsageError
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.recipe import EncoderPlan, encoder_recipe, need, one_of, window_length

if TYPE_CHECKING:
    from edge_reclass_export.exported import ExportedEncoder
    from edge_reclass_export.recipes.yamnet_model import Embedding, YamnetWeights
    from edge_reclass_export.torch_export import Progress

STAGE = "yamnet"

_PATCH_SECONDS = 0.96
_MOST_SECONDS = 60.0
_MOST_BYTES = 1 << 26
_HDF5 = b"\x89HDF\r\n\x1a\n"

_HELP = """Export YAMNet: 16 kHz audio to an embedding, in float32 and float16.

Give Google's yamnet.h5, or its TensorFlow Lite files: of two int8 files, each with other steps, the weights come out
nearly as they were in float32. What was written is described on standard output, as YAML.

Exit codes: 0 good, 2 wrong usage, 4 the checkpoint, the head or the bundle is invalid.
"""


def _read(
    checkpoint: Annotated[list[Path], typer.Argument(help="yamnet.h5, or one or two .tflite.", metavar="CHECKPOINT")],
    embedding: Annotated[
        str, typer.Option(help="pooled (1024: mean of the last layer) or logits (521 AudioSet classes).")
    ] = "pooled",
    window_seconds: Annotated[
        float, typer.Option(help="Length of the graph's input, rounded to whole patches of 0.96 s.")
    ] = 3 * _PATCH_SECONDS,
) -> EncoderPlan:
    from edge_reclass_export.recipes.yamnet_model import EMBEDDINGS, SAMPLE_RATE, window_samples

    chosen = one_of("embedding", embedding, EMBEDDINGS)
    window_length(window_seconds, SAMPLE_RATE, _MOST_SECONDS, least=_PATCH_SECONDS)
    patches = round(window_seconds / _PATCH_SECONDS)
    return EncoderPlan(
        SAMPLE_RATE,
        window_samples(patches),
        read_source(checkpoint).weights.dim(chosen),
        lambda _head, _mix: lambda progress: yamnet_encoder(read_source(checkpoint), chosen, patches, progress),
    )


RECIPE = encoder_recipe("yamnet", _read, help=_HELP, stage=STAGE, excerpt=True)


@dataclass(frozen=True)
class YamnetSource:
    """The weights, and where they are from: the part of the provenance that says so."""

    weights: YamnetWeights
    provenance: Mapping[str, object]


def read_source(checkpoint: Sequence[Path]) -> YamnetSource:
    """The network in ``yamnet.h5``, or in one or two TensorFlow Lite files.

    Raises:
        UsageError: a file cannot be read, or files are given that do not go together.
        CheckpointError: a file is damaged or holds no YAMNet, or two files hold different weights.
        MissingExtraError: h5py is needed and not installed.
    """
    from edge_reclass_export.recipes.yamnet_checkpoint import from_keras, from_tflite
    from edge_reclass_export.tflite_file import IDENTIFIER

    files = [(path, _content(path)) for path in checkpoint]
    kinds = {"keras" if raw.startswith(_HDF5) else "tflite" if raw[4:8] == IDENTIFIER else "" for _, raw in files}
    if "" in kinds:
        path = next(path for path, raw in files if not raw.startswith(_HDF5) and raw[4:8] != IDENTIFIER)
        raise CheckpointError(f"{path}: expected yamnet.h5 (HDF5) or a .tflite, its first bytes are those of neither")
    digests = [hashlib.sha256(raw).hexdigest() for _, raw in files]
    if len(files) > 2 or (len(files) == 2 and (kinds != {"tflite"} or digests[0] == digests[1])):
        raise UsageError(
            f"expected yamnet.h5 alone, or one or two different .tflite, got {', '.join(map(str, checkpoint))}"
        )
    if kinds == {"keras"}:
        need("h5py")
        weights = from_keras(checkpoint[0])
    else:
        weights = from_tflite(files)
    said = {
        "source": ", ".join(path.name for path in checkpoint),
        "source_sha256": ", ".join(digests),
        "licence": "Apache-2.0 where the weights are those of Google's yamnet.h5",
        "copyright": "The TensorFlow Authors 2019",
    }
    return YamnetSource(weights, said)


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise CheckpointError(f"{path}: larger than {_MOST_BYTES >> 20} MB, YAMNet has 15")
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    if not content:
        raise CheckpointError(f"{path}: the file is empty")
    return content


def yamnet_encoder(
    source: YamnetSource, embedding: Embedding = "pooled", patches: int = 3, progress: Progress = lambda _: None
) -> ExportedEncoder:
    """The encoder of ``source`` in all its precisions, proved against torch, not yet on the disk.

    Raises ``ParityError`` where a graph does not give what torch gives.
    """
    from edge_reclass_export.recipes.yamnet_model import FLOAT32_REGIONS, SAMPLE_RATE, build, window_samples
    from edge_reclass_export.torch_export import export_encoder

    return export_encoder(
        build(source.weights, embedding, patches),
        name=STAGE,
        rate=SAMPLE_RATE,
        window_samples=window_samples(patches),
        dim=source.weights.dim(embedding),
        provenance={
            "recipe": "yamnet",
            **source.provenance,
            "network": {"patches": patches, "parameters": source.weights.parameters},
            "embedding": embedding,
        },
        title="YAMNet (Plakal & Ellis, tensorflow/models research/audioset/yamnet)",
        float32_regions=FLOAT32_REGIONS,
        progress=progress,
    )
