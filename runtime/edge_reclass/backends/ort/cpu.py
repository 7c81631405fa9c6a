"""ONNX Runtime on the CPU: IOBinding onto preallocated arrays, no spinning threads, one call path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends.base import Backend, GraphFile, GraphSource, PlainFile, TensorSpec
from edge_reclass.backends.ort.sessions import (
    SessionGraph,
    disable_telemetry,
    expect_signature,
    read_model,
    release_model,
    session_options,
)
from edge_reclass.errors import EngineError, MissingExtraError

if TYPE_CHECKING:
    import onnxruntime


class OrtBackend(Backend):
    """ONNX Runtime's CPU execution provider with ``threads`` intra-op threads per graph."""

    name = "cpu"
    # The CPU provider computes float16 graphs by casting, so fp16 is the last resort.
    precisions: tuple[str, ...] = ("fp32", "fp16")

    @classmethod
    def pool_threads(cls, threads: int, lanes: int) -> int:
        """All lanes run a graph with one pool: of n threads, n - 1 are its own, and each call brings its lane's."""
        return lanes * (threads - 1) + 1

    def __init__(self, threads: int, *, timed: bool = False) -> None:
        """``timed`` has no effect: the CPU's clock is the host's."""
        del timed
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError(
                f"ONNX Runtime cannot be imported ({error}); on every device it computes the heads", "cpu"
            ) from error
        disable_telemetry(onnxruntime)
        self._ort = onnxruntime
        self._options = session_options(onnxruntime, threads)
        self._sessions: WeakValueDictionary[GraphFile, onnxruntime.InferenceSession] = WeakValueDictionary()

    def open_graph(
        self, file: GraphSource, *, input_name: str, output_name: str, width: int, output_width: int, max_batch: int
    ) -> OrtGraph:
        """See :meth:`Backend.open_graph`. A file that is open already shares its weights."""
        opened = PlainFile(file) if isinstance(file, Path) else file
        session = self._sessions.get(opened) or self._open_session(opened)
        source, target = TensorSpec(input_name, width), TensorSpec(output_name, output_width)
        expect_signature(opened.path, session, source, target, max_batch)
        self._sessions[opened] = session
        return OrtGraph(session, opened.path, source, target, max_batch)

    def _open_session(self, source: GraphFile) -> onnxruntime.InferenceSession:
        model = read_model(source)
        try:
            session = self._ort.InferenceSession(model, self._options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises a dozen unrelated classes for a bad file
            what = f"{source.path}: ONNX Runtime {self._ort.__version__} cannot open it"
            raise EngineError(f"{what}: {error}") from error
        release_model(session)
        return session


class OrtGraph(SessionGraph):
    """See :class:`edge_reclass.backends.base.Graph`. One binding per batch size, made when it is first needed."""

    def __init__(self, session: Any, file: Path, source: TensorSpec, target: TensorSpec, max_batch: int) -> None:
        super().__init__(session, file, source, target, max_batch)
        self._bindings: dict[int, onnxruntime.IOBinding] = {}

    def run(self, batch: int) -> NDArray[np.float32]:
        """See :meth:`Graph.run`."""
        self._require_open()
        self._require_batch(batch)
        binding = self._bindings.get(batch)
        if binding is None:
            binding = self._bindings[batch] = self._session.io_binding()
            self._bind(binding.bind_input, self._source, self._input, batch)
            self._bind(binding.bind_output, self._target, self._output, batch)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # as above: no common base class
            if "memory" in str(error).lower() and "alloc" in str(error).lower():
                raise MemoryError(f"{self._file}: {error}") from error
            raise EngineError(f"{self._file}: ONNX Runtime failed: {error}") from error
        return self._output[:batch]

    def close(self) -> None:
        """See :meth:`Graph.close`."""
        self._bindings.clear()
        self._session = None
