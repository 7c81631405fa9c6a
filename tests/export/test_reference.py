"""Reference vectors: inputs that can be made again anywhere, a file that is checked, a comparison that is strict."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_reclass.bundle.reference import CASES, ReferenceVectors, agreement, load_reference, synthesise
from edge_reclass.errors import BundleError
from edge_reclass_export.engine.verify import Limits
from edge_reclass_export.errors import ParityError
from edge_reclass_export.parity import require_parity

RANDOM = np.random.default_rng(2)
INPUTS_CRC = 1_082_704_931
VECTORS = ReferenceVectors(16_000, 4_000, 9, RANDOM.standard_normal((len(CASES), 5)).astype(np.float32))


def test_inputs_are_what_their_names_say() -> None:
    inputs = dict(zip(CASES, synthesise(16_000, 48_000, 1), strict=True))
    assert all(row.dtype == np.float32 and np.abs(row).max() <= 1.0 for row in inputs.values())
    assert all(np.array_equal(row * 32_768, np.rint(row * 32_768)) for row in inputs.values())
    edges = inputs["silence_edges"]
    assert not edges[:16_000].any() and not edges[32_001:].any() and edges[16_000:32_000].any()
    assert inputs["full_scale"].min() == -1.0 and inputs["full_scale"].max() == 32_767 / 32_768
    assert 0 < np.abs(inputs["quiet_noise"]).max() <= 1e-3 + 2.0**-16
    others = synthesise(16_000, 48_000, 2)
    chirp = CASES.index("chirp")
    assert all(np.array_equal(others[i], inputs[name]) == (i == chirp) for i, name in enumerate(CASES))


def test_inputs_are_the_same_on_every_machine() -> None:
    # The same with numpy 1.26 and 2.4, with and without AVX-512 and AVX2.
    made = (synthesise(16_000, 48_128, 20_231_016) * 32_768).astype("<i2")
    assert zlib.crc32(made.tobytes()) == INPUTS_CRC


def test_file_round_trip_is_exact_and_deterministic(tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    path.write_bytes(VECTORS.to_bytes())
    assert VECTORS.to_bytes() == path.read_bytes()
    loaded = load_reference(path)
    assert (loaded.rate, loaded.samples, loaded.seed) == (16_000, 4_000, 9)
    np.testing.assert_array_equal(loaded.embedding, VECTORS.embedding)
    np.testing.assert_array_equal(loaded.inputs(), VECTORS.inputs())
    assert len(path.read_bytes()) < 4_000


OWN = replace(
    VECTORS,
    embedding=np.concatenate([VECTORS.embedding, VECTORS.embedding[:2]]),
    extra_inputs=RANDOM.integers(-32_768, 32_767, (2, 4_000), np.int16, endpoint=True),
    extra_names=("a.wav", "b ü.mp3"),
)


def test_extra_inputs_stand_behind_the_made_ones(tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    path.write_bytes(OWN.to_bytes())
    loaded = load_reference(path)
    assert loaded.names == (*CASES, "a.wav", "b ü.mp3") and VECTORS.names == CASES
    inputs = loaded.inputs()
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs[:8], VECTORS.inputs())
    np.testing.assert_array_equal(inputs[8:] * 32_768, OWN.extra_inputs)
    np.testing.assert_array_equal(loaded.embedding, OWN.embedding)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"own_names": ["a.wav"]}, r"expected float32\[9, dim\]"),
        ({"own": OWN.extra_inputs[:1]}, r"expected extra inputs int16\[2, 4000\], got int16\[1, 4000\]"),
        ({"own": OWN.extra_inputs.astype(np.float32)}, r"got float32\[2, 4000\]"),
    ],
)
def test_extra_inputs_that_do_not_fit(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=message):
        load_reference(rewritten(tmp_path / "reference.npz", OWN, **changes))


def rewritten(path: Path, vectors: ReferenceVectors = VECTORS, **changes: object) -> Path:
    path.write_bytes(vectors.to_bytes())
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays.update({name: np.asarray(value) for name, value in changes.items()})
    np.savez(path, **{name: value for name, value in arrays.items() if value.dtype != object})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "reference format 2"),
        ({"cases": ["noise"]}, "reference format 1 with"),
        ({"embedding": np.zeros((3, 5), np.float32)}, r"expected float32\[8, dim\] embeddings, got float32\[3, 5\]"),
        ({"embedding": np.zeros((8, 5))}, "got float64"),
        ({"seed": 10}, "makes other inputs"),
        ({"checksums": np.zeros(7, np.int64)}, "makes other inputs"),
        ({"samples": 0}, "expected a rate from 1000 to 192000, 1 to 16777216 samples"),
        ({"rate": None}, "no reference vectors"),
        ({"rate": [1, 2]}, "no reference vectors"),
    ],
)
def test_files_that_do_not_fit(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=message):
        load_reference(rewritten(tmp_path / "reference.npz", **changes))


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    with pytest.raises(BundleError, match="cannot be read"):
        load_reference(path)
    content = VECTORS.to_bytes()
    for damaged in (b"", b"text", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match="no reference vectors"):
            load_reference(path)


def test_agreement_is_the_worst_row() -> None:
    expected = np.array([[3.0, 4.0], [1.0, 0.0]], np.float32)
    got = np.array([[3.0, 4.0], [1.0, 1.0]], np.float32)
    found = agreement(expected, got)
    assert found.cosine == pytest.approx(np.sqrt(0.5))
    assert (found.relative, found.max_abs) == (1.0, 1.0)
    same = agreement(expected, expected)
    assert (same.cosine, same.relative, same.max_abs) == (1.0, 0.0, 0.0)


def test_agreement_with_zeros_and_nan() -> None:
    zero, one = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    assert agreement(zero, zero).cosine == 1.0
    assert agreement(zero, one).relative == float("inf")
    assert agreement(one, zero).cosine == 0.0
    assert agreement(one, one * np.float32(np.nan)).cosine == -1.0
    with pytest.raises(ValueError, match="equal shapes"):
        agreement(one, np.ones((1, 4), np.float32))


def test_parity_names_all_three_limits() -> None:
    expected = np.ones((1, 4), np.float32)
    tolerance = Limits(cosine=0.999, relative=1e-3)
    assert require_parity(expected, expected * np.float32(1.0005), tolerance, "x").max_abs < 1e-3
    with pytest.raises(ParityError, match=r"encoder differs.*relative error 0\.0[0-9]* \(at most 0\.001\)"):
        require_parity(expected, expected * np.float32(1.05), tolerance, "encoder")
