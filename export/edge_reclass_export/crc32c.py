"""CRC-32C (Castagnoli) of megabytes in milliseconds, with numpy only.

TensorFlow's tensor bundles and LevelDB tables carry a *masked* CRC-32C of every block and tensor, so that a
corrupt checkpoint is found before its weights are used. The bytes are cut into equally long lanes, all lanes
are advanced one byte at a time together, and the lanes' remainders are joined with the linear operator that
appends a lane's length of zero bytes.

References: RFC 3720 B.4 (polynomial and test vectors); LevelDB's ``util/crc32c.h`` (the mask).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["crc32c", "masked_crc32c"]

_POLYNOMIAL = 0x82F63B78  # reflected
_LANE_BYTES = 1024
_MASK_DELTA = 0xA282EAD8


def _byte_table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


_TABLE = _byte_table()


def _append_zeros_operator(count: int) -> list[list[int]]:
    """Four 256-entry tables: XOR of their entries advances a remainder by ``count`` zero bytes."""
    basis = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(count):
        basis = _TABLE[basis & 0xFF] ^ (basis >> 8)
    tables: list[list[int]] = []
    for byte in range(4):
        columns = [int(value) for value in basis[8 * byte : 8 * byte + 8]]
        table = [0] * 256
        for index in range(1, 256):
            low_bit = (index & -index).bit_length() - 1
            table[index] = table[index & (index - 1)] ^ columns[low_bit]
        tables.append(table)
    return tables


_APPEND_LANE = _append_zeros_operator(_LANE_BYTES)


def crc32c(data: bytes) -> int:
    """CRC-32C of ``data`` as an unsigned 32-bit integer (``crc32c(b"123456789") == 0xE3069283``)."""
    full = len(data) // _LANE_BYTES * _LANE_BYTES
    remainder = 0xFFFFFFFF
    if full:
        lanes = np.frombuffer(data, np.uint8, count=full).reshape(-1, _LANE_BYTES).T
        state = np.zeros(lanes.shape[1], np.uint32)
        for column in lanes:
            state = _TABLE[(state ^ column) & 0xFF] ^ (state >> 8)
        first, second, third, fourth = _APPEND_LANE
        for lane in state.tolist():
            remainder = (
                first[remainder & 0xFF]
                ^ second[(remainder >> 8) & 0xFF]
                ^ third[(remainder >> 16) & 0xFF]
                ^ fourth[remainder >> 24]
                ^ lane
            )
    for byte in data[full:]:
        remainder = int(_TABLE[(remainder ^ byte) & 0xFF]) ^ (remainder >> 8)
    return remainder ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The CRC as LevelDB and TensorFlow store it: rotated right by 15 bits, plus a constant, modulo 2^32."""
    value = crc32c(data)
    return (((value >> 15) | (value << 17)) + _MASK_DELTA) & 0xFFFFFFFF
