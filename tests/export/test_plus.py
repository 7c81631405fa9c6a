"""Starter plus: the starter, encoders of the user's weights, shipped heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("torch", reason="the export needs torch")

from msgspec.structs import replace

import synth
from edge_reclass import Cascade
from edge_reclass.bundle import PolicyEntry, StepEntry, WaveformEntry, file_entry, load, starter_path
from edge_reclass.errors import BundleError, UsageError
from edge_reclass_export.cli import app
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.heads import LinearLayer, Scaler, head_interface, head_mlp
from edge_reclass_export.onnx_writer import model_bytes
from edge_reclass_export.plus.assemble import NAME, assemble_plus, foreign
from edge_reclass_export.plus.parts import FOLDER, Combination, Extra, Parts, parts_text, read_parts, starter_digest
from export import efficientat_maker
from export.made import MadeEncoders

DIM = 128


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return efficientat_maker.write(tmp_path_factory.mktemp("weights") / "mn01_as_mAP_298.pt")


@pytest.fixture(scope="module")
def encoder(made_encoders: MadeEncoders) -> ExportedEncoder:
    return made_encoders("efficientat")


@pytest.fixture
def made(tmp_path: Path, encoder: ExportedEncoder) -> tuple[Path, Parts]:
    """A folder of parts whose head says Jazz of everything, and asks fma, efficientat and musicnn."""
    folder = tmp_path / "parts"
    folder.mkdir()
    genres = load(starter_path()).manifest.genres
    layer = LinearLayer(np.zeros((DIM, len(genres))), 9.0 * (np.array(genres) == "Jazz"))
    model = head_mlp([layer], Scaler(np.zeros(DIM), np.ones(DIM)))
    (folder / "efficientat.onnx").write_bytes(model_bytes(model, expect=head_interface([layer])))
    (folder / "README.md").write_text("# plus\n", encoding="utf-8")
    steps = [
        StepEntry("fma", {"fma": 1.0}, 1.0),
        StepEntry("efficientat", {"efficientat": 1.0}, 0.9, 1),
        StepEntry("efficientat", {"efficientat": 1.0}, 1.0),
        StepEntry("musicnn", {"efficientat": 1.0, "musicnn": 1.0}),
    ]
    extra = Extra(
        checkpoints={"mn01_as_mAP_298.pt": str(encoder.provenance["source_sha256"])},
        source="there",
        licence="MIT",
        options={"embedding": "penultimate", "window_samples": 16_000},
        dim=DIM,
        head="efficientat.onnx",
        head_sha256=file_entry(folder / "efficientat.onnx").sha256,
        loudness=-15.0,
    )
    combination = Combination(
        temperatures={"efficientat": 1.5, "fma": 2.0}, policies={"mine": PolicyEntry("soft", steps)}
    )
    parts = Parts(
        format=1,
        starter=starter_digest(starter_path()),
        extras={"efficientat": extra},
        combinations={"efficientat": combination},
    )
    (folder / "plus.yaml").write_text(parts_text(parts), encoding="utf-8")
    assert read_parts(folder) == parts
    return folder, parts


def test_it_is_the_starter_with_one_more_stage(
    made: tuple[Path, Parts], encoder: ExportedEncoder, tmp_path: Path
) -> None:
    folder, parts = made
    output = tmp_path / "out" / "plus"
    assemble_plus(output, {"efficientat": encoder}, parts, folder=folder)
    assert [path.name for path in output.parent.iterdir()] == ["plus"]
    bundle, starter = load(output), load(starter_path())
    bundle.verify()
    assert bundle.manifest.name == NAME
    assert [stage.name for stage in bundle.manifest.stages] == ["fma", "musicnn", "efficientat"]
    assert [stage.head.temperature for stage in bundle.manifest.stages] == [
        2.0,
        starter.manifest.stage("musicnn").head.temperature,
        1.5,
    ]
    assert (
        bundle.path("encoders/musicnn.fp32.onnx").read_bytes()
        == starter.path("encoders/musicnn.fp32.onnx").read_bytes()
    )
    found = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert found == {"bundle.yaml", *bundle.manifest.files}
    with Cascade.open(output) as cascade:
        verdict = cascade.classify_samples(synth.music(12), 44_100)
    assert (verdict.genre, verdict.decided_by, verdict.policy) == ("Jazz", "efficientat", "mine")
    assert verdict.stages[-1].windows is not None
    assert verdict.stages[-1].windows.heard == 1
    assemble_plus(output, {"efficientat": encoder}, parts, folder=folder)  # again in its place
    load(output).verify()


def test_a_place_that_is_taken_is_refused_and_left_alone(
    made: tuple[Path, Parts], encoder: ExportedEncoder, tmp_path: Path
) -> None:
    folder, parts = made
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "song.mp3").write_bytes(b"x")
    with pytest.raises(UsageError, match="expected no folder, an empty one or a starter plus to replace"):
        assemble_plus(tmp_path / "music", {"efficientat": encoder}, parts, folder=folder)
    assert [path.name for path in (tmp_path / "music").iterdir()] == ["song.mp3"]


def test_nothing_stays_of_one_that_fails(made: tuple[Path, Parts], encoder: ExportedEncoder, tmp_path: Path) -> None:
    folder, parts = made
    (folder / "efficientat.onnx").write_bytes(b"not a graph")
    with pytest.raises(Exception, match="efficientat"):
        assemble_plus(tmp_path / "out", {"efficientat": encoder}, parts, folder=folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts"]


def test_other_weights_are_a_warning_and_a_width_that_does_not_fit_an_error(
    made: tuple[Path, Parts], encoder: ExportedEncoder
) -> None:
    extra = made[1].extras["efficientat"]
    assert foreign(extra, "efficientat", encoder.provenance) is None
    other = foreign(replace(extra, checkpoints={"x.pt": 64 * "0"}), "efficientat", encoder.provenance)
    assert other is not None
    assert "mn01_as_mAP_298.pt: not what the head of the stage 'efficientat' was fitted on" in other
    assert "x.pt (sha256 000000000000…)" in other
    part = foreign(replace(extra, checkpoints={**extra.checkpoints, "b": 64 * "0"}), "efficientat", encoder.provenance)
    assert part is not None
    assert "only a part of what the head" in part
    extra.check("efficientat", DIM, "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt: its embedding has 512 values, the head .* takes 128"):
        extra.check("efficientat", 512, "x.pt")


def test_parts_of_another_starter_are_refused(made: tuple[Path, Parts]) -> None:
    folder, parts = made
    (folder / "plus.yaml").write_text(parts_text(replace(parts, starter=64 * "0")), encoding="utf-8")
    with pytest.raises(BundleError, match="made for a starter with heads 000000000000, the embedded one has"):
        read_parts(folder)
    (folder / "efficientat.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"efficientat\.onnx: is not the head"):
        read_parts(folder)
    (folder / "plus.yaml").write_text("format: 1\n", encoding="utf-8")
    with pytest.raises(BundleError, match=r"plus\.yaml: .*starter"):
        read_parts(folder)


def test_what_ships_belongs_to_the_embedded_starter_and_holds_no_weights_of_encoders() -> None:
    parts = read_parts()
    assert set(parts.extras) == {"efficientat", "yamnet"}
    assert set(parts.combinations) == {"efficientat", "efficientat+yamnet"}
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir() if path.is_file()}
    assert {"efficientat.onnx", "yamnet.onnx", "plus.yaml", "README.md"} <= set(sizes)
    assert sum(sizes.values()) < 300_000
    for combination in parts.combinations.values():
        assert next(iter(combination.policies)) == "progressive"
        assert {"progressive", "fast", "thorough", "fma-first"} == set(combination.policies)


def test_a_checkpoint_of_another_width_is_named(checkpoint: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["plus", "--efficientat", str(checkpoint), "--output", str(tmp_path / "plus")])
    assert isinstance(result.exception, CheckpointError)
    assert "mn04_as_mAP_432.pt" in str(result.exception)
    assert not (tmp_path / "plus").exists()


def test_the_whole_command_with_the_real_weights(data: Path, tmp_path: Path) -> None:
    weights, output = data / "weights", tmp_path / "plus"
    given = ["plus", "--efficientat", str(weights / "efficientat" / "mn04_as_mAP_432.pt"), "--output", str(output)]
    result = CliRunner().invoke(app, given)
    assert result.exception is None
    assert "warning" not in result.output
    entry = (made := load(output).manifest).stage("efficientat").encoder
    assert isinstance(entry, WaveformEntry) and entry.dim == 512
    assert made.provenance["efficientat"]["parity"]["fp16"]["batch_1"]["cosine"] > 0.9999
    assert made.files[entry.files["fp16"]].bytes < 0.8 * made.files[entry.files["fp32"]].bytes
    with Cascade.open(output) as cascade:
        verdicts = [cascade.classify(path) for path in sorted((data / "audio" / "fma").glob("*.mp3"))]
    assert len(verdicts) == 10
    assert all(verdict.status in ("ok", "unsure") for verdict in verdicts)
