"""Putting an encoder into a bundle: the runtime's loader accepts what is written, and misfits write nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml

import bundles
from edge_reclass import Cascade
from edge_reclass.bundle import (
    MANIFEST,
    ExcerptEntry,
    Fma518Entry,
    HeadEntry,
    StageEntry,
    WaveformEntry,
    manifest_text,
)
from edge_reclass.bundle.loading import load
from edge_reclass.bundle.reference import CASES, ReferenceVectors, agreement, load_reference
from edge_reclass.errors import BundleError, UsageError
from edge_reclass_export import bundle_files
from edge_reclass_export.bundle_writer import check_bundle, put_encoder, put_stage, stage_head
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.graph import GraphBuilder
from edge_reclass_export.onnx_writer import BATCH, GraphInterface, model_bytes, write_bytes
from edge_reclass_export.parity import run_graph

GENRES = ["Blues", "No", "Rock"]


def small_encoder(dim: int = 4, name: str = "small") -> ExportedEncoder:
    graph = GraphBuilder("small")
    kernel = graph.weight(np.random.default_rng(dim).standard_normal((2000, dim)), "kernel")
    value = graph.op("MatMul", graph.input("waveform", (BATCH, 2000)), kernel, name="product")
    graph.output(value, "embedding", (BATCH, dim))
    return ExportedEncoder(
        name=name,
        model=model_bytes(graph.model(), expect=GraphInterface.encoder(2000, dim)),
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
    single = load(root).manifest.policies["single"]
    assert (load(root).manifest.default_policy, single.vote) == ("single", "soft"), "every genre has its score"
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
    encoder = replace(plain, others={"fp16": plain.model}, reference=vectors, licence_file="")
    put_encoder(root, encoder, head=head_file(tmp_path / "head.npz"), genres=GENRES)
    bundle = load(root)
    bundle.verify()
    entry = bundle.manifest.stage("small").encoder
    assert isinstance(entry, WaveformEntry)
    assert entry.files == {name: f"encoders/small.{name}.onnx" for name in ("fp32", "fp16")}
    assert load_reference(root / "reference" / "small.npz").embedding.tolist() == vectors.embedding.tolist()
    assert not (root / "LICENSE.small").exists()
    put_encoder(root, plain)  # made from other weights, so the other precisions are no longer its own
    entry = load(root).manifest.stage("small").encoder
    assert isinstance(entry, WaveformEntry) and set(entry.files) == {"fp32"}
    assert "encoders/small.fp16.onnx" not in load(root).manifest.files
    assert not (root / "encoders/small.fp16.onnx").exists()


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
    read = stage_head(tmp_path, head, 4)
    put_encoder(tmp_path, small_encoder(), head=read.content, head_source={**read.source, "note": "given as bytes"})
    assert load(tmp_path).manifest.provenance["small"]["head"]["note"] == "given as bytes"


def test_a_head_can_be_refused_before_the_export(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    head = head_file(tmp_path / "head.npz")
    with pytest.raises(CheckpointError, match="takes 4 values, the encoder gives 5"):
        stage_head(root, head, 5, GENRES)
    with pytest.raises(UsageError, match="--genres"):
        stage_head(root, head, 4)
    with pytest.raises(UsageError, match="cannot read the head"):
        stage_head(root, tmp_path / "absent.npz", 4, GENRES)
    assert not root.exists()


def test_a_stage_of_features(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    head = stage_head(root, head_file(tmp_path / "head.npz", features=518), 518, GENRES).content
    stage = StageEntry(
        name="fma", encoder=Fma518Entry(rate=44_100), head=HeadEntry(file="heads/fma.onnx", inputs=["fma"])
    )
    contents = {"heads/fma.onnx": head}
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
    with pytest.raises(CheckpointError, match="takes 4 values, the encoder gives 5"):
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
    with pytest.raises(CheckpointError, match="has 2 classes, but there are 3 names"):
        put_encoder(root, small_encoder(), head=head_file(tmp_path / "two.npz", classes=2))
    with pytest.raises(UsageError, match=r"no head for the stage 'other'.*give --head"):
        put_encoder(root, small_encoder(name="other"))
    assert contents(root) == before
    (root / "bundle.yaml").write_text("format: 1\n")
    with pytest.raises(BundleError):
        put_encoder(root, small_encoder())


def failing_write(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The write of that number fails, as on a full disk."""
    seen: list[Path] = []

    def write(content: bytes, path: Path) -> None:
        seen.append(path)
        if len(seen) == number:
            raise UsageError(f"cannot write {path}: No space left on device")
        write_bytes(content, path)

    monkeypatch.setattr(bundle_files, "write_bytes", write)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_an_export_that_fails_midway_leaves_the_old_bundle_whole(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, head = tmp_path / "mine", head_file(tmp_path / "head.npz")
    put_encoder(root, small_encoder(), head=head, genres=GENRES)
    before = contents(root)
    failing_write(monkeypatch, number)
    graph = GraphBuilder("small")
    kernel = graph.weight(np.ones((2000, 4)), "kernel")
    value = graph.op("MatMul", graph.input("waveform", (BATCH, 2000)), kernel, name="product")
    graph.output(value, "embedding", (BATCH, 4))
    other = model_bytes(graph.model(), expect=GraphInterface.encoder(2000, 4))
    with pytest.raises(UsageError, match="No space left"):
        put_encoder(root, replace(small_encoder(), model=other))
    assert contents(root) == before, "nothing changed, nothing beside"
    load(root).verify()
    monkeypatch.undo()
    put_encoder(root, replace(small_encoder(), model=other))
    load(root).verify()
    assert contents(root) != before and set(contents(root)) == set(before)


def test_a_new_bundle_that_fails_midway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = head_file(tmp_path / "head.npz")
    failing_write(monkeypatch, 2)
    with pytest.raises(UsageError, match="No space left"):
        put_encoder(tmp_path / "new" / "mine", small_encoder(), head=head, genres=GENRES)
    assert [file.name for file in tmp_path.iterdir()] == ["head.npz"]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_rename_that_fails_brings_the_old_files_back(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, head = tmp_path / "mine", head_file(tmp_path / "head.npz")
    put_encoder(root, small_encoder(), head=head, genres=GENRES)
    before = contents(root)
    seen: list[Path] = []
    real = Path.replace

    def replaced(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            seen.append(self)
            if len(seen) == number:
                raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replaced)
    with pytest.raises(UsageError, match="Input/output error"):
        put_encoder(root, replace(small_encoder(), provenance={"recipe": "other"}))
    assert len(seen) == number and contents(root) == before
    load(root).verify()


def test_a_directory_in_the_place_of_a_file(tmp_path: Path) -> None:
    root, head = tmp_path / "mine", head_file(tmp_path / "head.npz")
    put_encoder(root, small_encoder(), head=head, genres=GENRES)
    before = contents(root)
    (root / "heads" / "other.onnx").mkdir()
    with pytest.raises(UsageError, match=r"other\.onnx: it is a directory"):
        put_encoder(root, small_encoder(name="other"), head=head)
    assert contents(root) == before


@pytest.fixture
def fused(tmp_path: Path) -> Path:
    """A bundle of small (4 values) and both, whose head takes small and its own 5 values."""
    root = tmp_path / "fused"
    put_encoder(root, small_encoder(), head=head_file(tmp_path / "head.npz"), genres=GENRES)
    put_encoder(root, small_encoder(5, "both"), head=head_file(tmp_path / "head.npz", features=5))
    stage = load(root).manifest.stage("both")
    head = stage_head(root, head_file(tmp_path / "nine.npz", features=9), 9)
    entry = msgspec.structs.replace(stage, head=HeadEntry(file="heads/both.onnx", inputs=["small", "both"]))
    put_stage(root, entry, {"heads/both.onnx": head.content}, provenance={"recipe": "small"})
    load(root).verify()
    return root


def test_a_fused_head_of_another_stage_has_to_fit_still(fused: Path, tmp_path: Path) -> None:
    head = head_file(tmp_path / "six.npz", features=6)
    before = contents(fused)
    message = r"stage 'both' \(heads/both\.onnx\) takes 9 values, small and both would give 11.*take that stage out"
    with pytest.raises(CheckpointError, match=message):
        put_encoder(fused, small_encoder(6), head=head)
    with pytest.raises(CheckpointError, match=message):
        check_bundle(fused, "small", dim=6, new_head=True)
    with pytest.raises(CheckpointError, match=r"takes 9 values, small and both would give 8; give a head"):
        put_encoder(fused, small_encoder(4, "both"))
    assert contents(fused) == before
    check_bundle(fused, "small", dim=4)
    check_bundle(fused, "both", dim=6, new_head=True)
    put_encoder(fused, small_encoder())
    put_encoder(fused, small_encoder(6, "both"), head=head)
    assert load(fused).manifest.stage("both").head.inputs == ["both"]


def test_a_certificate_does_not_outlive_what_it_was_counted_with(fused: Path) -> None:
    manifest = load(fused).manifest
    certificate = bundles.certificate(manifest)
    certified = msgspec.structs.replace(manifest, certificates=[certificate])
    (fused / MANIFEST).write_text(manifest_text(certified), encoding="utf-8")
    assert load(fused).manifest.certificates == [certificate]
    put_encoder(fused, small_encoder())
    assert load(fused).manifest.certificates == []


def test_a_head_of_other_classes_is_not_entered(fused: Path, tmp_path: Path) -> None:
    two = stage_head(tmp_path / "new", head_file(tmp_path / "two.npz", classes=2), 4, ["A", "B"])
    before = contents(fused)
    stage = load(fused).manifest.stage("small")
    with pytest.raises(CheckpointError, match="has 2 classes, the bundle 3 genres"):
        put_stage(fused, stage, {"heads/small.onnx": two.content}, provenance={})
    assert contents(fused) == before


def test_what_is_cheap_to_know_before_an_export(tmp_path: Path) -> None:
    root, head = tmp_path / "mine", head_file(tmp_path / "head.npz")
    check_bundle(root, "small", genres=GENRES, dim=4, new_head=True)
    assert not root.exists()
    put_encoder(root, small_encoder(), head=head, genres=GENRES)
    check_bundle(root, "small", genres=GENRES, dim=4)
    check_bundle(root, "small", dim=5, new_head=True)
    check_bundle(root, "other", dim=5, new_head=True)
    with pytest.raises(UsageError, match=r"no head for the stage 'other'.*give --head"):
        check_bundle(root, "other", dim=5)
    with pytest.raises(UsageError, match="cannot be called"):
        check_bundle(root, "Small")
    with pytest.raises(UsageError, match="leave it out"):
        check_bundle(root, "small", genres=["A", "B"])
    with pytest.raises(CheckpointError, match=r"float32\[batch, 4\].*float32\[batch, 5\]"):
        check_bundle(root, "small", dim=5)
    for path in (head, head / "below"):
        with pytest.raises(UsageError, match=r"head\.npz is no directory"):
            check_bundle(path, "small")
    (root / "bundle.yaml").write_text("format: 1\n")
    with pytest.raises(BundleError):
        check_bundle(root, "small")


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    with pytest.raises(UsageError, match="cannot be written"):
        check_bundle(tmp_path / "a" / "b", "small")


def test_a_stage_of_another_kind_leaves_no_files_behind(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    put_encoder(root, small_encoder(), head=head_file(tmp_path / "head.npz"), genres=GENRES)
    put_encoder(root, small_encoder(name="other"), head=head_file(tmp_path / "head.npz"))
    head = stage_head(root, head_file(tmp_path / "wide.npz", features=518), 518)
    entry = StageEntry("other", Fma518Entry(rate=44_100), HeadEntry(file="heads/other.onnx", inputs=["other"]))
    put_stage(root, entry, {"heads/other.onnx": head.content}, provenance={"recipe": "features"})
    load(root).verify()
    there = set(contents(root))
    assert there == {"bundle.yaml", *load(root).manifest.files}
    assert not any("other" in file for file in there - {"heads/other.onnx", "LICENSE.other"})
    # A licence text goes with the last stage of its recipe.
    put_encoder(root, replace(small_encoder(), licence_file=""))
    assert "LICENSE.small" in load(root).manifest.files
    entry = StageEntry("small", Fma518Entry(rate=44_100), HeadEntry(file="heads/small.onnx", inputs=["small"]))
    put_stage(root, entry, {"heads/small.onnx": head.content}, provenance={"recipe": "features"})
    assert "LICENSE.small" not in load(root).manifest.files and not (root / "LICENSE.small").exists()


def test_a_temperature_goes_with_its_head_and_is_not_lost_silently(tmp_path: Path) -> None:
    root, head = tmp_path / "mine", head_file(tmp_path / "head.npz")
    put_encoder(root, small_encoder(), head=head, genres=GENRES)
    text = (root / "bundle.yaml").read_text()
    assert load(root).manifest.stage("small").head.temperature == 1.0
    assert text.count("    inputs: [small]\n") == 1
    (root / "bundle.yaml").write_text(text.replace("    inputs:", "    temperature: 1.7\n    inputs:"))
    assert not put_encoder(root, small_encoder()).notes
    assert load(root).manifest.stage("small").head.temperature == 1.7
    assert "the temperature 1.7 of the stage 'small'" in put_encoder(root, small_encoder(), head=head).notes[0]
    assert load(root).manifest.stage("small").head.temperature == 1.0


def test_suffixes_may_be_in_capitals(tmp_path: Path) -> None:
    shouted = head_file(tmp_path / "head.npz").rename(tmp_path / "HEAD.NPZ")
    put_encoder(tmp_path / "mine", small_encoder(), head=shouted, genres=GENRES)
    load(tmp_path / "mine").verify()
