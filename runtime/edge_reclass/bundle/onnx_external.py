"""Refuses ONNX files whose weights lie in other files: nobody has hashed those, and they may lie anywhere.

ONNX Runtime follows such references, the older versions out of the model's folder too, and for a model in memory from
the current directory. So the file's protobuf is walked, without the onnx package, through every place that can hold a
tensor: initialisers (also sparse ones), attributes, subgraphs, functions and training graphs. Only tags and lengths
are read; weights are stepped over. Field numbers are those of onnx.proto3.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import BinaryIO, Final

from edge_reclass.errors import EngineError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH: Final = 100
"""Of nested messages: protobuf's own limit."""
_TENSOR: Final = "TensorProto"
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14

# Which fields of a message hold messages that can hold a tensor.
_WITHIN: Final[Mapping[str, Mapping[int, str]]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: _TENSOR, 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: _TENSOR,
        6: "GraphProto",
        10: _TENSOR,
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}


def refuse_external_data(model: bytes | BinaryIO, name: object) -> None:
    """Walk an ONNX model; ``name`` is the file in the messages. A stream is read from its start.

    Raises:
        EngineError: a tensor's data lies in another file; or the bytes are no ONNX model, or cut off.
    """
    stream = io.BytesIO(model) if isinstance(model, bytes) else model
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    try:
        if stream.read(8)[4:8] == b"ORTM":
            raise _Malformed("it is a model in ORT format, expected ONNX")
        stream.seek(0)
        if 7 not in _walk(stream, end, "ModelProto", 1):
            raise _Malformed("it has no graph")
    except _Malformed as error:
        raise EngineError(f"{name}: no valid ONNX file: {error}; export it again") from error
    except _External as error:
        raise EngineError(
            f"{name}: a tensor's data lies in another file ({error}), which no hash covers; expected all weights"
            " inside: save it with save_as_external_data=False, or export it again"
        ) from error


class _Malformed(Exception):
    """The bytes break protobuf's format."""


class _External(Exception):
    """A tensor has its data elsewhere."""


def _walk(stream: BinaryIO, end: int, message: str, depth: int) -> set[int]:
    """Go through one message, which ends at ``end``; gives the numbers of its fields."""
    if depth > _MAX_DEPTH:
        raise _Malformed(f"its messages are nested deeper than {_MAX_DEPTH} levels")
    within, seen = _WITHIN[message], set()
    while (position := stream.tell()) < end:
        tag = _varint(stream, end)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise _Malformed(f"field {number} at byte {position}")
        seen.add(number)
        if wire not in (_VARINT, _BYTES, _FIXED64, _FIXED32) or (number in within and wire != _BYTES):
            raise _Malformed(f"wire type {wire} at byte {position}")
        value = _varint(stream, end) if wire in (_VARINT, _BYTES) else None
        if message == _TENSOR and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)):
            raise _External(f"at byte {position}")
        if wire == _VARINT:
            continue
        length = value if value is not None else 8 if wire == _FIXED64 else 4
        start = stream.tell()
        if length > end - start:
            raise _Malformed(f"it is cut off: {length} bytes expected at byte {start}, {end - start} are there")
        if number in within:
            _walk(stream, start + length, within[number], depth + 1)
        stream.seek(start + length)
    return seen


def _varint(stream: BinaryIO, end: int) -> int:
    value = shift = 0
    while True:
        byte = stream.read(1) if stream.tell() < end else b""
        if not byte:
            raise _Malformed(f"it is cut off within a number at byte {stream.tell()}")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
        if shift > 63:
            raise _Malformed(f"a number of more than 64 bits at byte {stream.tell()}")
