"""Encoders of kind ``waveform``: windows as batches through one graph, of one track or of several at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence

from edge_reclass.backends import Graph
from edge_reclass.bundle.encoders import WaveformEntry
from edge_reclass.cascade.encoders.base import Encoder, OpenRequest, Parts, is_cheap_ahead, open_graph
from edge_reclass.cascade.encoders.windowed import AddEmbeddings, WindowedEncoder, Windows
from edge_reclass.cascade.shared_batches import AddRows, Fill, SharedGraph
from edge_reclass.errors import EngineError

Entry = WaveformEntry


def open_encoder(request: OpenRequest) -> Encoder:
    """See ``cascade.encoders``."""
    stage = request.stage
    rule = Windows.of(stage.encoder, stage.loudness)
    if rule is None or request.backend is None:
        raise EngineError(f"stage {stage.name}: a graph needs windows and a device")
    if request.shared is not None:
        # The graph belongs to the SharedGraph.
        several = _of_several(request.shared)
        return WindowedEncoder(rule, stage.encoder.dim, several, lambda: None, "batch", ahead=request.shared.ahead)
    graph = open_graph(stage, request.backend)
    try:
        ahead = request.backend.shares_batches and is_cheap_ahead(graph, max(stage.steps, default=0))
    except BaseException:
        graph.close()
        raise
    return WindowedEncoder(rule, stage.encoder.dim, _of_one(graph), graph.close, "fill", ahead=ahead)


def _of_one(graph: Graph) -> AddEmbeddings:
    def add(fills: Sequence[Fill], rows: AddRows, parts: Parts) -> None:
        room = len(graph.input)
        for first in range(0, len(fills), room):
            began = time.perf_counter()
            batch = fills[first : first + room]
            for row, fill in zip(graph.input, batch, strict=False):
                fill(row)
            filled = time.perf_counter()
            embeddings = graph.run(len(batch))
            parts.add("fill", filled - began)
            parts.add("run", time.perf_counter() - filled)
            if (times := graph.device_times()) is not None:
                for name, seconds in times._asdict().items():
                    parts.add(name, seconds, "device")
            rows(embeddings)

    return add


def _of_several(graph: SharedGraph) -> AddEmbeddings:
    def add(fills: Sequence[Fill], rows: AddRows, parts: Parts) -> None:
        began = time.perf_counter()
        graph.embed(fills, rows)
        parts.add("batch", time.perf_counter() - began)

    return add
