"""What a backend is. A device is added by writing one module with a Backend and entering it in backends/__init__."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_reclass.errors import EngineError

__all__ = ["Backend", "DeviceTimes", "Graph", "GraphFile", "GraphSource", "PlainFile"]


class GraphFile(Protocol):
    """A file to open as a graph, hashable: its path for messages, and its bytes, which are read when it is opened."""

    @property
    def path(self) -> Path: ...

    def read(self) -> bytes:
        """The whole content, checked where the file knows what it must be (see ``bundle.BundleFile``)."""


@dataclass(frozen=True)
class PlainFile:
    """A file that is taken as it is: nobody has said what it must be."""

    path: Path

    def read(self) -> bytes:
        """The whole content. Raises ``EngineError`` where it cannot be read."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise EngineError(f"{self.path}: cannot be read ({error.strerror})") from error


GraphSource: TypeAlias = Path | GraphFile


class DeviceTimes(NamedTuple):
    """What one run took by the device's own clock, in seconds."""

    copy_in: float
    compute: float
    copy_out: float


class Graph(Protocol):
    """One opened ONNX graph: rows in, rows out, with buffers that live as long as the graph."""

    @property
    def input(self) -> NDArray[np.float32]:
        """float32[max_batch, width]; the caller writes rows ``[:batch]`` before :meth:`run`."""

    def run(self, batch: int) -> NDArray[np.float32]:
        """Run on ``input[:batch]``; gives float32[batch, output width].

        The result is a view of a reused buffer: it is valid until the next run.

        Raises:
            EngineError: the graph failed; the message names the file.
            DeviceError: the device is lost, for this graph and every other one.
            MemoryError: the device has too little memory.
            ValueError: ``batch`` is not between 1 and max_batch.
        """

    def device_times(self) -> DeviceTimes | None:
        """Times of the last run; None before the first, and where there is no clock or it was not asked for."""

    def close(self) -> None:
        """Release session and buffers. Closing twice is allowed, running afterwards is not."""


class Backend(Protocol):
    """Opens graphs on one device."""

    name: str
    precisions: tuple[str, ...]
    """Precisions that the device takes, the preferred first."""
    shares_batches: bool
    """Whether windows of several tracks are worth one run: true of a GPU, which a single track does not fill.

    Where it is false, graphs of one file share what they can, and each runs on the thread that calls it.
    """

    def open_graph(
        self, file: GraphSource, *, input_name: str, output_name: str, width: int, output_width: int, max_batch: int
    ) -> Graph:
        """Open ``file`` as float32[batch, width] → float32[batch, output_width].

        Its bytes are read once, here; nothing else is opened, and a graph that keeps data in another file is refused.

        Raises:
            BundleError: the file is not what its manifest says.
            EngineError: the file is no valid graph, or its names, dtypes or shapes differ from what is asked.
            DeviceError: the device cannot be used.
            MemoryError: the device has too little memory for it.
        """

    def close(self) -> None:
        """Release what the backend itself holds; graphs are closed by their owner."""

    def __enter__(self) -> Backend: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...
