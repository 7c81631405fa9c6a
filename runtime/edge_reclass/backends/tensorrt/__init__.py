"""TensorRT and TensorRT-RTX."""

from __future__ import annotations

from edge_reclass.backends.tensorrt.backend import TensorRTBackend, installed_target

__all__ = ["TensorRTBackend", "installed_target"]
