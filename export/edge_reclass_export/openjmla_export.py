"""From an OpenJMLA checkpoint to checked ONNX graphs, with what a manifest has to say about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import floor
from pathlib import Path

import onnx
import torch

from edge_reclass.bundle import ExcerptEntry
from edge_reclass.cascade import DEFAULT_BATCH
from edge_reclass_export.checkpoints import load_state
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.recipes.openjmla import (
    FULL_SIZE,
    SAMPLE_RATE,
    Geometry,
    OpenJmlaWeights,
    random_weights,
    read_weights,
)
from edge_reclass_export.recipes.openjmla_model import WIDER_ISLANDS, Pool, build
from edge_reclass_export.torch_export import Progress, export_precisions, mute

__all__ = [
    "STAGE",
    "OpenJmlaOptions",
    "OpenJmlaSource",
    "one_window",
    "openjmla_encoder",
    "random_source",
    "read_source",
]

STAGE = "jmla"
"""The stage's name by default: the policies of the older project know it by this one."""

RANDOM_SEED = 20_231_016


@dataclass(frozen=True)
class OpenJmlaOptions:
    """``pool``: what becomes of the tokens."""

    pool: Pool = "mean"


@dataclass(frozen=True)
class OpenJmlaSource:
    """The weights, and where they are from: the part of the provenance that says so."""

    weights: OpenJmlaWeights
    provenance: Mapping[str, object]


def read_source(checkpoint: Path) -> OpenJmlaSource:
    """The encoder in a checkpoint.

    Raises:
        UsageError: the file cannot be read.
        CheckpointError: it is damaged or holds no OpenJMLA encoder.
    """
    loaded = load_state(checkpoint)
    weights = read_weights(loaded)
    return OpenJmlaSource(
        weights,
        {
            "source": checkpoint.name,
            "source_sha256": loaded.sha256,
            "source_prefix": weights.prefix,
            "source_tensors_left_out": weights.others,
            "stored_dtypes": list(loaded.stored_dtypes),
            "licence": "that of the checkpoint, which does not state it; see UniMus/OpenJMLA",
        },
    )


def random_source(geometry: Geometry = FULL_SIZE) -> OpenJmlaSource:
    """Untrained weights at the published size, for measurements; their provenance says so."""
    source = {
        "random_init": True,
        "source": f"untrained weights, seed {RANDOM_SEED}",
        "licence": "none: nothing was trained",
    }
    return OpenJmlaSource(random_weights(geometry, RANDOM_SEED), source)


def openjmla_encoder(
    source: OpenJmlaSource, options: OpenJmlaOptions | None = None, progress: Progress = mute
) -> ExportedEncoder:
    """The encoder of ``source`` in all its precisions, proved against torch, not yet on the disk.

    Raises ``ParityError`` where a graph does not give what torch gives.
    """
    options = options or OpenJmlaOptions()
    geometry = source.weights.geometry
    export = export_precisions(
        build(source.weights, options.pool),
        name="openjmla",
        rate=SAMPLE_RATE,
        window_samples=geometry.window_samples,
        dim=geometry.width,
        wider_islands=WIDER_ISLANDS,
        max_batch=DEFAULT_BATCH,
        notice=(
            f"Audio encoder of OpenJMLA (arXiv 2310.10159), weights from {source.provenance['source']}\n\n"
            f"{source.provenance['licence']}"
        ),
        progress=progress,
    )
    return ExportedEncoder(
        name=STAGE,
        model=export.models["fp32"],
        others={"fp16": export.models["fp16"]},
        reference=export.reference,
        rate=SAMPLE_RATE,
        window_samples=geometry.window_samples,
        hop_samples=geometry.window_samples,
        short="repeat_centered",
        dim=geometry.width,
        provenance={
            "recipe": "openjmla",
            **source.provenance,
            "network": {**asdict(geometry), "heads": geometry.heads, "parameters": geometry.parameters},
            "pool": options.pool,
            "tools": {"torch": torch.__version__.partition("+")[0], "onnx": onnx.__version__},
            "parity": export.parity,
            "batches_proved": [int(key.removeprefix("batch_")) for key in export.parity["fp32"] if "batch" in key],
        },
    )


def one_window(window_samples: int) -> ExcerptEntry:
    """The middle of a track, as long as one window, rounded down to 10 ms.

    The reference looks at one window. A bundle's usual 30 s are 0.08 s longer than it and would make two that hold
    nearly the same, at twice the cost; rounding down keeps any file's sampling rate from adding a sample.
    """
    return ExcerptEntry(start="center", seconds=floor(100 * window_samples / SAMPLE_RATE) / 100)
