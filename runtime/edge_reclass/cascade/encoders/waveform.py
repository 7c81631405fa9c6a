"""Encoders of kind ``waveform``: windows as batches through one graph, of one track or of several at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends import Graph
from edge_reclass.bundle.encoders import WaveformEntry
from edge_reclass.cascade.encoders.base import Encoder, OpenRequest, Parts, open_graph
from edge_reclass.cascade.encoders.windowed import AddEmbeddings, WindowedEncoder, Windows
from edge_reclass.cascade.shared_batches import Fill, SharedGraph, add_rows
from edge_reclass.errors import EngineError

Entry = WaveformEntry


def open_encoder(request: OpenRequest) -> Encoder:
    """See ``cascade.encoders``."""
    stage = request.stage
    rule = Windows.of(stage.encoder, stage.loudness)
    if rule is None:
        raise EngineError(f"stage {stage.name}: a graph needs windows")
    if request.shared is not None:
        # The graph belongs to the SharedGraph.
        return WindowedEncoder(rule, stage.encoder.dim, _of_several(request.shared), lambda: None, "batch")
    graph = open_graph(stage, request.backend)
    return WindowedEncoder(rule, stage.encoder.dim, _of_one(graph), graph.close, "fill")


def _of_one(graph: Graph) -> AddEmbeddings:
    def add(fills: Sequence[Fill], total: NDArray[np.float64], parts: Parts) -> None:
        rows = graph.input
        for first in range(0, len(fills), len(rows)):
            began = time.perf_counter()
            batch = fills[first : first + len(rows)]
            for row, fill in zip(rows, batch, strict=False):
                fill(row)
            filled = time.perf_counter()
            embeddings = graph.run(len(batch))
            parts.add("fill", filled - began)
            parts.add("run", time.perf_counter() - filled)
            if (times := graph.device_times()) is not None:
                for name, seconds in times._asdict().items():
                    parts.add(name, seconds, "device")
            add_rows(total, embeddings)

    return add


def _of_several(graph: SharedGraph) -> AddEmbeddings:
    def add(fills: Sequence[Fill], total: NDArray[np.float64], parts: Parts) -> None:
        began = time.perf_counter()
        graph.add_embeddings(fills, total)
        parts.add("batch", time.perf_counter() - began)

    return add
