"""Reads the layers of a TensorFlow Lite model, without TensorFlow.

The file is a flatbuffer: tables of numbered fields, each found by an offset. Only what leads to the weights is read.

References: TensorFlow ``compiler/mlir/lite/schema/schema.fbs``; FlatBuffers, "Internals".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_reclass_export.errors import CheckpointError

IDENTIFIER = b"TFL3"
"""Bytes 4 to 7 of every such file."""

_OPERATORS: Mapping[int, str] = {3: "conv", 4: "depthwise_conv", 9: "dense"}
_DEQUANTIZE = 6
_MOST_LAYERS = 64
"""YAMNet has 28."""
_INT8 = 9
_DTYPES: Mapping[int, np.dtype[np.generic]] = {0: np.dtype("<f4"), 1: np.dtype("<f2"), _INT8: np.dtype("i1")}
"""numpy type of each ``TensorType`` that weights may have."""


class Stored(NamedTuple):
    """A tensor as it is stored: its values, and half of a quantisation step, in which the original lies; 0 if exact."""

    values: NDArray[np.float64]
    half_step: NDArray[np.float64]


class Layer(NamedTuple):
    """One layer with weights: ``kind`` is ``conv``, ``depthwise_conv`` or ``dense``; shapes are TensorFlow Lite's."""

    kind: str
    kernel: Stored
    bias: NDArray[np.float64] | None


def read_layers(path: Path, content: bytes) -> list[Layer]:
    """The convolutions and dense layers whose weights are constants, in the order of their computation.

    Raises:
        CheckpointError: ``content`` is no such file, is truncated or damaged, or has weights of an unknown type.
    """
    try:
        if content[4:8] != IDENTIFIER:
            raise ValueError(f"bytes 4 to 7 are {content[4:8]!r}, expected {IDENTIFIER!r}")
        with np.errstate(invalid="ignore"):  # of NaN, which is refused where it is read
            return _Model(content).layers()
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise CheckpointError(f"{path}: is truncated, damaged or no TensorFlow Lite model: {error}") from error


class _Table:
    """A table of a flatbuffer at ``at``. Whatever lies outside of the file raises ``ValueError``."""

    def __init__(self, content: bytes, at: int) -> None:
        self._content, self._at = content, at
        self._fields = at - self._read("<i", at)
        self._size = self._read("<H", self._fields)

    def _read(self, code: str, at: int) -> int:
        if at < 0:
            raise ValueError(f"an offset leads to {at}")
        (value,) = struct.unpack_from(code, self._content, at)
        return int(value)

    def _place(self, field: int) -> int:
        """Where the field lies; 0 where the table has none."""
        slot = 4 + 2 * field
        offset = self._read("<H", self._fields + slot) if slot < self._size else 0
        return self._at + offset if offset else 0

    def number(self, field: int, code: str = "<i") -> int:
        place = self._place(field)
        return self._read(code, place) if place else 0

    def table(self, field: int) -> _Table | None:
        place = self._place(field)
        return _Table(self._content, place + self._read("<I", place)) if place else None

    def numbers(self, field: int, dtype: str) -> NDArray[np.generic]:
        """A vector of numbers; an empty one where the table has none."""
        place = self._place(field)
        if not place:
            return np.zeros(0, dtype)
        start = place + self._read("<I", place)
        return np.frombuffer(self._content, dtype, self._read("<I", start), start + 4)

    def tables(self, field: int) -> list[_Table]:
        place = self._place(field)
        start = place + self._read("<I", place) + 4 if place else 0
        offsets = self.numbers(field, "<u4").tolist()
        return [_Table(self._content, start + 4 * number + offset) for number, offset in enumerate(offsets)]


class _Model:
    """The first subgraph of a file."""

    def __init__(self, content: bytes) -> None:
        model = _Table(content, struct.unpack_from("<I", content)[0])
        # Codes above 127 did not fit the first field's byte; the others stand in both, or in the first alone.
        self._codes = [max(code.number(0, "<b"), code.number(3)) for code in model.tables(1)]
        self._buffers = model.tables(4)
        graphs = model.tables(2)
        if not graphs:
            raise ValueError("there is no graph in it")
        self._tensors = graphs[0].tables(0)
        self._operators = graphs[0].tables(3)

    def layers(self) -> list[Layer]:
        found: list[Layer] = []
        source: dict[int, int] = {}  # of what DEQUANTIZE gives: the tensor that it takes
        for operator in self._operators:
            code = self._codes[operator.number(0, "<I")]
            inputs = operator.numbers(1, "<i4").tolist()
            if code == _DEQUANTIZE:
                source[int(operator.numbers(2, "<i4")[0])] = inputs[0]
            elif code in _OPERATORS:
                if len(found) == _MOST_LAYERS:  # several may share one buffer
                    raise ValueError(f"more than {_MOST_LAYERS} layers")
                kernel = self._tensor(source.get(inputs[1], inputs[1]))
                bias = self._tensor(source.get(inputs[2], inputs[2])) if len(inputs) > 2 and inputs[2] >= 0 else None
                if kernel is not None:
                    found.append(Layer(_OPERATORS[code], kernel, bias.values if bias is not None else None))
        return found

    def _tensor(self, number: int) -> Stored | None:
        """A constant; None where the tensor is computed."""
        if number < 0:
            raise ValueError(f"tensor {number}")
        tensor = self._tensors[number]
        raw = self._buffers[tensor.number(2, "<I")].numbers(0, "u1")
        if not len(raw):
            return None
        name = tensor.numbers(3, "u1").tobytes().decode("utf-8", "replace")
        kind, shape = tensor.number(1, "<b"), tuple(tensor.numbers(0, "<i4").tolist())
        dtype = _DTYPES.get(kind)
        if dtype is None:
            raise ValueError(f"{name} has the type {kind}, expected float32, float16 or int8 ({sorted(_DTYPES)})")
        if min(shape, default=1) < 1 or len(raw) != prod(shape) * dtype.itemsize:
            raise ValueError(
                f"{name} has {len(raw)} bytes, {list(shape)} of {dtype} need {prod(shape) * dtype.itemsize}"
            )
        values = np.frombuffer(raw.tobytes(), dtype).reshape(shape).astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds NaN or infinity")
        if kind != _INT8:
            return Stored(values, np.zeros_like(values))
        return _dequantised(name, values, tensor.table(4))


def _dequantised(name: str, values: NDArray[np.float64], quantisation: _Table | None) -> Stored:
    """Symmetric steps, one for all or one for each place along one dimension."""
    if quantisation is None:
        raise ValueError(f"{name} is int8 without a scale")
    scale = quantisation.numbers(2, "<f4").astype(np.float64)
    if not (np.isfinite(scale) & (scale > 0)).all() or quantisation.numbers(3, "<i8").any():
        raise ValueError(f"{name}: expected symmetric int8: scales above zero, no zero points")
    shape = [1] * values.ndim
    if len(scale) > 1:
        shape[quantisation.number(6)] = len(scale)
    step = np.broadcast_to(scale.reshape(shape), values.shape)
    return Stored(values * step, step / 2)
