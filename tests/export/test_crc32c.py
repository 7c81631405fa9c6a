"""CRC-32C against the published vectors and against the bit-by-bit definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reclass_export.crc32c import crc32c, masked_crc32c


def bit_by_bit(data: bytes) -> int:
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_rfc_3720_vectors(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


@given(st.binary(max_size=24), st.sampled_from([0, 1, 1023, 1024, 1025, 2048, 5000]))
def test_lanes_join_to_the_definition(seed: bytes, length: int) -> None:
    data = (seed + b"edge")[: max(1, len(seed))] * (length // max(1, len(seed)) + 1)
    assert crc32c(data[:length]) == bit_by_bit(data[:length])


def test_mask_is_leveldbs() -> None:
    # TensorFlow's empty table block: 8 bytes of restarts and the compression type 0.
    value = crc32c(b"\0\0\0\0\1\0\0\0\0")
    rotated = (masked_crc32c(b"\0\0\0\0\1\0\0\0\0") - 0xA282EAD8) % 2**32
    assert ((rotated << 15) | (rotated >> 17)) % 2**32 == value
