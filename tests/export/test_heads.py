"""Heads: the graph computes what numpy computes in float64, and misfits are refused."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_reclass.bundle import agreement
from edge_reclass.errors import UsageError
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.heads import LinearLayer, Scaler, head_graph, head_interface, head_mlp, read_head, read_npz
from edge_reclass_export.onnx_writer import model_bytes
from edge_reclass_export.parity import run_graph

RANDOM = np.random.default_rng(11)


def layers(*widths: int) -> list[LinearLayer]:
    return [
        LinearLayer(RANDOM.standard_normal((a, b)) / np.sqrt(a), RANDOM.standard_normal(b)) for a, b in pairwise(widths)
    ]


@pytest.mark.parametrize("widths", [(518, 10), (518, 64, 10), (30, 20, 16, 4)])
def test_float32_parity_with_scales_from_1e_minus_6_to_1e_4_and_large_means(widths: tuple[int, ...]) -> None:
    made = layers(*widths)
    scale = 10.0 ** RANDOM.uniform(-6, 4, widths[0])
    mean = scale * 10.0 ** RANDOM.uniform(-1, 3, widths[0])
    features = (mean + scale * RANDOM.standard_normal((32, widths[0]))).astype(np.float32)
    expected = (features.astype(np.float64) - mean) / scale
    for number, layer in enumerate(made):
        expected = (np.maximum(expected, 0.0) if number else expected) @ layer.kernel + layer.bias
    content = model_bytes(head_mlp(made, Scaler(mean, scale)), expect=head_interface(made))
    assert agreement(expected, run_graph(content, features)[0]).relative < 1e-4
    one_by_one = np.concatenate([run_graph(content, row[None])[0] for row in features[:3]])
    np.testing.assert_allclose(one_by_one, expected[:3], rtol=0, atol=1e-3)


def test_clip_limits_what_is_standardised() -> None:
    made = layers(6, 3)
    scaler = Scaler(np.full(6, 2.0), np.full(6, 0.5), clip=3.0)
    features = (2.0 + 4.0 * RANDOM.standard_normal((50, 6))).astype(np.float32)
    standardised = np.clip((features.astype(np.float64) - 2.0) / 0.5, -3.0, 3.0)
    assert (np.abs(standardised) == 3.0).any() and (np.abs(standardised) < 3.0).any()
    got = run_graph(model_bytes(head_mlp(made, scaler), expect=head_interface(made)), features)[0]
    np.testing.assert_allclose(got, standardised @ made[0].kernel + made[0].bias, atol=1e-5)


def test_without_scaler() -> None:
    made = layers(5, 3)
    features = RANDOM.standard_normal((2, 5)).astype(np.float32)
    got = run_graph(model_bytes(head_mlp(made), expect=head_interface(made)), features)[0]
    np.testing.assert_allclose(got, features @ made[0].kernel + made[0].bias, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: head_mlp([]), "at least one layer"),
        (lambda: head_mlp([*layers(5, 4), *layers(3, 2)]), "layer 1 takes 3 values, layer 0 gives 4"),
        (lambda: head_mlp([LinearLayer(np.ones((5, 2)), np.ones(3))]), r"got \[5, 2\] and \[3\]"),
        (lambda: head_mlp(layers(5, 2), Scaler(np.ones(4), np.ones(5))), "mean and scale of 5 values"),
        (lambda: head_mlp(layers(2, 2), Scaler(np.ones(2), np.array([1.0, 0.0]))), "has to be positive"),
        (lambda: head_mlp(layers(2, 2), Scaler(np.ones(2), np.ones(2), clip=0.0)), "expected a positive clip, got 0"),
    ],
)
def test_misfits(make: Callable[[], onnx.ModelProto], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        make()


def test_npz_and_onnx_heads_give_the_same_graph(tmp_path: Path) -> None:
    (layer,) = layers(7, 3)
    scaler = Scaler(RANDOM.standard_normal(7), np.full(7, 2.0), clip=8.0)
    arrays = {"kernel": layer.kernel, "bias": layer.bias, "mean": scaler.mean, "scale": scaler.scale}
    np.savez(tmp_path / "head.npz", **arrays, clip=scaler.clip)
    (tmp_path / "head.onnx").write_bytes(model_bytes(head_mlp([layer], scaler), expect=head_interface([layer])))
    head = read_npz(tmp_path / "head.npz")
    content = model_bytes(head_graph(head.steps, head.scaler), expect=head_interface(head.steps))
    assert content == read_head(tmp_path / "head.onnx", 7, 3) == (tmp_path / "head.onnx").read_bytes()


def test_head_files_that_cannot_be_used(tmp_path: Path) -> None:
    (layer,) = layers(7, 3)
    path = tmp_path / "head.onnx"
    with pytest.raises(UsageError, match="cannot read the head"):
        read_head(path, 7, 3)
    path.write_bytes(model_bytes(head_mlp([layer]), expect=head_interface([layer])))
    with pytest.raises(CheckpointError, match=r"float32\[batch, 7\].*expected.*float32\[batch, 8\]"):
        read_head(path, 8, 3)
    path.write_bytes(b"\xff\xff not a model")
    with pytest.raises(CheckpointError, match="no ONNX file"):
        read_head(path, 7, 3)
    path = tmp_path / "head.npz"
    np.savez(path, kernel=layer.kernel)
    with pytest.raises(CheckpointError, match="no array 'bias'"):
        read_npz(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(CheckpointError, match="no head's weights"):
        read_npz(path)
