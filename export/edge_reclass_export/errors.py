"""Errors of the export package, under the runtime's exception tree.

EdgeReclassError
├── CheckpointError     exit 4   a checkpoint is truncated, altered, or not of the expected geometry
├── GraphError          exit 1   a recipe built a graph that breaks the rules of its file: a defect of the recipe
└── ParityError         exit 4   an exported graph does not give the numbers that its reference gives
"""

from __future__ import annotations

from edge_reclass.errors import EdgeReclassError


class CheckpointError(EdgeReclassError):
    """A checkpoint cannot be read, is corrupt, or does not have the tensors that the recipe needs."""

    exit_code = 4


class GraphError(EdgeReclassError):
    """A graph breaks the rules that every ONNX file keeps (see ``onnx_writer``)."""

    exit_code = 1


class ParityError(EdgeReclassError):
    """An exported graph is further from its reference than the recipe's tolerance allows."""

    exit_code = 4
