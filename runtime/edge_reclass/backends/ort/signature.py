"""ONNX Runtime, whatever its provider: what a graph's input and output must be, no telemetry, no second copy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_reclass.errors import EngineError

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["disable_telemetry", "expect_tensor", "release_model"]


def disable_telemetry(onnxruntime: Any) -> None:
    """Send no events: the variable that ``edge_reclass`` sets is not seen by an ONNX Runtime imported before it."""
    if disable := getattr(onnxruntime, "disable_telemetry_events", None):
        disable()


def release_model(session: Any) -> None:
    """Free the bytes from which a session was made: its Python part would hold them as long as it lives."""
    if hasattr(session, "_model_bytes"):
        session._model_bytes = None


def expect_tensor(
    file: Path, kind: str, found: list[onnxruntime.NodeArg], name: str, width: int, max_batch: int
) -> None:
    """Check name, dtype and shape [batch, width] of a graph's only input, or of one of its outputs.

    Raises:
        EngineError: another name, dtype or width, or a fixed batch where a larger one is wanted.
    """
    names = [arg.name for arg in found]
    if name not in names or (kind == "input" and len(names) != 1):
        raise EngineError(f"{file}: expected the {kind} {name!r}, got {', '.join(names)}; export it again")
    arg = found[names.index(name)]
    if arg.type != "tensor(float)":
        raise EngineError(f"{file}: {kind} {name!r}: expected tensor(float), got {arg.type}; export it again")
    shape = list(arg.shape)
    if len(shape) != 2 or shape[1] != width:
        raise EngineError(
            f"{file}: {kind} {name!r}: expected the shape [batch, {width}], got {shape}; "
            "the manifest's dimensions and this file do not belong together"
        )
    if isinstance(shape[0], int) and not shape[0] == max_batch == 1:
        raise EngineError(
            f"{file}: {kind} {name!r}: expected a dynamic batch, got {shape}; export it again with a dynamic batch"
        )
