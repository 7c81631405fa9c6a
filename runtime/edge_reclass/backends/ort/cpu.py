"""ONNX Runtime on the CPU: IOBinding onto preallocated arrays, no spinning threads, one call path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends.base import Backend, DeviceTimes, GraphFile, GraphSource, PlainFile
from edge_reclass.backends.ort.signature import disable_telemetry, expect_tensor, release_model
from edge_reclass.bundle.onnx_external import refuse_external_data
from edge_reclass.errors import EngineError, MissingExtraError

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["OrtBackend", "OrtGraph"]


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
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Spinning workers would burn the core that decodes and computes stage 1.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        self._ort = onnxruntime
        self._options = options
        self._sessions: WeakValueDictionary[GraphFile, onnxruntime.InferenceSession] = WeakValueDictionary()

    def open_graph(
        self, file: GraphSource, *, input_name: str, output_name: str, width: int, output_width: int, max_batch: int
    ) -> OrtGraph:
        """See :meth:`Backend.open_graph`. A file that is open already shares its weights."""
        source = PlainFile(file) if isinstance(file, Path) else file
        session = self._sessions.get(source) or self._open_session(source)
        expect_tensor(source.path, "input", session.get_inputs(), input_name, width, max_batch)
        expect_tensor(source.path, "output", session.get_outputs(), output_name, output_width, max_batch)
        self._sessions[source] = session
        return OrtGraph(session, source.path, (input_name, width), (output_name, output_width), max_batch)

    def _open_session(self, source: GraphFile) -> onnxruntime.InferenceSession:
        model = source.read()
        refuse_external_data(model, source.path)
        try:
            session = self._ort.InferenceSession(model, self._options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises a dozen unrelated classes for a bad file
            what = f"{source.path}: ONNX Runtime {self._ort.__version__} cannot open it"
            raise EngineError(f"{what}: {error}") from error
        release_model(session)
        return session


class OrtGraph:
    """See :class:`edge_reclass.backends.base.Graph`. One binding per batch size, made when it is first needed."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        file: Path,
        source: tuple[str, int],
        target: tuple[str, int],
        max_batch: int,
    ) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._file = file
        self._source, self._target = source, target
        self._input = np.zeros((max_batch, source[1]), np.float32)
        self._output = np.empty((max_batch, target[1]), np.float32)
        self._bindings: dict[int, onnxruntime.IOBinding] = {}

    @property
    def input(self) -> NDArray[np.float32]:
        return self._input

    def run(self, batch: int) -> NDArray[np.float32]:
        """See :meth:`Graph.run`."""
        if self._session is None:
            raise EngineError(f"{self._file}: run after close")
        if not 1 <= batch <= len(self._input):
            raise ValueError(f"expected a batch of 1 to {len(self._input)}, got {batch}")
        binding = self._bindings.get(batch)
        if binding is None:
            binding = self._bindings[batch] = self._bind(self._session, batch)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # as above: no common base class
            if "memory" in str(error).lower() and "alloc" in str(error).lower():
                raise MemoryError(f"{self._file}: {error}") from error
            raise EngineError(f"{self._file}: ONNX Runtime failed: {error}") from error
        return self._output[:batch]

    def device_times(self) -> DeviceTimes | None:
        """The CPU's clock is the host's."""
        return None

    def _bind(self, session: onnxruntime.InferenceSession, batch: int) -> onnxruntime.IOBinding:
        binding = session.io_binding()
        for bind, (name, width), array in (
            (binding.bind_input, self._source, self._input),
            (binding.bind_output, self._target, self._output),
        ):
            bind(
                name,
                device_type="cpu",
                device_id=0,
                element_type=np.float32,
                shape=(batch, width),
                buffer_ptr=array.ctypes.data,
            )
        return binding

    def close(self) -> None:
        """See :meth:`Graph.close`."""
        self._bindings.clear()
        self._session = None
