"""Makes TensorFlow V2 checkpoints and a musicnn wheel with random weights, so that no test needs the real ones.

The table is written by the format's description (LevelDB ``doc/table_format.md``), with shared key prefixes and
several blocks, as TensorFlow writes it.
"""

from __future__ import annotations

import struct
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TABLE_MAGIC = 0xDB4775248B80FB57
DTYPE_CODES = {"<f4": 1, "<f8": 2, "<i4": 3, "<i8": 9}
HEADER = b"\x08\x01\x1a\x02\x08\x01"  # one shard, little-endian, version 1


def varint(number: int) -> bytes:
    groups = bytearray()
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def entry(array: NDArray[np.generic], offset: int) -> bytes:
    """BundleEntryProto of ``array`` at ``offset`` of the data file."""
    shape = b"".join(_field(2, _field(1, size)) for size in array.shape)
    raw = array.tobytes()
    message = _field(1, DTYPE_CODES[array.dtype.str]) + _field(2, shape)
    message += (_field(4, offset) if offset else b"") + _field(5, len(raw))
    return message + varint(6 << 3 | 5) + bytes(4)  # the checksum, which nobody reads


def _block(records: list[tuple[bytes, bytes]]) -> bytes:
    body, before = b"", b""
    for key, value in records:
        shared = 0
        while shared < min(len(key), len(before)) and key[shared] == before[shared]:
            shared += 1
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return body + struct.pack("<II", 0, 1)  # one restart point, at 0


def table(records: dict[bytes, bytes], per_block: int = 16, compression: int = 0) -> bytes:
    """A sorted table of ``records``."""
    file = b""
    handles: list[tuple[bytes, bytes]] = []

    def store(block: bytes) -> bytes:
        nonlocal file
        handle = varint(len(file)) + varint(len(block))
        kind = bytes([compression])
        file += block + kind + bytes(4)
        return handle

    ordered = sorted(records.items())
    for start in range(0, len(ordered), per_block):
        part = ordered[start : start + per_block]
        handles.append((part[-1][0], store(_block(part))))
    footer = store(_block([])) + store(_block(handles))
    return file + footer.ljust(40, b"\0") + struct.pack("<Q", TABLE_MAGIC)


def checkpoint(tensors: dict[str, NDArray[np.generic]], header: bytes = HEADER) -> tuple[bytes, bytes]:
    """Index and data of a bundle of ``tensors``."""
    records, data = {b"": header}, b""
    for name in sorted(tensors):
        records[name.encode()] = entry(tensors[name], len(data))
        data += tensors[name].tobytes()
    return table(records), data


def musicnn_tensors(seed: int) -> dict[str, NDArray[np.float32]]:
    """Random tensors with the names and shapes of a musicnn checkpoint; half of the scales are negative."""
    random = np.random.default_rng(seed)
    tensors: dict[str, NDArray[np.float32]] = {}

    def put(name: str, values: NDArray[np.float64]) -> None:
        tensors[name] = values.astype("<f4")

    kernels = [
        (7, 38, 204),
        (7, 67, 204),
        (128, 1, 51),
        (64, 1, 51),
        (32, 1, 51),
        (7, 561, 64),
        (7, 64, 64),
        (7, 64, 64),
    ]
    for number, (height, width, filters) in enumerate(kernels):
        name = "conv2d" + (f"_{number}" if number else "")
        kernel = random.standard_normal((height, width, 1, filters)) / np.sqrt(height * width)
        put(f"{name}/kernel", kernel)
        put(f"{name}/bias", 0.1 * random.standard_normal(filters))
    for number, channels in enumerate([1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200]):
        name = "batch_normalization" + (f"_{number}" if number else "")
        put(f"{name}/gamma", random.uniform(0.5, 1.5, channels) * random.choice([-1.0, 1.0], channels))
        put(f"{name}/beta", 0.1 * random.standard_normal(channels))
        put(f"{name}/moving_mean", 0.5 * random.standard_normal(channels))
        put(f"{name}/moving_variance", random.uniform(0.5, 2.0, channels))
    put("dense/kernel", random.standard_normal((1506, 200)) / np.sqrt(1506))
    put("dense/bias", 0.1 * random.standard_normal(200))
    put("dense_1/kernel", random.standard_normal((200, 50)) / np.sqrt(200))
    put("dense_1/bias", 0.1 * random.standard_normal(50))
    put("beta1_power", np.array(0.5))  # the optimiser's, which a recipe never asks for
    return tensors


def write_wheel(path: Path, *, without: str = "", changed: dict[str, bytes] | None = None) -> Path:
    """A file like the musicnn wheel, with random weights. ``without`` leaves a member out."""
    members = {**_members(), **(changed or {})}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if name != without:
                archive.writestr(name, content)
    return path


@cache
def _members() -> dict[str, bytes]:
    members: dict[str, bytes] = {
        "musicnn/configuration.py": (
            f"SR = 16000\n\nMTT_LABELS = {[f'mtt {i}' for i in range(50)]}\n\n"
            f"MSD_LABELS = {[f'msd {i}' for i in range(50)]}\n"
        ).encode(),
        "musicnn-0.1.0.dist-info/LICENSE.md": b"Copyright (c) nobody. Permission is hereby granted.\n",
    }
    for seed, variant in enumerate(("MSD", "MTT")):
        index, data = checkpoint(dict(musicnn_tensors(seed)))
        members[f"musicnn/{variant}_musicnn/.index"] = index
        members[f"musicnn/{variant}_musicnn/.data-00000-of-00001"] = data
    return members
