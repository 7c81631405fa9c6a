"""A recipe in one module, as a newcomer writes one: the mean of a window's loudness in eight bands of equal width."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass.errors import UsageError
from edge_reclass_export.recipe import EncoderPlan, encoder_recipe

if TYPE_CHECKING:
    from edge_reclass_export.exported import ExportedEncoder

RATE, WINDOW, DIM = 8_000, 4_000, 8


def _read(
    weights: Annotated[Path, typer.Argument(help="An .npy file with the transform, [4000, 8].", metavar="WEIGHTS")],
    gain: Annotated[float, typer.Option(help="By which the transform is multiplied.")] = 1.0,
) -> EncoderPlan:
    if not gain > 0.0:
        raise UsageError(f"--gain: expected a positive number, got {gain:g}")
    return EncoderPlan(RATE, WINDOW, DIM, lambda _head, _mix: lambda _progress: _encoder(weights, gain))


def _encoder(weights: Path, gain: float) -> ExportedEncoder:
    import numpy as np

    from edge_reclass_export.exported import ExportedEncoder
    from edge_reclass_export.graph import GraphBuilder
    from edge_reclass_export.onnx_writer import BATCH, GraphInterface, model_bytes

    graph = GraphBuilder("toy")
    waveform = graph.input("waveform", (BATCH, WINDOW))
    transform = graph.weight(gain * np.load(weights), "transform")
    bands = graph.op("Abs", graph.op("MatMul", waveform, transform, name="bands"), name="loudness")
    graph.output(bands, "embedding", (BATCH, DIM))
    return ExportedEncoder(
        name="toy",
        model=model_bytes(graph.model(), expect=GraphInterface.encoder(WINDOW, DIM)),
        rate=RATE,
        window_samples=WINDOW,
        hop_samples=WINDOW,
        short="repeat",
        dim=DIM,
        provenance={"recipe": "toy", "source": weights.name, "licence": "none"},
    )


RECIPE = encoder_recipe("toy", _read, help="Export the toy encoder.", stage="toy", needs=("onnx",))
