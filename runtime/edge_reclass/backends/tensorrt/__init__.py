"""TensorRT and TensorRT-RTX."""

from __future__ import annotations

from edge_reclass.backends.tensorrt.backend import TensorRTBackend

__all__ = ["TensorRTBackend"]
