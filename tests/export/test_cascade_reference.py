"""The whole cascade against its references: nothing that is broken in a bundle passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bundles
from edge_reclass.backends.ort.cpu import OrtBackend
from edge_reclass.bundle import manifest_text
from edge_reclass.bundle.loading import MANIFEST, load
from edge_reclass.errors import BundleError, UsageError
from edge_reclass_export.cascade_writer import write_cascade_reference
from edge_reclass_export.commands.verify import verify
from edge_reclass_export.engine.cascade_reference import (
    FILE,
    CascadeResult,
    check_cascade,
    load_cascade_reference,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages, the second head on both embeddings; a policy that ends after the first."""
    root = tmp_path_factory.mktemp("bundle") / "b"
    second = bundles.waveform_stage("mert", head={"inputs": ["fma", "mert"]})
    bundles.make_bundle(root, [bundles.fma_stage(), second], policies={"only": bundles.POLICY}, default_policy="only")
    write_cascade_reference(root)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "b"
    for file in sorted(made.rglob("*")):
        if file.is_file():
            (copy / file.relative_to(made)).parent.mkdir(parents=True, exist_ok=True)
            (copy / file.relative_to(made)).write_bytes(file.read_bytes())
    return copy


def check(root: Path, **options: object) -> dict[str, CascadeResult]:
    with OrtBackend(1) as cpu:
        return {one.stage: one for one in check_cascade(load(root), OrtBackend(1), cpu, **options)}  # type: ignore[arg-type]


def statuses(root: Path) -> list[str]:
    return [finding.status for finding in check(root).values()]


def test_a_bundle_agrees_with_itself_and_says_how_well(root: Path) -> None:
    load(root).verify()
    assert load(root).manifest.reference == FILE
    found = check(root)
    assert list(found) == ["fma", "mert"]
    for finding in found.values():
        assert (finding.status, finding.relative, finding.probability) == ("ok", 0.0, 0.0)
    assert [finding.precision for finding in found.values()] == ["fma518", "fp32"]
    reference = load_cascade_reference(load(root))
    assert reference is not None and reference.inputs().shape == (4, 441_000)
    assert reference.stages["fma"].embedding.shape == (4, 518)


def test_writing_twice_gives_the_same_bytes(root: Path) -> None:
    before = (root / FILE).read_bytes(), (root / MANIFEST).read_bytes()
    write_cascade_reference(root)
    assert ((root / FILE).read_bytes(), (root / MANIFEST).read_bytes()) == before


def changed(root: Path, change: Callable[[onnx.ModelProto], None], file: str) -> None:
    model = onnx.load(root / file)
    change(model)
    (root / file).write_bytes(model.SerializeToString(deterministic=True))


def zero(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))


def swap(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array[..., [1, 0, 2]]), tensor.name))


def flip(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    content = bytearray(tensor.raw_data)
    content[8] ^= 1  # the last bit of one weight
    tensor.raw_data = bytes(content)


def offset(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "thousand":
            tensor.CopyFrom(numpy_helper.from_array(np.array(1030, np.float32), tensor.name))


BROKEN = {
    "a head of zeros": (zero, "heads/fma.onnx"),
    "a head of zeros that the policy never asks": (zero, "heads/mert.onnx"),
    "swapped classes": (swap, "heads/mert.onnx"),
    "one flipped bit of a head": (flip, "heads/fma.onnx"),
    "another encoder": (offset, "encoders/mert.fp32.onnx"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_part_with_its_hash_put_right_does_not_pass(root: Path, case: str) -> None:
    change, file = BROKEN[case]
    changed(root, change, file)
    bundles.rehash(root)
    load(root).verify()
    assert "mismatch" in statuses(root)


def test_a_head_that_is_text_does_not_pass(root: Path) -> None:
    (root / "heads/mert.onnx").write_text("this is no onnx file")
    bundles.rehash(root)
    assert statuses(root) == ["mismatch", "mismatch"]
    with pytest.raises(BundleError, match="no valid ONNX file"):
        verify(root)


def test_swapped_genres_and_another_excerpt_do_not_pass(root: Path) -> None:
    bundles.edit_manifest(root, genres=["Beta", "Alpha", "Gamma"])
    found = check(root)["fma"]
    assert found.status == "mismatch" and "the genres Alpha, Beta, Gamma" in found.detail
    assert found.detail.endswith("edge-reclass export reference BUNDLE")


def test_another_temperature_is_the_owners_to_choose(root: Path) -> None:
    manifest = load(root).manifest
    stages = [
        msgspec.structs.replace(stage, head=msgspec.structs.replace(stage.head, temperature=3.0))
        for stage in manifest.stages
    ]
    (root / MANIFEST).write_text(manifest_text(msgspec.structs.replace(manifest, stages=stages)), encoding="utf-8")
    assert statuses(root) == ["ok", "ok"]


def without_reference(root: Path) -> None:
    files = {name: entry for name, entry in bundles.read_manifest(root)["files"].items() if name != FILE}
    bundles.edit_manifest(root, reference=None, files=files)
    (root / FILE).unlink()
    (root / FILE).parent.rmdir()


def test_without_references_every_stage_still_has_to_answer(root: Path) -> None:
    without_reference(root)
    assert statuses(root) == ["not compared", "not compared"]
    with pytest.raises(UsageError, match="has no references"):
        verify(root)
    changed(root, zero, "heads/mert.onnx")
    bundles.rehash(root)
    found = check(root)
    assert found["fma"].status == "not compared"
    assert found["mert"].status == "mismatch" and "same logits for every piece" in found["mert"].detail


def test_one_stage_is_checked_with_what_its_head_takes(root: Path) -> None:
    assert list(check(root, names=("mert",))) == ["mert"]
    assert check(root, names=("mert",))["mert"].status == "ok"


REFERENCES: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], str]] = {
    "another seed": (lambda arrays: arrays.update(seed=np.int64(3)), "makes other audio"),
    "a seed below zero": (lambda arrays: arrays.update(seed=np.int64(-1)), "expected a rate"),
    "no end of samples": (lambda arrays: arrays.update(samples=np.int64(10**13)), "expected a rate"),
    "another format": (lambda arrays: arrays.update(format=np.int64(2)), "format 2"),
    "a missing stage": (lambda arrays: arrays.pop("logits.mert"), "no references of a cascade"),
    "other shapes": (lambda arrays: arrays.update({"logits.mert": np.zeros((3, 3), "f4")}), "shapes"),
}


@pytest.mark.parametrize("case", REFERENCES)
def test_references_that_cannot_be_meant_are_refused(root: Path, case: str) -> None:
    change, part = REFERENCES[case]
    with np.load(root / FILE) as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    np.savez(root / FILE, **arrays)
    bundles.rehash(root)
    with pytest.raises(BundleError, match=part):
        load_cascade_reference(load(root))
