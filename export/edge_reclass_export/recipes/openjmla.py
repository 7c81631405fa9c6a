"""``edge-reclass export openjmla``: OpenJMLA's audio encoder, in float32 and float16, proved against torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass.errors import UsageError
from edge_reclass_export.recipe import EncoderPlan, encoder_recipe, one_of

if TYPE_CHECKING:
    from edge_reclass.bundle import ExcerptEntry
    from edge_reclass_export.exported import ExportedEncoder
    from edge_reclass_export.recipes.openjmla_model import Geometry, OpenJmlaWeights, Pool
    from edge_reclass_export.torch_export import Progress

STAGE = "jmla"
"""The stage's name by default: the policies of the older project know it by this one."""

RANDOM_SEED = 20_231_016

_HELP = """Export OpenJMLA's audio encoder: 29.92 s at 16 kHz to 768 values, in float32 and float16.

Only the encoder's tensors are taken from the checkpoint, and its size from them. A bundle with untrained weights is
marked, and classify refuses it without --allow-random. What was written is described on standard output, as YAML.

Exit codes: 0 good, 2 wrong usage, 4 the checkpoint, the head or the bundle is invalid.
"""


def _read(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(help="epoch_20.pth, or the checkpoint with the language model.", metavar="CHECKPOINT"),
    ] = None,
    pool: Annotated[str, typer.Option(help="mean (of the patch tokens) or cls (the class token).")] = "mean",
    random_init: Annotated[
        bool,
        typer.Option("--random-init", help="Untrained weights of full size in place of CHECKPOINT, for measurements."),
    ] = False,
) -> EncoderPlan:
    if (checkpoint is not None) == random_init:
        raise UsageError("give either a CHECKPOINT or --random-init")
    from edge_reclass_export.recipes.openjmla_model import POOLS, SAMPLE_RATE

    chosen = one_of("pooling", pool, POOLS)

    def read() -> OpenJmlaSource:
        return random_source() if checkpoint is None else read_source(checkpoint)

    geometry = read().weights.geometry
    return EncoderPlan(
        SAMPLE_RATE,
        geometry.window_samples,
        geometry.width,
        lambda _head, _mix: lambda progress: openjmla_encoder(read(), chosen, progress),
        untrained=random_init,
        excerpt=one_window(geometry.window_samples),
    )


RECIPE = encoder_recipe("openjmla", _read, help=_HELP, stage=STAGE, excerpt=True)


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
    from edge_reclass_export.checkpoints import load_state
    from edge_reclass_export.recipes.openjmla_checkpoint import read_weights

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


def random_source(geometry: Geometry | None = None) -> OpenJmlaSource:
    """Untrained weights, of the published size by default, for measurements; their provenance says so."""
    from edge_reclass_export.recipes.openjmla_checkpoint import FULL_SIZE, random_weights

    source = {
        "random_init": True,
        "source": f"untrained weights, seed {RANDOM_SEED}",
        "licence": "none: nothing was trained",
    }
    return OpenJmlaSource(random_weights(geometry or FULL_SIZE, RANDOM_SEED), source)


def openjmla_encoder(
    source: OpenJmlaSource, pool: Pool = "mean", progress: Progress = lambda _: None
) -> ExportedEncoder:
    """The encoder of ``source`` in all its precisions, proved against torch, not yet on the disk.

    Raises ``ParityError`` where a graph does not give what torch gives.
    """
    from edge_reclass_export.recipes.openjmla_model import FLOAT32_REGIONS, SAMPLE_RATE, build
    from edge_reclass_export.torch_export import export_encoder

    geometry = source.weights.geometry
    parameters = sum(tensor.numel() for tensor in source.weights.tensors.values())
    return export_encoder(
        build(source.weights, pool),
        name="openjmla",
        stage=STAGE,
        rate=SAMPLE_RATE,
        window_samples=geometry.window_samples,
        dim=geometry.width,
        short="repeat_centered",
        provenance={
            "recipe": "openjmla",
            **source.provenance,
            "network": {**asdict(geometry), "heads": geometry.heads, "parameters": parameters},
            "pool": pool,
        },
        title="Audio encoder of OpenJMLA (arXiv 2310.10159)",
        float32_regions=FLOAT32_REGIONS,
        progress=progress,
    )


def one_window(window_samples: int) -> ExcerptEntry:
    """The middle of a track, as long as one window, rounded down to 10 ms.

    The reference looks at one window. A bundle's usual 30 s are 0.08 s longer than it and would make two that hold
    nearly the same, at twice the cost; rounding down keeps any file's sampling rate from adding a sample.
    """
    from edge_reclass.bundle import ExcerptEntry
    from edge_reclass_export.recipes.openjmla_model import SAMPLE_RATE

    return ExcerptEntry(start="center", seconds=floor(100 * window_samples / SAMPLE_RATE) / 100)
