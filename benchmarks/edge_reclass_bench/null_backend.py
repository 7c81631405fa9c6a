"""A device that answers at once: what is left of a track's time is the cascade's and the harness's own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends import Backend, DeviceTimes, GraphSource
from edge_reclass.errors import EngineError

__all__ = ["NullBackend", "NullGraph"]


class NullGraph:
    """See :class:`edge_reclass.backends.base.Graph`: real buffers, and an output that never changes."""

    def __init__(self, width: int, output_width: int, max_batch: int) -> None:
        self._input = np.zeros((max_batch, width), np.float32)
        # Not all zero: a head that divides by a norm must stay finite.
        self._output = np.full((max_batch, output_width), 0.5, np.float32)
        self._closed = False

    @property
    def input(self) -> NDArray[np.float32]:
        return self._input

    def run(self, batch: int) -> NDArray[np.float32]:
        """See :meth:`Graph.run`."""
        if self._closed:
            raise EngineError("the null graph: run after close")
        if not 1 <= batch <= len(self._input):
            raise ValueError(f"expected a batch of 1 to {len(self._input)}, got {batch}")
        return self._output[:batch]

    def device_times(self) -> DeviceTimes | None:
        """There is no device."""
        return None

    def close(self) -> None:
        """See :meth:`Graph.close`."""
        self._closed = True


class NullBackend(Backend):
    """See :class:`edge_reclass.backends.base.Backend`. Takes any file without opening it."""

    name = "null"
    precisions: tuple[str, ...] = ("fp32", "fp16")

    def open_graph(
        self, file: GraphSource, *, input_name: str, output_name: str, width: int, output_width: int, max_batch: int
    ) -> NullGraph:
        """See :meth:`Backend.open_graph`."""
        del file, input_name, output_name
        return NullGraph(width, output_width, max_batch)
