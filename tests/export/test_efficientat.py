"""EfficientAT: front end and network against numpy, every width, and checkpoints that do not fit."""

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
from edge_reclass_export.recipes.efficientat import read_source
from edge_reclass_export.recipes.efficientat_model import EMBEDDINGS, Embedding, LogMel, build, read_weights
from export import efficientat_maker as maker
from export import efficientat_reference as reference
from export.made import MadeEncoders
from export.test_bundle_writer import head_file
from synth import music

RATE, WINDOW = 32_000, 16_000
State = dict[str, "torch.Tensor"]


def float64(state: State) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in state.items()}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return maker.write(tmp_path_factory.mktemp("efficientat") / "mn01_as_mAP_298.pt")


@pytest.fixture(scope="module")
def encoder(made_encoders: MadeEncoders) -> ExportedEncoder:
    return made_encoders("efficientat")


def test_front_end_is_the_references() -> None:
    audio = synthesise(RATE, WINDOW, 3)
    with torch.inference_mode():
        got = LogMel()(torch.from_numpy(audio)).numpy()
    expected = np.stack([reference.log_mel(row) for row in audio])
    assert got.shape == (len(audio), 1, 128, 50)
    assert np.abs(got[:, 0] - expected).max() < 2e-3
    assert np.abs(got[:, 0] - expected).mean() < 1e-5


@pytest.mark.parametrize("width", [0.1, 0.2, 0.4, 0.5, 1.0, 2.0])
def test_every_width_by_its_shapes(width: float, tmp_path: Path) -> None:
    state = maker.state(width, classes=527)
    weights = read_weights(load_state(maker.write(tmp_path / "x.pt", state)))
    assert weights.geometry.width == pytest.approx(width)
    assert weights.geometry.dim("penultimate") == round(1280 * width)
    assert weights.geometry.dim("logits") == 527
    if width > 0.4:
        return
    audio = synthesise(RATE, WINDOW, 5)[2:5]
    expected = [reference.answer(row, float64(state)) for row in audio]
    for embedding in EMBEDDINGS:
        with torch.inference_mode():
            got = build(weights, embedding)(torch.from_numpy(audio)).numpy()
        want = np.stack([one[embedding] for one in expected])
        found = agreement(want, got)
        assert found.cosine > 0.999_999 and found.relative < 1e-3, (embedding, found)


@pytest.mark.parametrize(("width", "parameters"), [(0.4, 983_599), (1.0, 4_876_583), (4.0, 68_428_615)])
def test_the_published_sizes(width: float, parameters: int) -> None:
    state = maker.state(width, classes=527)
    counted = sum(value.numel() for name, value in state.items() if "running" not in name and "tracked" not in name)
    assert counted == pytest.approx(parameters, rel=0.01)


def test_graphs_of_both_precisions(encoder: ExportedEncoder) -> None:
    assert (encoder.name, encoder.rate, encoder.window_samples, encoder.dim) == ("efficientat", RATE, WINDOW, 128)
    audio = synthesise(RATE, WINDOW, 9)[:5]
    expected = np.stack([reference.answer(row, float64(maker.state()))["penultimate"] for row in audio])
    full = agreement(expected, run_graph(encoder.model, audio)[0])
    assert full.cosine >= 0.999_999 and full.relative < 1e-3, full
    half = agreement(expected, run_graph(encoder.others["fp16"], audio)[0])
    assert half.cosine >= 0.999_9 and half.relative < 2e-2, half
    assert agreement(expected, np.roll(expected, 1, axis=0)).cosine < 0.999, "the inputs are told apart"
    graph = onnx.load_from_string(encoder.model).graph
    assert not any(node.op_type in {"BatchNormalization", "Shape"} for node in graph.node)
    assert sum(node.op_type == "MatMul" for node in graph.node) == 3, "cosines, sines, bands"


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_real_weights(embedding: Embedding, data: Path) -> None:
    file = data / "weights" / "efficientat" / "mn04_as_mAP_432.pt"
    if not file.is_file():
        pytest.skip(f"no real weights: {file} does not exist")
    source = read_source(file)
    assert source.provenance["source_sha256"] == "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c"
    assert source.weights.geometry.width == 0.4
    audio = synthesise(RATE, RATE, 1)[[2, 4]]
    tensors = float64(dict(source.weights.tensors))
    expected = np.stack([reference.answer(row, tensors)[embedding] for row in audio])
    with torch.inference_mode():
        got = build(source.weights, embedding)(torch.from_numpy(audio)).numpy()
    found = agreement(expected, got)
    assert found.cosine > 0.999_999 and found.relative < 1e-3, found


# ---- refusals


def shortened(state: State, name: str) -> None:
    state[name] = state[name][:-8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("features.0.0.weight"), r"not a checkpoint of this architecture"),
        (lambda s: s.update({"features.0.0.weight": torch.zeros(8, 3, 3, 3)}), r"\[8, 3, 3, 3\], expected .*1, 3, 3"),
        (lambda s: [s.pop(n) for n in list(s) if n.startswith("features.16.")], "expected 17 parts .*got 16"),
        (lambda s: [s.pop(n) for n in list(s) if n.startswith("features.5.")], "5 is missing"),
        (lambda s: [s.pop(n) for n in list(s) if n.startswith("classifier.2")], "expected a classifier.*classifier.5"),
        (lambda s: s.pop("features.7.block.0.1.running_var"), "1 of .* missing: features.7.block.0.1.running_var"),
        (
            lambda s: shortened(s, "classifier.2.weight"),
            r"classifier.2.bias expected \[120\], got \[128\]; .*5.weight expected \[7, 120\], got \[7, 128\]",
        ),
        (
            lambda s: s.update({"features.9.block.1.0.weight": torch.zeros(24, 1, 5, 5)}),
            r"expected \[24, 1, 3, 3\], got \[24, 1, 5, 5\]",
        ),
        (lambda s: s.update({"mel.extra": torch.zeros(3)}), "1 tensors are not expected: mel.extra"),
        (lambda s: s["classifier.5.bias"].fill_(float("nan")), "classifier.5.bias holds NaN"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change: Callable[[State], object], message: str, tmp_path: Path) -> None:
    state = maker.state()
    change(state)
    with pytest.raises(CheckpointError, match=message):
        read_source(maker.write(tmp_path / "mn01_as.pt", state))


@pytest.mark.parametrize(
    "name",
    ["mn10_as_hop_15_mAP_463.pt", "mn10_as_mels_64_mAP_461.pt", "mn10_as_fc_s2221_mAP_466.pt", "mn10_im.pt",
     "mn10_im_pytorch.pt"],
)  # fmt: skip
def test_files_of_other_front_ends_are_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"in its name: expected a network trained on AudioSet"):
        read_source(maker.write(tmp_path / name))


@pytest.mark.parametrize("name", ["mn40_as_ext_mAP_487.pt", "mn40_as_no_im_pre_mAP_483(2).pt", "imported.pt"])
def test_other_names_are_taken(name: str, tmp_path: Path) -> None:
    assert read_source(maker.write(tmp_path / name)).weights.geometry.width == pytest.approx(0.1)


# ---- command


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["efficientat", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_command_makes_a_bundle_that_classifies(checkpoint: Path, tmp_path: Path) -> None:
    root, head = tmp_path / "bundle", head_file(tmp_path / "head.npz", features=96)
    text = run(
        *(checkpoint, "--bundle", root, "--head", head, "--genres", "A,B,C"),
        *("--window-seconds", "0.5", "--embedding", "pooled"),
    )
    assert yaml.safe_load(text)["stages"][0]["name"] == "efficientat"
    bundle = load(root)
    bundle.verify()
    said = bundle.manifest.provenance["efficientat"]
    assert (said["embedding"], said["network"]["width"]) == ("pooled", pytest.approx(0.1))
    assert said["licence"].startswith("MIT")
    with Cascade.open(bundle, threads=1) as cascade:
        assert cascade.classify_samples(music(3.0, 44_100, 2), 44_100).status in {"ok", "unsure"}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("FILE", "--embedding", "tags"), UsageError, "no embedding 'tags'; choose one of pooled"),
        (("FILE", "--window-seconds", "0"), UsageError, "expected 0.1 to 60, got 0"),
        (("FILE", "--window-seconds", "nan"), UsageError, "expected 0.1 to 60, got nan"),
        (("absent.pt",), UsageError, "cannot read the checkpoint"),
        (("FILE", "--head", "WIDE", "--genres", "A,B,C"), CheckpointError, "takes 512 values, the encoder gives 128"),
    ],
)
def test_wrong_usage_leaves_nothing(
    arguments: tuple[str, ...], error: type[Exception], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    files = {"FILE": str(checkpoint), "WIDE": str(head_file(tmp_path / "wide.npz", features=512))}
    root = tmp_path / "bundle"
    with pytest.raises(error, match=message):
        run(*(files.get(argument, argument) for argument in arguments), "--bundle", root)
    assert not root.exists()
