"""Putting an encoder into a bundle: the runtime's loader accepts what is written, and misfits write nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from edge_reclass import Cascade
from edge_reclass.bundle import ExcerptEntry, Fma518Entry, HeadEntry, StageEntry, WaveformEntry, load
from edge_reclass.errors import BundleError, UsageError
from edge_reclass.reference import CASES, ReferenceVectors, agreement, load_reference
from edge_reclass_export.bundle_writer import put_encoder, put_stage, stage_head
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.graph import GraphBuilder
from edge_reclass_export.onnx_writer import BATCH, GraphContract, model_bytes, write_bytes
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
    assert "the policy 'soft' now asks small, other" in change.notes[0]
    names = [stage.name for stage in load(root).manifest.stages]
    assert names == ["small", "other"]
    again = replace(small_encoder(), provenance={"recipe": "small", "note": "again"})
    change = put_encoder(root, again)
    assert change.complete and not change.notes
    bundle = load(root)
    bundle.verify()
    assert [stage.name for stage in bundle.manifest.stages] == names
    provenance = bundle.manifest.provenance["small"]
    assert (provenance["recipe"], provenance["note"]) == ("small", "again") and "licence" not in provenance
    assert bundle.manifest.stage("small").head.file == "heads/small.onnx"


def test_the_made_policy_follows_the_stages_until_it_is_edited(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    head = head_file(tmp_path / "head.npz")
    put_encoder(root, small_encoder(), head=head, genres=GENRES)
    assert load(root).manifest.default_policy == "single"
    for name in ("second", "third"):
        put_encoder(root, small_encoder(name=name), head=head)
    manifest = load(root).manifest
    soft = manifest.policies["soft"]
    assert (manifest.default_policy, soft.vote) == ("soft", "soft")
    assert [(step.after, step.accept) for step in soft.steps] == [("small", 0.9), ("second", 0.9), ("third", None)]
    assert soft.steps[2].weights == {"small": 1.0, "second": 1.0, "third": 1.0}
    with Cascade.open(root) as cascade:
        assert cascade.plan.policy.stages == ("small", "second", "third")
    text = (root / "bundle.yaml").read_text()
    (root / "bundle.yaml").write_text(
        text.replace("accept: 0.9", "accept: 0.7").replace("default_policy: soft", "default_policy: single")
    )
    change = put_encoder(root, small_encoder(name="fourth"), head=head)
    assert "no policy uses the stage 'fourth' yet" in change.notes[0]
    after = load(root).manifest
    assert [step.accept for step in after.policies["soft"].steps] == [0.7, 0.7, None]
    assert after.default_policy == "single"


def test_all_precisions_and_known_reference_vectors(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    plain = small_encoder()
    vectors = ReferenceVectors(16_000, 2000, 5, np.ones((len(CASES), 4), np.float32))
    encoder = replace(plain, others={"fp16": plain.model, "int8": plain.model}, reference=vectors, licence_file="")
    put_encoder(root, encoder, head=head_file(tmp_path / "head.npz"), genres=GENRES)
    bundle = load(root)
    bundle.verify()
    entry = bundle.manifest.stage("small").encoder
    assert isinstance(entry, WaveformEntry)
    assert entry.files == {name: f"encoders/small.{name}.onnx" for name in ("fp32", "fp16", "int8")}
    assert load_reference(root / "reference" / "small.npz").embedding.tolist() == vectors.embedding.tolist()
    assert not (root / "LICENSE.small").exists()
    put_encoder(root, plain)  # made from other weights, so the other precisions are no longer its own
    entry = load(root).manifest.stage("small").encoder
    assert isinstance(entry, WaveformEntry) and set(entry.files) == {"fp32"}
    assert "encoders/small.fp16.onnx" not in load(root).manifest.files


def test_an_own_excerpt_stays(tmp_path: Path) -> None:
    head = head_file(tmp_path / "head.npz")
    own = ExcerptEntry(start="center", seconds=5.0)
    put_encoder(tmp_path, small_encoder(), head=head, genres=GENRES, excerpt=own)
    assert load(tmp_path).manifest.stage("small").excerpt == own
    put_encoder(tmp_path, small_encoder())
    assert load(tmp_path).manifest.stage("small").excerpt == own


def test_what_is_known_of_a_head_is_kept(tmp_path: Path) -> None:
    head = head_file(tmp_path / "head.npz")
    digest = hashlib.sha256(head.read_bytes()).hexdigest()
    put_encoder(tmp_path, small_encoder(), head=head, genres=GENRES)
    put_encoder(tmp_path, small_encoder())
    assert load(tmp_path).manifest.provenance["small"]["head"] == {"source": "head.npz", "source_sha256": digest}
    content, source = stage_head(tmp_path, head, 4)
    put_encoder(tmp_path, small_encoder(), head=content, head_source={**source, "note": "given as bytes"})
    assert load(tmp_path).manifest.provenance["small"]["head"]["note"] == "given as bytes"


def test_a_head_can_be_refused_before_the_export(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    head = head_file(tmp_path / "head.npz")
    with pytest.raises(CheckpointError, match=r"float32\[batch, 4\].*float32\[batch, 5\]"):
        stage_head(root, head, 5, GENRES)
    with pytest.raises(UsageError, match="--genres"):
        stage_head(root, head, 4)
    with pytest.raises(UsageError, match="cannot read the head"):
        stage_head(root, tmp_path / "absent.npz", 4, GENRES)
    assert not root.exists()


def test_a_stage_of_features(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    head = write_bytes(stage_head(root, head_file(tmp_path / "head.npz", features=518), 518, GENRES)[0], tmp_path / "h")
    stage = StageEntry(
        name="fma", encoder=Fma518Entry(rate=44_100), head=HeadEntry(file="heads/fma.onnx", inputs=["fma"])
    )
    contents = {"heads/fma.onnx": head.path.read_bytes()}
    with pytest.raises(UsageError, match="--genres"):
        put_stage(root, stage, contents, provenance={})
    change = put_stage(root, stage, contents, provenance={"recipe": "x"}, genres=GENRES)
    assert change.complete
    load(root).verify()
    put_encoder(root, small_encoder(), head=head_file(tmp_path / "head.npz"))
    assert [stage.name for stage in load(root).manifest.stages] == ["fma", "small"]


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
