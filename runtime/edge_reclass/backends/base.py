"""What a backend is. To add a device, write a module with a Backend, and enter it in ``backends.DEVICES``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_reclass.bundle import Bundle
from edge_reclass.engines.choice import GraphChoice
from edge_reclass.errors import EngineError
from edge_reclass.host import usable_cpus

if TYPE_CHECKING:
    from typing_extensions import Self


class GraphFile(Protocol):
    """A file to open as a graph, hashable: its path for messages, and its bytes, which are read when it is opened."""

    @property
    def path(self) -> Path:
        """Where it lies."""

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


class TensorSpec(NamedTuple):
    """A tensor that is float32[batch, width]."""

    name: str
    width: int


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


class Backend(ABC):
    """Opens graphs on one device; a context manager. Its constructor takes ``threads`` and ``timed``, and its own."""

    name: str
    precisions: tuple[str, ...]
    """Precisions that the device takes, the preferred first."""
    shares_batches: bool = False
    """Whether windows of several tracks are worth one run: true of a GPU, which a single track does not fill.

    Where it is false, graphs of one file share what they can, and each runs on the thread that calls it.
    """
    needs_nvidia_gpu: bool = False
    """Whether it can be used with an NVIDIA GPU only, so that ``auto`` need not try it without one."""

    @classmethod
    def pool_threads(cls, threads: int, lanes: int) -> int:
        """Threads of a graph's pool so that ``lanes`` calls at a time have ``threads`` each for what the host does."""
        del lanes
        return threads

    @classmethod
    def useful_lanes(cls) -> int:
        """Tracks to work on at a time where the user names no number."""
        # A GPU wants tracks that wait for it while the CPU prepares others.
        return 2 * usable_cpus() if cls.shares_batches else 1

    def choose_graphs(
        self, bundle: Bundle, batches: Mapping[str, int], engines: Path | None
    ) -> Mapping[str, GraphChoice]:
        """Which file each encoder runs here. By default the ONNX file of the first precision that there is.

        Args:
            bundle: where the ONNX files are.
            batches: for each stage with a graph, the most windows that it will be given at a time.
            engines: the engine store that the user named.

        Raises:
            EngineError: a stage has no file that this device takes.
        """
        del engines
        return {name: self._choose_graph(bundle, name) for name in batches}

    def _choose_graph(self, bundle: Bundle, stage: str) -> GraphChoice:
        files = bundle.manifest.stage(stage).encoder.graph_files
        for precision in self.precisions:
            if precision in files:
                return GraphChoice(precision, bundle.file(files[precision]), files=(files[precision],))
        raise EngineError(
            f"{bundle.root}: stages.{stage}.encoder.files: expected one of {', '.join(self.precisions)}"
            f" for this device, got {', '.join(files)}; export the encoder in one of them"
        )

    @abstractmethod
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

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Release what the backend itself holds; graphs are closed by their owner."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
