"""Putting an encoder into a bundle: the runtime's loader accepts what is written, and misfits write nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from edge_reclass.bundle import WaveformEntry, load
from edge_reclass.errors import BundleError, UsageError
from edge_reclass.reference import agreement, load_reference
from edge_reclass_export.bundle_writer import put_encoder
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.graph import GraphBuilder
from edge_reclass_export.onnx_writer import BATCH, GraphContract, model_bytes
from edge_reclass_export.parity import run_graph

GENRES = ["Blues", "No", "Rock"]


def small_encoder(dim: int = 4, name: str = "small") -> ExportedEncoder:
    graph = GraphBuilder("small")
    kernel = graph.weight(np.random.default_rng(dim).standard_normal((2000, dim)), "kernel")
    value = graph.op("MatMul", graph.input("waveform", (BATCH, 2000)), kernel, name="product")
    graph.output(value, "embedding", (BATCH, dim))
    return ExportedEncoder(
        name=name,
        model=model_bytes(graph.model(), expect=GraphContract.encoder(2000, dim)),
        rate=16_000,
        window_samples=2000,
        hop_samples=1000,
        short="repeat",
        dim=dim,
        provenance={"recipe": "small", "licence": "ISC"},
        licence_file=f"LICENSE.{name}",
        licence="Take it.\n",
    )


def head_file(path: Path, features: int = 4, classes: int = 3) -> Path:
    np.savez(path, kernel=np.ones((features, classes)), bias=np.zeros(classes))
    return path


def contents(root: Path) -> dict[str, str]:
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }


def test_new_bundle_with_a_head(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    encoder = small_encoder()
    change = put_encoder(root, encoder, head=head_file(tmp_path / "head.npz"), genres=GENRES)
    assert change.complete and not change.notes
    bundle = load(root)
    bundle.verify()
    stage = bundle.manifest.stage("small")
    assert isinstance(stage.encoder, WaveformEntry)
    assert (stage.encoder.rate, stage.encoder.dim, stage.encoder.hop_samples) == (16_000, 4, 1000)
    assert bundle.manifest.genres == GENRES
    assert bundle.manifest.provenance["small"]["recipe"] == "small"
    assert set(contents(root)) == {"bundle.yaml", *bundle.manifest.files}
    assert bundle.path("LICENSE.small").read_text() == "Take it.\n"
    assert stage.encoder.reference is not None
    vectors = load_reference(bundle.path(stage.encoder.reference))
    got = run_graph(bundle.path(stage.encoder.files["fp32"]).read_bytes(), vectors.inputs())[0]
    assert agreement(vectors.embedding, got).relative < 1e-6
    logits = run_graph(bundle.path(stage.head.file).read_bytes(), got)[0]
    assert logits.shape == (len(got), 3)


def test_without_a_head_the_files_are_there_and_the_fragment_says_how_to_enter_them(tmp_path: Path) -> None:
    change = put_encoder(tmp_path, small_encoder())
    assert not change.complete
    assert "no head" in change.notes[0]
    assert set(contents(tmp_path)) == {"LICENSE.small", "encoders/small.fp32.onnx", "reference/small.npz"}
    fragment = yaml.safe_load(change.fragment)
    for file, described in fragment["files"].items():
        assert described["sha256"] == contents(tmp_path)[file]
    assert fragment["stages"][0]["encoder"]["kind"] == "waveform"
    assert "head" not in fragment["stages"][0]


def test_second_stage_and_new_export_of_the_first(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    head = head_file(tmp_path / "head.npz")
    put_encoder(root, small_encoder(), head=head, genres=GENRES)
    change = put_encoder(root, small_encoder(name="other"), head=head)
    assert "no policy uses the stage 'other'" in change.notes[0]
    names = [stage.name for stage in load(root).manifest.stages]
    assert names == ["small", "other"]
    again = replace(small_encoder(), provenance={"recipe": "small", "note": "again"})
    change = put_encoder(root, again)
    assert change.complete and not change.notes
    bundle = load(root)
    bundle.verify()
    assert [stage.name for stage in bundle.manifest.stages] == names
    assert bundle.manifest.provenance["small"] == {"recipe": "small", "note": "again"}
    assert bundle.manifest.stage("small").head.file == "heads/small.onnx"


def test_stage_may_be_called_otherwise(tmp_path: Path) -> None:
    put_encoder(tmp_path, small_encoder(), stage="first", head=head_file(tmp_path / "head.npz"), genres=GENRES)
    assert load(tmp_path).manifest.stage("first").head.inputs == ["first"]


@pytest.mark.parametrize("name", ["", "Musicnn", "../outside", "a/b", "1st", "a b"])
def test_names_that_are_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be called"):
        put_encoder(tmp_path / "mine", replace(small_encoder(), name=name))
    assert list(tmp_path.iterdir()) == []


def test_misfits_change_nothing(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    head = head_file(tmp_path / "head.npz")
    with pytest.raises(UsageError, match="--genres"):
        put_encoder(root, small_encoder(), head=head)
    with pytest.raises(CheckpointError, match=r"expected.*float32\[batch, 5\]"):
        put_encoder(root, small_encoder(5), head=head, genres=GENRES)
    with pytest.raises(BundleError, match="would not be valid"):
        put_encoder(root, small_encoder(), head=head, genres=["Rock", "Rock", "Pop"])
    assert not root.exists()
    put_encoder(root, small_encoder(), head=head, genres=GENRES)
    before = contents(root)
    with pytest.raises(UsageError, match="leave it out"):
        put_encoder(root, small_encoder(), head=head, genres=["A", "B", "C"])
    with pytest.raises(CheckpointError, match=r"heads/small.onnx.*float32\[batch, 4\].*float32\[batch, 5\]"):
        put_encoder(root, small_encoder(5))
    with pytest.raises(CheckpointError, match="expected"):
        put_encoder(root, small_encoder(), head=head_file(tmp_path / "two.npz", classes=2))
    assert contents(root) == before
    (root / "bundle.yaml").write_text("format: 1\n")
    with pytest.raises(BundleError):
        put_encoder(root, small_encoder())
