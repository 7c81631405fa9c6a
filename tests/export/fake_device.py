"""A GPU that is none: runs the fakes' engines with ONNX Runtime, and can be told to give wrong numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_reclass.backends import GraphSource
from edge_reclass.backends.ort.cpu import OrtBackend, OrtGraph
from edge_reclass.bundle import Bundle
from edge_reclass.engines import GraphChoice, choose_engines, engines_folder, target_for
from edge_reclass.errors import EngineError
from edge_reclass.host.gpu import Gpu

ORIN = Gpu("Orin", "8.7", "l4t-36.4.3")

Spoil = Callable[[Path, int, np.ndarray], np.ndarray]
"""(plan, batch, rows) → the rows that the device gives instead."""


class FakeGraph:
    """An ORT graph whose rows pass through ``spoil``."""

    def __init__(self, graph: OrtGraph, plan: Path, spoil: Spoil | None) -> None:
        self._graph, self._plan, self._spoil = graph, plan, spoil
        self.input = graph.input

    def run(self, batch: int) -> np.ndarray:
        rows = self._graph.run(batch)
        return rows if self._spoil is None else self._spoil(self._plan, batch, rows.copy())

    def device_times(self) -> None:
        return None

    def close(self) -> None:
        self._graph.close()


class FakeDevice(OrtBackend):
    """The device ``tensorrt`` for engines of tests/export/fakes/tensorrt; ``header`` gives what was asked of it."""

    name = "tensorrt"
    precisions = ("fp16", "fp32")

    def __init__(self, folder: Path, spoil: Spoil | None = None) -> None:
        super().__init__(1)
        self._folder, self._spoil = folder, spoil
        self.opened: list[Path] = []

    def choose_graphs(
        self, bundle: Bundle, batches: Mapping[str, int], engines: Path | None
    ) -> Mapping[str, GraphChoice]:
        target = target_for("tensorrt", "10.3.0", gpu=ORIN)
        return choose_engines(bundle, batches, target, engines_folder(bundle.digest, engines))

    def open_graph(self, file: GraphSource, **options: Any) -> FakeGraph:  # type: ignore[override]
        content = file.read_bytes() if isinstance(file, Path) else file.read()
        file = file if isinstance(file, Path) else file.path
        header, _, model = content.partition(b"\n")
        shapes = json.loads(header)["profiles"][0]["waveform"]
        if options["max_batch"] > shapes[2][0]:
            raise EngineError(f"{file}: batch {options['max_batch']} is beyond the profile's {shapes[2][0]}")
        self._folder.mkdir(exist_ok=True)
        onnx = self._folder / f"{len(self.opened)}.onnx"
        onnx.write_bytes(model)
        self.opened.append(file)
        return FakeGraph(super().open_graph(onnx, **options), file, self._spoil)


def header(plan: Path) -> dict[str, Any]:
    """What the fake builder was asked for when it made this engine."""
    found: dict[str, Any] = json.loads(plan.read_bytes().partition(b"\n")[0])
    return found
