"""The checkpoint reader: what was written comes back, and what is cut off is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.tensorflow_bundle import TensorBundle
from export.checkpoint_maker import HEADER, checkpoint, entry, table

RANDOM = np.random.default_rng(5)
TENSORS = {
    "conv2d/kernel": RANDOM.standard_normal((3, 4, 1, 5)).astype("<f4"),
    "conv2d/bias": RANDOM.standard_normal(5).astype("<f4"),
    "conv2d_1/bias": RANDOM.standard_normal(700).astype("<f8"),
    "global_step": np.array(1234, "<i8"),
    **{f"layer_{number}/gamma": RANDOM.standard_normal(number + 1).astype("<f4") for number in range(40)},
}
INDEX, DATA = checkpoint(TENSORS)


def test_every_tensor_comes_back() -> None:
    bundle = TensorBundle(INDEX, DATA, "made")
    assert set(bundle.entries) == set(TENSORS)
    for name, expected in TENSORS.items():
        got = bundle.tensor(name, expected.shape)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


@given(st.integers(0, len(INDEX) - 1))
@settings(max_examples=100, deadline=None)
def test_a_truncated_index_is_refused(length: int) -> None:
    with pytest.raises(CheckpointError):
        TensorBundle(INDEX[:length], DATA, "made")


def test_truncated_data_is_refused() -> None:
    bundle = TensorBundle(INDEX, DATA[:-1], "made")
    with pytest.raises(CheckpointError, match="truncated"):
        for name in TENSORS:
            bundle.tensor(name)


def test_missing_tensor_and_wrong_shape_name_both_sides() -> None:
    bundle = TensorBundle(INDEX, DATA, "made")
    with pytest.raises(CheckpointError, match="no tensor 'dense/kernel'"):
        bundle.tensor("dense/kernel")
    with pytest.raises(CheckpointError, match=r"shape \[3, 4, 1, 5\], expected \[3, 4, 5\]"):
        bundle.tensor("conv2d/kernel", (3, 4, 5))


@pytest.mark.parametrize("header", [b"\x08\x02", b"\x08\x01\x10\x01", b""])
def test_shards_and_byte_order(header: bytes) -> None:
    with pytest.raises(CheckpointError, match="expected one shard, little-endian"):
        TensorBundle(*checkpoint(TENSORS, header), "made")


def test_no_header() -> None:
    with pytest.raises(CheckpointError, match="no bundle header"):
        TensorBundle(table({b"a": entry(TENSORS["conv2d/bias"], 0)}), DATA, "made")


def test_compressed_blocks_are_not_supported() -> None:
    with pytest.raises(CheckpointError, match=r"compressed \(type 1\)"):
        TensorBundle(table({b"": HEADER}, compression=1), DATA, "made")


def test_unknown_type_and_wrong_size() -> None:
    message = entry(TENSORS["conv2d/bias"], 0)
    string_type = message.replace(b"\x08\x01", b"\x08\x07", 1)
    with pytest.raises(CheckpointError, match="TensorFlow type 7"):
        TensorBundle(table({b"": HEADER, b"a": string_type}), DATA, "made").tensor("a")
    short = message.replace(b"\x28\x14", b"\x28\x10", 1)
    with pytest.raises(CheckpointError, match="16 bytes, expected 20"):
        TensorBundle(table({b"": HEADER, b"a": short}), DATA, "made").tensor("a")


def test_slices_are_not_supported() -> None:
    message = entry(TENSORS["conv2d/bias"], 0) + b"\x3a\x00"
    with pytest.raises(CheckpointError, match="slices"):
        TensorBundle(table({b"": HEADER, b"a": message}), DATA, "made")
