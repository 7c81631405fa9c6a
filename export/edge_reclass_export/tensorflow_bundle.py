"""Reads the tensors of a TensorFlow V2 checkpoint ("tensor bundle") from its bytes, without TensorFlow.

A bundle is an index, which is a LevelDB sorted table from tensor name to a ``BundleEntryProto``, and data
files in which the tensors lie as raw little-endian arrays. Their checksums are not read: the wheel that holds the
bundle has a pinned sha256.

References: TensorFlow ``core/util/tensor_bundle/tensor_bundle.h`` and ``core/protobuf/tensor_bundle.proto``;
LevelDB ``doc/table_format.md``.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_reclass_export.errors import CheckpointError

_FOOTER_BYTES = 48
_TABLE_MAGIC = 0xDB4775248B80FB57
_BLOCK_TRAILER_BYTES = 5  # compression type, masked CRC-32C
_DTYPES: Mapping[int, np.dtype[np.generic]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    9: np.dtype("<i8"),
    19: np.dtype("<f2"),
}
"""numpy type of each TensorFlow ``DataType`` that a weight file may hold."""


class _Entry(NamedTuple):
    """Where one tensor lies in the data file, and what it is."""

    dtype_code: int
    shape: tuple[int, ...]
    offset: int
    size: int


class TensorBundle:
    """The tensors of a one-shard checkpoint, by name.

    Args:
        index: content of the ``.index`` file.
        data: content of the ``.data-00000-of-00001`` file.
        source: how messages call the checkpoint.

    Raises:
        CheckpointError: the index is no intact table.
    """

    def __init__(self, index: bytes, data: bytes, source: str) -> None:
        self._data = data
        self._source = source
        try:
            self.entries = self._read_index(index)
        except (EOFError, struct.error, TypeError, ValueError) as error:
            raise self._error(f"the index is truncated or corrupt ({error}); fetch the file again") from error

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> NDArray[np.generic]:
        """The tensor ``name``; ``shape`` is what it has to have. Raises ``CheckpointError`` otherwise."""
        entry = self.entries.get(name)
        if entry is None:
            raise self._error(f"no tensor {name!r} among {len(self.entries)}")
        if shape is not None and entry.shape != shape:
            raise self._error(f"tensor {name!r} has shape {list(entry.shape)}, expected {list(shape)}")
        dtype = _DTYPES.get(entry.dtype_code)
        if dtype is None:
            raise self._error(
                f"tensor {name!r} has TensorFlow type {entry.dtype_code}, expected one of {sorted(_DTYPES)}"
            )
        expected = prod(entry.shape) * dtype.itemsize
        if entry.size != expected:
            raise self._error(f"tensor {name!r} has {entry.size} bytes, expected {expected} for {list(entry.shape)}")
        end = entry.offset + entry.size
        if end > len(self._data):
            raise self._error(
                f"the data file is truncated: tensor {name!r} ends at byte {end}, the file at {len(self._data)};"
                " fetch the file again"
            )
        return np.frombuffer(self._data[entry.offset : end], dtype).reshape(entry.shape)

    def _error(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self._source}: {what}")

    def _read_index(self, index: bytes) -> dict[str, _Entry]:
        (magic,) = struct.unpack("<Q", index[-8:])
        if magic != _TABLE_MAGIC:
            raise self._error(
                f"the index ends with {magic:#018x}, expected {_TABLE_MAGIC:#018x}:"
                " it is no TensorFlow V2 checkpoint, or it is truncated"
            )
        footer = _Bytes(index[-_FOOTER_BYTES:])
        self._block(index, footer)  # the meta index, which bundles leave empty
        records = [
            record
            for _, handle in _block_records(self._block(index, footer))
            for record in _block_records(self._block(index, _Bytes(handle)))
        ]
        header = [dict(_protobuf_fields(value)) for key, value in records if not key]
        if not header:
            raise self._error("the index has no bundle header")
        shards, endianness = header[0].get(1, 0), header[0].get(2, 0)
        if shards != 1 or endianness != 0:
            raise self._error(
                f"shards {shards!r} and endianness {endianness!r} in the header, expected one shard, little-endian (0)"
            )
        return {key.decode("utf-8"): self._entry(key, value) for key, value in records if key}

    def _block(self, index: bytes, handle: _Bytes) -> bytes:
        """The block at the offset and of the size that ``handle`` names."""
        offset, size = handle.varint(), handle.varint()
        stored = _Bytes(index[offset:]).take(size + _BLOCK_TRAILER_BYTES)
        if stored[size] != 0:
            raise self._error(f"an index block is compressed (type {stored[size]}), which is not supported")
        return stored[:size]

    def _entry(self, key: bytes, value: bytes) -> _Entry:
        fields = list(_protobuf_fields(value))
        numbers = dict(fields)
        if 7 in numbers:
            raise self._error(f"tensor {key.decode()!r} is stored in slices, which is not supported")
        dimensions = [dim for tag, shape in fields if tag == 2 for inner, dim in _protobuf_fields(shape) if inner == 2]
        shape = tuple(dict(_protobuf_fields(dim)).get(1, 0) for dim in dimensions)
        return _Entry(numbers.get(1, 1), shape, numbers.get(4, 0), numbers.get(5, 0))


class _Bytes(io.BytesIO):
    """Bytes that are read in order; ``EOFError`` where there are too few."""

    def take(self, count: int) -> bytes:
        taken = self.read(count)
        if len(taken) != count:
            raise EOFError(f"{count} bytes expected, {len(taken)} left")
        return taken

    def varint(self) -> int:
        """An integer in groups of 7 bits, the lowest first."""
        result = shift = 0
        while True:
            byte = self.take(1)[0]
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result
            shift += 7

    def left(self) -> bool:
        return self.tell() < len(self.getbuffer())


def _block_records(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each record; a key stores only what differs from the key before it."""
    (restarts,) = struct.unpack("<I", block[-4:])
    records = _Bytes(block[: len(block) - 4 - 4 * restarts])
    key = b""
    while records.left():
        shared, unshared, value_size = records.varint(), records.varint(), records.varint()
        key = key[:shared] + records.take(unshared)
        yield key, records.take(value_size)


def _protobuf_fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field: an int, or the bytes of a text or message."""
    fields = _Bytes(message)
    while fields.left():
        field, wire_type = divmod(fields.varint(), 8)
        if wire_type == 0:
            yield field, fields.varint()
        elif wire_type == 2:
            yield field, fields.take(fields.varint())
        elif wire_type in (1, 5):
            yield field, int.from_bytes(fields.take(8 if wire_type == 1 else 4), "little")
        else:
            raise ValueError(f"protobuf wire type {wire_type}")
