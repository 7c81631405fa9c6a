"""The torch taggers musicnn, FCN and CRNN: front end and networks against numpy, and checkpoints that do not fit."""

# ruff: noqa: E402 - torch is optional, and what follows needs it
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from typer.testing import CliRunner

from edge_reclass import Cascade
from edge_reclass.bundle import agreement, load, synthesise
from edge_reclass.errors import UsageError
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.parity import run_graph

torch = pytest.importorskip("torch", reason="the export needs torch")

from edge_reclass_export.checkpoints import load_state
from edge_reclass_export.cli import app
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.precision import half_precision
from edge_reclass_export.recipes.musicnn_torch import read_source, tagger_encoder
from edge_reclass_export.recipes.musicnn_torch_model import (
    EMBEDDINGS,
    FLOAT32_REGIONS,
    LogMel,
    build,
    mel_filters,
    read_weights,
)
from export import musicnn_torch_maker as maker
from export import musicnn_torch_reference as reference
from export.made import TAGGER_WINDOWS, MadeEncoders
from export.test_bundle_writer import head_file
from synth import music

RATE = 16_000
WINDOWS = TAGGER_WINDOWS
DIMS = {"musicnn": 12, "fcn": 6, "crnn": 8}


def float64(state: maker.State) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in state.items()}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("taggers")
    return {kind: maker.write(folder / f"{kind}.pth", maker.state(kind)) for kind in maker.KINDS}


@pytest.fixture(scope="module")
def encoder(made_encoders: MadeEncoders) -> ExportedEncoder:
    return made_encoders("tagger musicnn")


def test_front_end_is_the_references(checkpoints: dict[str, Path]) -> None:
    audio = synthesise(RATE, 16_000, 3)
    with torch.inference_mode():
        got = LogMel(read_source(checkpoints["fcn"]).weights)(torch.from_numpy(audio)).numpy()
    expected = np.stack([reference.image(row, float64(maker.state("fcn"))) for row in audio])
    assert got.shape == (len(audio), 1, 96, 63)
    assert np.abs(got[:, 0] - expected)[expected > -1.0].max() < 1e-2, (
        "far below the loudest band float32 has no digits"
    )
    assert np.abs(got[:, 0] - expected).mean() < 1e-3


@pytest.mark.parametrize("kind", maker.KINDS)
def test_every_network_by_its_tensors(kind: str, checkpoints: dict[str, Path]) -> None:
    weights = read_source(checkpoints[kind]).weights
    assert (weights.variant, weights.dim("penultimate"), weights.dim("logits")) == (kind, DIMS[kind], 7)
    audio = synthesise(RATE, WINDOWS[kind], 5)[[0, 2, 4]]
    expected = [reference.answer(row, float64(maker.state(kind)), kind) for row in audio]
    for embedding in EMBEDDINGS:
        with torch.inference_mode():
            got = build(weights, embedding)(torch.from_numpy(audio)).numpy()
        want = np.stack([one[embedding] for one in expected])
        found = agreement(want, got)
        assert found.cosine > 0.999_999 and found.relative < 1e-3, (embedding, found)
        assert agreement(want, np.roll(want, 1, axis=0)).cosine < 0.999, "the inputs are told apart"


def test_graphs_of_both_precisions(encoder: ExportedEncoder) -> None:
    assert (encoder.name, encoder.rate, encoder.dim) == ("musicnn-torch", RATE, 12)
    audio = synthesise(RATE, WINDOWS["musicnn"], 9)[:5]
    state = float64(maker.state("musicnn"))
    expected = np.stack([reference.answer(row, state, "musicnn")["penultimate"] for row in audio])
    full = agreement(expected, run_graph(encoder.model, audio)[0])
    assert full.cosine >= 0.999_999 and full.relative < 1e-3, full
    half = agreement(expected, run_graph(encoder.others["fp16"], audio)[0])
    assert half.cosine >= 0.999_9 and half.relative < 2e-2, half
    graph = onnx.load_from_string(encoder.model).graph
    assert not any(node.op_type in {"BatchNormalization", "Shape"} for node in graph.node)


def test_the_grus_steps_are_written_out(made_encoders: MadeEncoders) -> None:
    made = made_encoders("tagger crnn")
    for model in (made.model, made.others["fp16"]):
        kinds = {node.op_type for node in onnx.load_from_string(model).graph.node}
        assert not kinds & {"Loop", "Scan", "GRU", "If"} and "Tanh" in kinds


@pytest.mark.parametrize("kind", maker.KINDS)
def test_regions_that_may_stay_float32_exist(kind: str, checkpoints: dict[str, Path]) -> None:
    weights = read_source(checkpoints[kind]).weights
    audio = torch.from_numpy(synthesise(RATE, WINDOWS[kind], 2)[2:4])
    with torch.inference_mode():
        expected = build(weights)(audio)
        for regions in FLOAT32_REGIONS[weights.variant]:
            got = half_precision(build(weights), regions)(audio)
            assert agreement(expected.numpy(), got.numpy()).cosine > 0.999, regions


@pytest.mark.parametrize("change", ["no bands", "empty bands", "prefix", "float16"])
def test_files_as_people_save_them(change: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    state = maker.state("musicnn")
    if change == "no bands":
        state = {name: value for name, value in state.items() if not name.startswith("spec.")}
    elif change == "empty bands":
        state["spec.mel_scale.fb"] = torch.zeros(0)
    elif change == "prefix":
        state = {f"module.{name}": value for name, value in state.items()}
    else:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    found = read_source(maker.write(tmp_path / "x.pth", state)).weights
    plain = read_source(checkpoints["musicnn"]).weights
    tolerance = 1e-3 if change == "float16" else 1e-6
    assert np.allclose(found.filters, plain.filters, atol=tolerance)
    assert all(torch.allclose(found.tensors[n], plain.tensors[n], rtol=tolerance) for n in plain.tensors)


# ---- real weights


REAL = ("jamendo_musicnn", "jamendo_fcn", "jamendo_crnn", "msd_fcn", "msd_crnn")


@pytest.mark.parametrize("name", REAL)
def test_real_weights(name: str, data: Path) -> None:
    file = data / "weights" / "sota-music-tagging" / f"{name}.pth"
    if not file.is_file():
        pytest.skip(f"no real weights: {file} does not exist")
    weights = read_source(file).weights
    kind = name.partition("_")[2]
    assert (weights.variant, weights.dim("penultimate")) == (kind, {"musicnn": 200, "fcn": 64, "crnn": 32}[kind])
    assert weights.dim("logits") == 50
    assert np.abs(weights.filters - mel_filters()).max() < 2e-5, "torchaudio's bands"
    audio = synthesise(RATE, WINDOWS[kind], 1)[[2, 4]]
    tensors = float64(dict(weights.tensors))
    expected = [reference.answer(row, tensors, kind) for row in audio]
    for embedding in EMBEDDINGS:
        with torch.inference_mode():
            got = build(weights, embedding)(torch.from_numpy(audio)).numpy()
        found = agreement(np.stack([one[embedding] for one in expected]), got)
        assert found.cosine > 0.999_999 and found.relative < 1e-3, (embedding, found)


@pytest.mark.parametrize("name", ["jamendo_musicnn", "msd_fcn"])
def test_real_weights_in_both_precisions(name: str, data: Path) -> None:
    file = data / "weights" / "sota-music-tagging" / f"{name}.pth"
    if not file.is_file():
        pytest.skip(f"no real weights: {file} does not exist")
    made = tagger_encoder(read_source(file), window_samples=WINDOWS[name.partition("_")[2]])
    figures = made.provenance["parity"]
    assert isinstance(figures, dict)
    assert figures["fp16"]["batch_1"]["cosine"] > 0.9999
    assert len(made.others["fp16"]) < 0.9 * len(made.model)


# ---- refusals


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("fcn", lambda s: s.pop("spec_bn.weight"), "not a checkpoint of this architecture"),
        ("fcn", lambda s: s.pop("layer5.conv.weight"), r"expected the tensors of musicnn, FCN or CRNN \(one of"),
        ("fcn", lambda s: s.update(maker.state("crnn")), r"expected the tensors of musicnn, FCN or CRNN \(one of"),
        ("crnn", lambda s: s.pop("layer5.bias_hh_l1"), "1 of .* missing: layer5.bias_hh_l1"),
        ("crnn", lambda s: s.pop("layer2.conv.weight"), "no tensor 'layer2.conv.weight'"),
        ("crnn", lambda s: s.update({"layer5.weight_ih_l2": torch.zeros(24, 8)}), "not expected: layer5.weight_ih_l2"),
        (
            "crnn",
            lambda s: s.update({"layer5.weight_hh_l0": torch.zeros(24, 9)}),
            r"layer5.weight_hh_l0 expected \[24, 8\], got \[24, 9\]",
        ),
        (
            "fcn",
            lambda s: s.update({"dense.weight": torch.zeros(7, 64)}),
            r"dense.weight expected \[7, 6\], got \[7, 64\]",
        ),
        ("fcn", lambda s: s["layer3.bn.running_var"].fill_(-1.0), "layer3.bn.running_var has values below zero"),
        ("fcn", lambda s: s["layer3.conv.bias"].fill_(float("inf")), "layer3.conv.bias holds NaN or infinity"),
        (
            "fcn",
            lambda s: s.update({"spec.mel_scale.fb": torch.zeros(257, 128)}),
            r"spec.mel_scale.fb expected \[257, 96\], got \[257, 128\]",
        ),
        ("fcn", lambda s: s["spec.mel_scale.fb"].zero_(), "spec.mel_scale.fb holds zeros only"),
        ("fcn", lambda s: s["spec.spectrogram.window"].fill_(1.0), "expected a periodic Hann window of 512"),
        (
            "musicnn",
            lambda s: s.update({"layers.0.conv.weight": torch.zeros(6, 1, 97, 7)}),
            r"expected a kernel of at most 96 bands .*got \[97, 7\]",
        ),
        (
            "musicnn",
            lambda s: s.update({"layer2.conv.weight": torch.zeros(9, 9, 6)}),
            "layer2.conv.weight: expected an odd number of frames, got 6",
        ),
        ("musicnn", lambda s: s.update({"layers.3.conv.weight": torch.zeros(3, 1)}), "expected 3 dimensions"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    kind: str, change: Callable[[maker.State], object], message: str, tmp_path: Path
) -> None:
    state = maker.state(kind)
    change(state)
    with pytest.raises(CheckpointError, match=message):
        read_weights(load_state(maker.write(tmp_path / "x.pth", state)))


def test_truncated_files_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    content = checkpoints["crnn"].read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 30):
        (tmp_path / "x.pth").write_bytes(content[:cut])
        with pytest.raises(CheckpointError, match=r"x\.pth"):
            read_source(tmp_path / "x.pth")


# ---- command


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["musicnn-torch", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_command_makes_a_bundle_that_classifies(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    root, head = tmp_path / "bundle", head_file(tmp_path / "head.npz", features=12)
    text = run(checkpoints["musicnn"], "--bundle", root, "--head", head, "--genres", "A,B,C", "--window-seconds", "1")
    assert yaml.safe_load(text)["stages"][0]["name"] == "musicnn-torch"
    bundle = load(root)
    bundle.verify()
    said = bundle.manifest.provenance["musicnn-torch"]
    assert (said["embedding"], said["network"]["variant"]) == ("penultimate", "musicnn")
    assert said["licence"].startswith("MIT")
    with Cascade.open(bundle, threads=1) as cascade:
        assert cascade.classify_samples(music(3.0, 44_100, 2), 44_100).status in {"ok", "unsure"}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("musicnn", "--embedding", "tags"), UsageError, "no embedding 'tags'; choose one of penultimate"),
        (("musicnn", "--window-seconds", "0"), UsageError, r"expected 0.112 to 63.9999, got 0"),
        (("fcn", "--window-seconds", "10"), UsageError, r"expected 20.464 to 40.9439, got 10"),
        (("crnn", "--window-seconds", "1"), UsageError, r"expected 1.52 to 63.9999, got 1"),
        (("absent.pth",), UsageError, "cannot read the checkpoint"),
        (("fcn", "--head", "WIDE", "--genres", "A,B,C"), CheckpointError, "takes 512 values, the encoder gives 6"),
    ],
)
def test_wrong_usage_leaves_nothing(
    arguments: tuple[str, ...], error: type[Exception], message: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    files = {kind: str(file) for kind, file in checkpoints.items()}
    files["WIDE"] = str(head_file(tmp_path / "wide.npz", features=512))
    root = tmp_path / "bundle"
    with pytest.raises(error, match=message):
        run(*(files.get(argument, argument) for argument in arguments), "--bundle", root)
    assert not root.exists()
