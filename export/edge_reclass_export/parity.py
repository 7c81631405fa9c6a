"""Is an exported graph the network that it was made from? Comparison, tolerance, and reference vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_reclass.bundle import Agreement, ReferenceVectors, agreement, synthesise
from edge_reclass.errors import EngineError, MissingExtraError
from edge_reclass_export.engine.verify import Limits
from edge_reclass_export.errors import ParityError

SEED = 20_231_016
"""Seed of the inputs of reference vectors; any number would do."""


def require_parity(expected: NDArray[np.floating], got: NDArray[np.floating], limits: Limits, what: str) -> Agreement:
    """The agreement of two arrays [rows, dim]. Raises ``ParityError`` where it is outside ``limits``."""
    found = agreement(expected, got)
    if not (found.cosine >= limits.cosine and found.relative <= limits.relative):
        raise ParityError(
            f"{what} differs from its reference: cosine {found.cosine:.8f} (at least {limits.cosine}),"
            f" relative error {found.relative:.3g} (at most {limits.relative})"
        )
    return found


def run_graph(model: bytes, inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """All outputs of a one-input graph, on one CPU thread. Raises what ``open_graph`` and its function raise."""
    return open_graph(model)(inputs)


def open_graph(model: bytes, *, threads: int = 1) -> Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """A function from the only input of a graph to all its outputs, on the CPU.

    Both raise ``EngineError`` where ONNX Runtime refuses the graph; ``MissingExtraError`` without ONNX Runtime.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("reference vectors need ONNX Runtime", "cpu") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # A graph runs a few times at several batch sizes: keeping the memory of each for the next would add up.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    version = onnxruntime.__version__
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        raise EngineError(f"ONNX Runtime {version} cannot open the exported graph: {error}") from error
    name = session.get_inputs()[0].name

    def run(inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        try:
            outputs: list[NDArray[np.float32]] = session.run(None, {name: inputs})
        except Exception as error:  # as above
            raise EngineError(f"ONNX Runtime {version} cannot run the exported graph: {error}") from error
        return outputs

    return run


def reference_vectors(model: bytes, *, rate: int, samples: int) -> ReferenceVectors:
    """What the graph's first output is for the inputs of ``SEED``, computed in float32 by ONNX Runtime on the CPU.

    Raises ``ParityError`` where an embedding is not finite, ``EngineError`` where the graph does not run.
    """
    embedding = run_graph(model, synthesise(rate, samples, SEED))[0]
    if not np.isfinite(embedding).all():
        raise ParityError("the exported graph gives NaN or infinity for a reference input")
    return ReferenceVectors(rate, samples, SEED, embedding)
