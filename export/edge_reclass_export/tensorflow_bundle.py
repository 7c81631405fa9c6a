"""Reads the tensors of a TensorFlow V2 checkpoint ("tensor bundle") from its bytes, without TensorFlow.

A bundle is an index, which is a LevelDB sorted table from tensor name to a ``BundleEntryProto``, and data
files in which the tensors lie as raw little-endian arrays. Their checksums are not read: the wheel that holds the
bundle has a pinned sha256.

References: TensorFlow ``core/util/tensor_bundle/tensor_bundle.h`` and ``core/protobuf/tensor_bundle.proto``;
LevelDB ``doc/table_format.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from edge_reclass_export.errors import CheckpointError

__all__ = ["TensorBundle", "TensorEntry"]

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


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies in the data file, and what it is."""

    dtype_code: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int


class TensorBundle:
    """The tensors of a one-shard checkpoint, by name.

    ``index`` and ``data`` are the contents of the ``.index`` and ``.data-00000-of-00001`` files; ``source``
    is how messages call the checkpoint. Raises ``CheckpointError`` where the index is no intact table.
    """

    def __init__(self, index: bytes, data: bytes, source: str) -> None:
        self._data = data
        self._source = source
        try:
            self.entries = self._read_index(index)
        except (IndexError, struct.error, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{source}: the index is truncated or corrupt ({error}); fetch the file again"
            ) from error

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> NDArray[np.generic]:
        """The tensor ``name``; ``shape`` is what it has to have. Raises ``CheckpointError`` otherwise."""
        entry = self.entries.get(name)
        if entry is None:
            raise CheckpointError(f"{self._source}: no tensor {name!r} among {len(self.entries)}")
        if shape is not None and entry.shape != shape:
            raise CheckpointError(
                f"{self._source}: tensor {name!r} has shape {list(entry.shape)}, expected {list(shape)}"
            )
        dtype = _DTYPES.get(entry.dtype_code)
        if dtype is None:
            raise CheckpointError(
                f"{self._source}: tensor {name!r} has TensorFlow type {entry.dtype_code},"
                f" expected one of {sorted(_DTYPES)}"
            )
        expected = prod(entry.shape) * dtype.itemsize
        if entry.size != expected:
            raise CheckpointError(
                f"{self._source}: tensor {name!r} has {entry.size} bytes, expected {expected} for {list(entry.shape)}"
            )
        raw = self._data[entry.offset : entry.offset + entry.size]
        if len(raw) != entry.size:
            raise CheckpointError(
                f"{self._source}: the data file is truncated: tensor {name!r} ends at byte"
                f" {entry.offset + entry.size}, the file at {len(self._data)}; fetch the file again"
            )
        return np.frombuffer(raw, dtype).reshape(entry.shape)

    def _read_index(self, index: bytes) -> dict[str, TensorEntry]:
        if len(index) < _FOOTER_BYTES:
            raise CheckpointError(
                f"{self._source}: the index has {len(index)} bytes, a table needs at least {_FOOTER_BYTES}"
            )
        footer = index[-_FOOTER_BYTES:]
        (magic,) = struct.unpack("<Q", footer[-8:])
        if magic != _TABLE_MAGIC:
            raise CheckpointError(
                f"{self._source}: the index ends with {magic:#018x}, expected {_TABLE_MAGIC:#018x}:"
                " it is no TensorFlow V2 checkpoint, or it is truncated"
            )
        cursor = _Cursor(footer)
        self._block(index, *cursor.block_handle())  # the meta index, which bundles leave empty
        entries: dict[str, TensorEntry] = {}
        header_seen = False
        for _, handle in _block_records(self._block(index, *cursor.block_handle())):
            for key, value in _block_records(self._block(index, *_Cursor(handle).block_handle())):
                if key:
                    entries[key.decode("utf-8")] = self._entry(key, value)
                else:
                    self._check_header(value)
                    header_seen = True
        if not header_seen:
            raise CheckpointError(f"{self._source}: the index has no bundle header")
        return entries

    def _block(self, index: bytes, offset: int, size: int) -> bytes:
        stored = index[offset : offset + size + _BLOCK_TRAILER_BYTES]
        if len(stored) != size + _BLOCK_TRAILER_BYTES:
            raise CheckpointError(
                f"{self._source}: the index is truncated: a block ends at byte"
                f" {offset + size + _BLOCK_TRAILER_BYTES}, the file at {len(index)}"
            )
        compression = stored[size]
        if compression != 0:
            raise CheckpointError(
                f"{self._source}: an index block is compressed (type {compression}), which is not supported"
            )
        return stored[:size]

    def _check_header(self, value: bytes) -> None:
        fields = dict(_protobuf_fields(value))
        shards = fields.get(1, 0)
        endianness = fields.get(2, 0)
        if shards != 1 or endianness != 0:
            raise CheckpointError(
                f"{self._source}: shards {shards!r} and endianness {endianness!r} in the header,"
                " expected one shard, little-endian (0)"
            )

    def _entry(self, key: bytes, value: bytes) -> TensorEntry:
        numbers = {1: 1, 3: 0, 4: 0, 5: 0}
        shape: tuple[int, ...] = ()
        for field, content in _protobuf_fields(value):
            if field == 2 and isinstance(content, bytes):
                shape = tuple(_dimension(dim) for tag, dim in _protobuf_fields(content) if tag == 2)
            elif field in numbers and isinstance(content, int):
                numbers[field] = content
            elif field == 7:
                raise CheckpointError(
                    f"{self._source}: tensor {key.decode()!r} is stored in slices, which is not supported"
                )
        return TensorEntry(numbers[1], shape, numbers[3], numbers[4], numbers[5])


class _Cursor:
    """Reads variable-length integers (base 128, low group first) from bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def varint(self) -> int:
        result = shift = 0
        while True:
            byte = self.data[self.position]
            self.position += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result
            shift += 7

    def take(self, count: int) -> bytes:
        if self.position + count > len(self.data):
            raise IndexError(f"{count} bytes wanted at {self.position}, {len(self.data)} there")
        taken = self.data[self.position : self.position + count]
        self.position += count
        return taken

    def block_handle(self) -> tuple[int, int]:
        return self.varint(), self.varint()


def _block_records(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each record; a key stores only what differs from the key before it."""
    (restarts,) = struct.unpack("<I", block[-4:])
    cursor = _Cursor(block[: len(block) - 4 - 4 * restarts])
    key = b""
    while cursor.position < len(cursor.data):
        shared, unshared, value_size = cursor.varint(), cursor.varint(), cursor.varint()
        key = key[:shared] + cursor.take(unshared)
        yield key, cursor.take(value_size)


def _protobuf_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    cursor = _Cursor(message)
    while cursor.position < len(message):
        tag = cursor.varint()
        field, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            yield field, cursor.varint()
        elif wire_type == 1:
            yield field, int.from_bytes(cursor.take(8), "little")
        elif wire_type == 2:
            yield field, cursor.take(cursor.varint())
        elif wire_type == 5:
            yield field, int.from_bytes(cursor.take(4), "little")
        else:
            raise IndexError(f"protobuf wire type {wire_type}")


def _dimension(message: bytes | int) -> int:
    if not isinstance(message, bytes):
        raise IndexError("a dimension is no message")
    size = dict(_protobuf_fields(message)).get(1, 0)
    if not isinstance(size, int):
        raise IndexError("a dimension's size is no number")
    return size
