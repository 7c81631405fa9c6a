"""A device for tests of the pipeline: ONNX Runtime on the CPU, sharing batches; it can be held, counted and broken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_reclass import CascadePool
from edge_reclass.backends.base import DeviceTimes
from edge_reclass.backends.ort.cpu import OrtBackend, OrtGraph
from traced import traced

Fault = Callable[[np.ndarray], None]
"""Is shown the rows of a batch before they are run, and may raise."""


class HeldGraph:
    """Runs when ``gate`` is open. ``sizes`` are the batches that were run; ``users`` the threads that ran them."""

    def __init__(self, graph: OrtGraph, device: SharingDevice) -> None:
        self._graph, self._device = graph, device
        self.input = graph.input
        self.closed = False

    def run(self, batch: int) -> np.ndarray:
        assert self._device.gate.wait(120), "the gate was never opened"
        self._device.users.add(threading.current_thread().name)
        self._device.sizes.append(batch)
        if self._device.fault is not None:
            self._device.fault(self.input[:batch])
        return self._graph.run(batch)

    def device_times(self) -> DeviceTimes | None:
        return None

    def close(self) -> None:
        self.closed = True
        self._graph.close()


class SharingDevice(OrtBackend):
    """The device ``test``."""

    name = "test"
    shares_batches = True

    def __init__(self, fault: Fault | None = None) -> None:
        super().__init__(1)
        self.fault = fault
        self.gate = threading.Event()
        self.gate.set()
        self.sizes: list[int] = []
        self.users: set[str] = set()
        self.graphs: list[HeldGraph] = []
        self.closed = 0

    def open_graph(self, file: Path, **options: Any) -> HeldGraph:  # type: ignore[override]
        self.graphs.append(HeldGraph(super().open_graph(file, **options), self))
        return self.graphs[-1]

    def close(self) -> None:
        self.closed += 1
        super().close()


def traced_peak(pool: CascadePool, path: Path) -> int:
    """Bytes that a warm pool allocates at a time, while it classifies one track 4 times."""

    def classify() -> None:
        assert {verdict.status for verdict in pool.classify_many([path] * 4)} == {"ok"}

    classify()
    return min(traced(classify).peaks)
