"""ONNX Runtime, whatever its provider: options of a session, what its input and output must be, and their arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends.base import DeviceTimes, GraphFile, TensorSpec
from edge_reclass.bundle.onnx_external import refuse_external_data
from edge_reclass.errors import EngineError


def disable_telemetry(onnxruntime: Any) -> None:
    """Send no events: the variable that ``edge_reclass`` sets is not seen by an ONNX Runtime imported before it."""
    if disable := getattr(onnxruntime, "disable_telemetry_events", None):
        disable()


def session_options(onnxruntime: Any, threads: int) -> Any:
    """SessionOptions with ``threads`` intra-op threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning workers would burn the core that decodes and computes stage 1.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def read_model(source: GraphFile) -> bytes:
    """The bytes of an ONNX file that keeps no data in another one."""
    model = source.read()
    refuse_external_data(model, source.path)
    return model


def release_model(session: Any) -> None:
    """Free the bytes from which a session was made: its Python part would hold them as long as it lives."""
    if hasattr(session, "_model_bytes"):
        session._model_bytes = None


def expect_signature(file: Path, session: Any, source: TensorSpec, target: TensorSpec, max_batch: int) -> None:
    """Check name, dtype and shape [batch, width] of a session's only input and of one of its outputs.

    Raises:
        EngineError: another name, dtype or width, or a fixed batch where a larger one is wanted.
    """
    for kind, tensor, found in (("input", source, session.get_inputs()), ("output", target, session.get_outputs())):
        names = [arg.name for arg in found]
        if tensor.name not in names or (kind == "input" and len(names) != 1):
            raise EngineError(f"{file}: expected the {kind} {tensor.name!r}, got {', '.join(names)}; export it again")
        arg = found[names.index(tensor.name)]
        what = f"{file}: {kind} {tensor.name!r}"
        if arg.type != "tensor(float)":
            raise EngineError(f"{what}: expected tensor(float), got {arg.type}; export it again")
        shape = list(arg.shape)
        if len(shape) != 2 or shape[1] != tensor.width:
            raise EngineError(
                f"{what}: expected the shape [batch, {tensor.width}], got {shape}; "
                "the manifest's dimensions and this file do not belong together"
            )
        if isinstance(shape[0], int) and not shape[0] == max_batch == 1:
            raise EngineError(f"{what}: expected a dynamic batch, got {shape}; export it again with a dynamic batch")


class SessionGraph:
    """What the graphs of both providers have: a session, and arrays of the host for its input and output."""

    def __init__(self, session: Any, file: Path, source: TensorSpec, target: TensorSpec, max_batch: int) -> None:
        self._session = session
        self._file = file
        self._source, self._target = source, target
        self._input = np.zeros((max_batch, source.width), np.float32)
        self._output = np.empty((max_batch, target.width), np.float32)

    @property
    def input(self) -> NDArray[np.float32]:
        """See :attr:`Graph.input`."""
        return self._input

    def device_times(self) -> DeviceTimes | None:
        """None: the CPU's clock is the host's, and the CUDA provider has none for its parts."""
        return None

    def _require_open(self) -> None:
        if self._session is None:
            raise EngineError(f"{self._file}: run after close")

    def _require_batch(self, batch: int) -> None:
        if not 1 <= batch <= len(self._input):
            raise ValueError(f"expected a batch of 1 to {len(self._input)}, got {batch}")

    def _bind(self, bind: Any, tensor: TensorSpec, array: NDArray[np.float32], batch: int) -> None:
        """Bind the first rows of an array of the host with ``bind_input`` or ``bind_output``."""
        bind(
            tensor.name,
            device_type="cpu",
            device_id=0,
            element_type=np.float32,
            shape=(batch, tensor.width),
            buffer_ptr=array.ctypes.data,
        )
