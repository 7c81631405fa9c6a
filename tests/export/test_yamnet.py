"""YAMNet: front end and network against numpy and LiteRT, from Keras and TensorFlow Lite files, and from bad ones."""

# ruff: noqa: E402 - torch and h5py are optional, and what follows needs them
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
from edge_reclass.errors import MissingExtraError, UsageError
from edge_reclass_export import recipe as recipe_module
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.parity import run_graph

torch = pytest.importorskip("torch", reason="the export needs torch")
h5py = pytest.importorskip("h5py", reason="Keras files need h5py")
pytest.importorskip("flatbuffers", reason="the tests write TensorFlow Lite files with flatbuffers")

from edge_reclass_export.cli import app
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.recipes.yamnet import read_source, yamnet_encoder
from edge_reclass_export.recipes.yamnet_model import EMBEDDINGS, LogMel, YamnetWeights, build, window_samples
from edge_reclass_export.tflite_file import read_layers
from export import yamnet_maker as maker
from export import yamnet_reference as reference
from export.made import MadeEncoders
from export.test_bundle_writer import head_file
from synth import music

RATE = 16_000
WINDOW = window_samples(2)


def same(first: YamnetWeights, second: YamnetWeights, tolerance: float = 1e-6) -> bool:
    pairs = zip(first.convolutions.items(), second.convolutions.items(), strict=True)
    near = [
        a == b and all(np.abs(x - y).max() < tolerance for x, y in zip(one, two, strict=True))
        for (a, one), (b, two) in pairs
    ]
    near.append(
        np.abs(first.kernel - second.kernel).max() < tolerance and np.abs(first.bias - second.bias).max() < 1e-6
    )
    return all(near)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return maker.write_h5(tmp_path_factory.mktemp("yamnet") / "yamnet.h5", maker.arrays())


@pytest.fixture(scope="module")
def encoder(made_encoders: MadeEncoders) -> ExportedEncoder:
    return made_encoders("yamnet")


@pytest.fixture(scope="module")
def real(data: Path) -> list[Path]:
    """Google's weights, twice quantised."""
    files = [data / "weights" / "yamnet" / f"yamnet_{name}.tflite" for name in "ab"]
    if missing := [file for file in files if not file.is_file()]:
        pytest.skip(f"no real weights: {missing[0]} does not exist")
    return files


def test_front_end_is_the_references() -> None:
    audio = synthesise(RATE, WINDOW, 3)
    with torch.inference_mode():
        got = LogMel()(torch.from_numpy(audio)).numpy()
    expected = np.stack([reference.log_mel(row) for row in audio])
    assert got.shape == (2 * len(audio), 1, 96, 64)
    assert np.abs(got.reshape(expected.shape) - expected).max() < 2e-3
    assert np.abs(got.reshape(expected.shape) - expected).mean() < 2e-5


@pytest.mark.parametrize(("share", "patches"), [(16, 1), (8, 3)])
def test_every_width_by_its_shapes(share: int, patches: int, tmp_path: Path) -> None:
    tensors = maker.arrays(share, seed=2)
    weights = read_source([maker.write_h5(tmp_path / "x.h5", tensors)]).weights
    assert [weights.dim(embedding) for embedding in EMBEDDINGS] == [1024 // share, 5]
    audio = synthesise(RATE, window_samples(patches), 5)[2:5]
    for embedding in EMBEDDINGS:
        with torch.inference_mode():
            got = build(weights, embedding, patches)(torch.from_numpy(audio)).numpy()
        found = agreement(np.stack([reference.answer(row, tensors)[embedding] for row in audio]), got)
        assert found.cosine > 0.999_999 and found.relative < 1e-3, (embedding, found)


def test_the_published_size() -> None:
    counted = sum(values.size for values in maker.arrays(1, classes=521).values())
    assert counted == 3_751_369, "3.7 M weights (the release's README), with the batch norms' means and variances"


def test_a_mean_of_windows_is_that_of_their_patches(checkpoint: Path) -> None:
    weights = read_source([checkpoint]).weights
    audio = torch.from_numpy(synthesise(RATE, window_samples(4), 1)[2:4])
    part = window_samples(1)
    with torch.inference_mode():
        whole = build(weights, patches=4)(audio)
        one = build(weights, patches=1)
        parts = [one(audio[:, first : first + part]) for first in range(0, 4 * (part - 240), part - 240)]
    assert torch.allclose(whole, torch.stack(parts).mean(0), atol=1e-5)


def test_graphs_of_both_precisions(encoder: ExportedEncoder) -> None:
    assert (encoder.name, encoder.rate, encoder.window_samples, encoder.dim) == ("yamnet", RATE, WINDOW, 64)
    audio = synthesise(RATE, WINDOW, 9)[:5]
    expected = np.stack([reference.answer(row, maker.arrays())["pooled"] for row in audio])
    full = agreement(expected, run_graph(encoder.model, audio)[0])
    assert full.cosine >= 0.999_999 and full.relative < 1e-3, full
    half = agreement(expected, run_graph(encoder.others["fp16"], audio)[0])
    assert half.cosine >= 0.999_9 and half.relative < 2e-2, half
    assert agreement(expected, np.roll(expected, 1, axis=0)).cosine < 0.999, "the inputs are told apart"
    graph = onnx.load_from_string(encoder.model).graph
    assert not any(node.op_type in {"BatchNormalization", "Shape"} for node in graph.node)
    assert sum(node.op_type == "Conv" for node in graph.node) == 27


# ---- files of other kinds


@pytest.mark.parametrize(
    "name",
    [
        lambda name: name,
        lambda name: name.replace("logits", "dense"),
        lambda name: name.replace("logits/logits", "dense_3/yamnet/dense_3"),
        lambda name: "model_weights/" + name,
        lambda name: name.removesuffix(":0"),
    ],
)
def test_keras_names_of_several_versions(name: Callable[[str], str], checkpoint: Path, tmp_path: Path) -> None:
    tensors = {name(key): values for key, values in maker.arrays().items()}
    tensors["optimizer_weights/Adam/layer1/conv/kernel/m:0"] = np.ones(3)
    found = read_source([maker.write_h5(tmp_path / "other.h5", tensors)])
    assert same(found.weights, read_source([checkpoint]).weights)


def test_a_scale_of_the_batch_norms_is_taken_where_there_is_one(checkpoint: Path, tmp_path: Path) -> None:
    tensors = maker.arrays()
    norm = "layer3/pointwise_conv/bn"
    tensors[f"{norm}/{norm}/gamma:0"] = np.full(8, 2.0)
    got = read_source([maker.write_h5(tmp_path / "x.h5", tensors)]).weights.convolutions["layer3/pointwise_conv"]
    plain = read_source([checkpoint]).weights.convolutions["layer3/pointwise_conv"]
    assert np.allclose(got.kernel, 2 * plain.kernel)


@pytest.mark.parametrize(
    ("form", "tolerance"), [("float32", 1e-6), ("float16", 1e-2), ("tensor", 0.1), ("channel", 0.1)]
)
def test_tflite_files_hold_the_same(form: str, tolerance: float, checkpoint: Path, tmp_path: Path) -> None:
    file = maker.write_tflite(tmp_path / "yamnet.tflite", maker.folded(maker.arrays()), form)
    assert same(read_source([file]).weights, read_source([checkpoint]).weights, tolerance)


def test_two_quantisations_are_nearer_than_either(checkpoint: Path, tmp_path: Path) -> None:
    layers = maker.folded(maker.arrays())
    files = [maker.write_tflite(tmp_path / f"{form}.tflite", layers, form) for form in ("tensor", "channel")]
    truth = read_source([checkpoint]).weights

    def error(chosen: list[Path]) -> float:
        found = read_source(chosen).weights
        pairs = [(truth.convolutions[name], found.convolutions[name]) for name in truth.convolutions]
        return float(np.sqrt(sum(np.sum((one.kernel - two.kernel) ** 2) for one, two in pairs)))

    both = error(files)
    assert both < 0.95 * min(error(files[:1]), error(files[1:]))
    assert error(files[::-1]) == pytest.approx(both), "in any order"


def test_a_float_file_beside_a_quantised_one_is_exact(checkpoint: Path, tmp_path: Path) -> None:
    layers = maker.folded(maker.arrays())
    files = [maker.write_tflite(tmp_path / f"{form}.tflite", layers, form) for form in ("channel", "float32")]
    assert same(read_source(files).weights, read_source([checkpoint]).weights, 1e-5)


# ---- Google's weights


def real_tensors(weights: YamnetWeights) -> maker.Arrays:
    """By their names in Keras; the batch norms, which the files have no more, change nothing."""
    made = {"logits/logits/kernel:0": weights.kernel.T, "logits/logits/bias:0": weights.bias}
    for name, (kernel, bias) in weights.convolutions.items():
        part, order = ("depthwise_kernel", (2, 3, 0, 1)) if "depthwise" in name else ("kernel", (2, 3, 1, 0))
        made[f"{name}/{name}/{part}:0"] = kernel.transpose(order)
        norm = {"beta": bias, "moving_mean": 0 * bias, "moving_variance": 0 * bias + 1 - 1e-4}
        made |= {f"{name}/bn/{name}/bn/{key}:0": values for key, values in norm.items()}
    return made


def test_real_weights_of_two_files(real: list[Path]) -> None:
    source = read_source(real)
    assert str(source.provenance["source_sha256"]).startswith("469be6a3421cbc52cf97e9f2f966cba984198e8e7af9854d68b3e")
    assert [source.weights.dim(embedding) for embedding in EMBEDDINGS] == [1024, 521]
    assert source.weights.parameters == 3_729_481
    (mel,) = [
        layer.kernel for layer in read_layers(real[1], real[1].read_bytes()) if layer.kernel.values.shape[1:] == (257,)
    ]
    assert (np.abs(mel.values - reference.bands()) <= 1.01 * mel.half_step).all(), "the bands are those in the file"
    audio = synthesise(RATE, window_samples(1), 1)[[2, 4]]
    tensors = real_tensors(source.weights)
    for embedding in EMBEDDINGS:
        expected = np.stack([reference.answer(row, tensors)[embedding] for row in audio])
        with torch.inference_mode():
            got = build(source.weights, embedding, 1)(torch.from_numpy(audio)).numpy()
        found = agreement(expected, got)
        assert found.cosine > 0.999_999 and found.relative < 1e-3, (embedding, found)


def test_real_weights_in_both_precisions(real: list[Path]) -> None:
    made = yamnet_encoder(read_source(real), patches=1)
    figures = made.provenance["parity"]
    assert isinstance(figures, dict)
    assert figures["fp16"]["batch_1"]["cosine"] > 0.9999
    assert len(made.others["fp16"]) < 0.6 * len(made.model), figures["fp16"]


def test_litert_gives_the_same(real: list[Path]) -> None:
    """LiteRT runs the second file, once its int8 weights (whose activations it would quantise too) are the floats."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT (ai-edge-litert) is not installed")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    weights = read_source(real).weights
    kernels = [
        kernel[:, 0].transpose(1, 2, 0)[None] if "depthwise" in name else kernel.transpose(0, 2, 3, 1)
        for name, (kernel, _) in weights.convolutions.items()
    ]
    model = schema.ModelT.InitFromPackedBuf(real[1].read_bytes(), 0)
    graph = model.subgraphs[0]
    values = iter([reference.bands(), *kernels, weights.kernel])
    pooled = None
    for operator in graph.operators:
        entry = model.operatorCodes[operator.opcodeIndex]
        code = max(entry.builtinCode, entry.deprecatedBuiltinCode)
        if code in (maker.CONV, maker.DEPTHWISE, maker.DENSE):
            kernel, tensor = next(values).astype(np.float32), graph.tensors[operator.inputs[1]]
            assert tuple(tensor.shape) == kernel.shape
            tensor.type, tensor.quantization = maker.FLOAT32, None
            model.buffers[tensor.buffer].data = np.frombuffer(kernel.tobytes(), np.uint8)
            pooled = operator.inputs[0]  # of the last: what the dense layer takes
    assert next(values, None) is None
    import flatbuffers

    graph.outputs = [pooled]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    runner = interpreter.Interpreter(model_content=bytes(builder.Output()))
    runner.allocate_tensors()
    audio = synthesise(RATE, window_samples(1), 11)
    expected = []
    for row in audio:
        place = runner.get_input_details()[0]
        runner.set_tensor(place["index"], row.reshape(place["shape"]))
        runner.invoke()
        expected.append(runner.get_tensor(runner.get_output_details()[0]["index"]).ravel())
    with torch.inference_mode():
        got = build(weights, "pooled", 1)(torch.from_numpy(audio)).numpy()
    found = agreement(np.stack(expected), got)
    assert found.cosine > 0.999_999 and found.relative < 1e-3, found


# ---- refusals


def without(tensors: maker.Arrays, part: str) -> None:
    for name in [name for name in tensors if part in name]:
        del tensors[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.clear(), r"missing: layer1/conv/kernel, .*, and 10\d more; not expected: nothing"),
        (
            lambda t: without(t, "layer5/depthwise_conv/bn/moving_mean"),
            r"missing: layer5/depthwise_conv/bn/moving_mean;",
        ),
        (lambda t: without(t, "logits"), r"missing: dense/kernel, dense/bias;"),
        (
            lambda t: t.update({"layer15/conv/layer15/conv/kernel:0": np.ones((3, 3, 1, 2))}),
            "not expected: layer15/conv",
        ),
        (lambda t: t.update({"layer1/conv/other/extra:0": np.ones(3)}), "not expected: layer1/conv/other/extra:0"),
        (lambda t: t.update({"dense/dense/bias:0": np.ones(3)}), "two tensors are dense/bias, one of them is called"),
        (
            lambda t: t.update({"layer2/pointwise_conv/layer2/pointwise_conv/kernel:0": np.ones((2, 2, 2, 4))}),
            r"layer2/pointwise_conv/kernel: expected \[4, 2, 1, 1\].*, got \[4, 2, 2, 2\]",
        ),
        (
            lambda t: t.update({"layer4/pointwise_conv/layer4/pointwise_conv/kernel:0": np.ones((4, 4))}),
            r"layer4/pointwise_conv/kernel: expected 4 dimensions, got the shape \[4, 4\]",
        ),
        (
            lambda t: t.update({"layer1/conv/bn/layer1/conv/bn/beta:0": np.ones(3)}),
            r"layer1/conv/bn/beta: expected \[2\], got \[3\]",
        ),
        (
            lambda t: t["layer3/pointwise_conv/bn/layer3/pointwise_conv/bn/moving_variance:0"].fill(-1),
            "layer3/pointwise_conv/bn/moving_variance has values below zero",
        ),
        (lambda t: t["logits/logits/bias:0"].fill(np.nan), "logits/bias:0 holds NaN"),
        (
            lambda t: t.update({"logits/logits/kernel:0": np.ones((63, 5))}),
            r"dense/kernel: expected \[5, 64\].*, got \[5, 63\]",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    change: Callable[[maker.Arrays], object], message: str, tmp_path: Path
) -> None:
    tensors = maker.arrays()
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        read_source([maker.write_h5(tmp_path / "yamnet.h5", tensors)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layers: layers[:-3], "expected YAMNet's 27 convolutions.* got 25 "),
        (lambda layers: layers[:-1], "expected a dense layer .* at the end, got a convolution"),
        (lambda layers: [layers[0], (layers[1][0], None), *layers[2:]], "layer2/depthwise_conv: .*without bias"),
        (
            lambda layers: [*layers[:3], (layers[3][0][..., :1], layers[3][1][:1]), *layers[4:]],
            r"layer3/depthwise_conv/kernel: expected \[4, 1, 3, 3\].*got \[1, 1, 3, 3\]",
        ),
    ],
)
def test_other_networks_in_tflite_files(
    change: Callable[[list[tuple[np.ndarray, np.ndarray]]], list], message: str, tmp_path: Path
) -> None:
    layers = change(maker.folded(maker.arrays()))
    with pytest.raises(CheckpointError, match=message):
        read_source([maker.write_tflite(tmp_path / "x.tflite", layers)])


def test_two_files_of_different_weights_are_refused(tmp_path: Path) -> None:
    layers = maker.folded(maker.arrays())
    first = maker.write_tflite(tmp_path / "a.tflite", layers, "tensor")
    other = [(kernel, bias) for (kernel, _), (_, bias) in zip(maker.folded(maker.arrays(seed=1)), layers, strict=True)]
    with pytest.raises(CheckpointError, match=r"% of the weights of layer1/conv cannot be the same"):
        read_source([first, maker.write_tflite(tmp_path / "b.tflite", other)])
    wider = maker.folded(maker.arrays(8))
    with pytest.raises(CheckpointError, match=r"layer1/conv is \[4, 3, 3, 1\], in .* it is \[2, 3, 3, 1\]"):
        read_source([first, maker.write_tflite(tmp_path / "c.tflite", wider)])
    shifted = [(kernel, bias + 1) for kernel, bias in layers]
    with pytest.raises(CheckpointError, match="the biases of layer1/conv are not those in"):
        read_source([first, maker.write_tflite(tmp_path / "d.tflite", shifted)])


def test_files_that_do_not_go_together(checkpoint: Path, tmp_path: Path) -> None:
    file = maker.write_tflite(tmp_path / "a.tflite", maker.folded(maker.arrays()))
    (tmp_path / "copy.tflite").write_bytes(file.read_bytes())
    for chosen in ([checkpoint, file], [checkpoint, checkpoint], [file, tmp_path / "copy.tflite"], [file] * 3):
        with pytest.raises(UsageError, match=r"yamnet.h5 alone, or one or two different .tflite"):
            read_source(chosen)


@pytest.mark.parametrize("kind", ["h5", "tflite"])
def test_damaged_files_are_refused_or_read(kind: str, checkpoint: Path, tmp_path: Path) -> None:
    """Cut off at any place it is no checkpoint; with bytes changed it is refused, or only weights are others."""
    whole = checkpoint
    if kind == "tflite":
        whole = maker.write_tflite(tmp_path / "whole.tflite", maker.folded(maker.arrays()))
    content, file = whole.read_bytes(), tmp_path / f"yamnet.{kind}"
    for cut in np.linspace(1, len(content) - 200, 40).astype(int):
        file.write_bytes(content[:cut])
        with pytest.raises(CheckpointError, match=str(file)):
            read_source([file])
    random = np.random.default_rng(4)
    for _ in range(150 if kind == "tflite" else 30):
        damaged = bytearray(content)
        for place in random.integers(8, len(content), 12):
            damaged[place] = random.integers(256)
        file.write_bytes(damaged)
        try:
            read_source([file])
        except CheckpointError as error:
            assert str(file) in str(error)


@pytest.mark.parametrize("raw", [b"x" * 100, b"PK\x03\x04" + bytes(50), b"abc"])
def test_files_of_another_kind(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "yamnet.h5").write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"expected yamnet.h5 \(HDF5\) or a .tflite"):
        read_source([tmp_path / "yamnet.h5"])
    (tmp_path / "yamnet.h5").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is empty"):
        read_source([tmp_path / "yamnet.h5"])


@pytest.mark.parametrize("kind", ["soft", "external", "raw", "virtual", "text"])
def test_what_lies_outside_of_a_keras_file_is_not_read(kind: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(36))
    file = maker.write_h5(tmp_path / "yamnet.h5", maker.arrays())
    name = "layer1/conv/layer1/conv/kernel:0"
    with h5py.File(file, "a") as open_file:
        del open_file[name]
        if kind == "soft":
            open_file[name] = h5py.SoftLink("/logits/logits/bias:0")
        elif kind == "external":
            open_file[name] = h5py.ExternalLink("other.h5", "/x")
        elif kind == "raw":
            open_file.create_dataset(name, (3, 3, 1, 1), "f4", external=[(str(secret), 0, 36)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((3, 3, 1, 1), "f4")
            layout[:] = h5py.VirtualSource(str(secret), "x", (3, 3, 1, 1))
            open_file.create_virtual_dataset(name, layout)
        else:
            open_file[name] = "text"
    with pytest.raises(
        CheckpointError, match=r"kernel:0( is a link to elsewhere| lies in another file|: expected at most)"
    ):
        read_source([file])


def test_without_h5py_the_message_says_what_to_install(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_module, "find_spec", lambda name: None if name == "h5py" else name)
    with pytest.raises(MissingExtraError, match="h5py"):
        read_source([checkpoint])


# ---- command


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["yamnet", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_command_makes_a_bundle_that_classifies(tmp_path: Path) -> None:
    layers = maker.folded(maker.arrays())
    files = [maker.write_tflite(tmp_path / f"{form}.tflite", layers, form) for form in ("tensor", "channel")]
    root, head = tmp_path / "bundle", head_file(tmp_path / "head.npz", features=64)
    text = run(*files, "--bundle", root, "--head", head, "--genres", "A,B,C", "--window-seconds", "1.9")
    assert yaml.safe_load(text)["stages"][0]["name"] == "yamnet"
    bundle = load(root)
    bundle.verify()
    said = bundle.manifest.provenance["yamnet"]
    assert (said["embedding"], said["network"]["patches"]) == ("pooled", 2)
    assert said["licence"].startswith("Apache-2.0") and said["source"] == "tensor.tflite, channel.tflite"
    with Cascade.open(bundle, threads=1) as cascade:
        assert cascade.classify_samples(music(3.0, 44_100, 2), 44_100).status in {"ok", "unsure"}


def test_export_all_takes_one_file_or_two(checkpoint: Path, tmp_path: Path) -> None:
    head_file(tmp_path / "head.npz", features=64)
    config = tmp_path / "all.yaml"
    stage = f"{{recipe: yamnet, checkpoint: {checkpoint}, head: head.npz, window-seconds: 0.96}}"
    config.write_text(f"bundle: mine\ngenres: [A, B, C]\nstages:\n  - {stage}\n")
    result = CliRunner().invoke(app, ["all", "--config", str(config)])
    assert result.exception is None, result.exception
    assert load(tmp_path / "mine").manifest.stages[0].name == "yamnet"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("FILE", "--embedding", "tags"), UsageError, "no embedding 'tags'; choose one of pooled, logits"),
        (("FILE", "--window-seconds", "0.5"), UsageError, "expected 0.96 to 60, got 0.5"),
        (("FILE", "--window-seconds", "inf"), UsageError, "expected 0.96 to 60, got inf"),
        (("absent.h5",), UsageError, "cannot read the checkpoint"),
        (("FOLDER",), UsageError, "cannot read the checkpoint"),
        (("FILE", "--head", "WIDE", "--genres", "A,B,C"), CheckpointError, "takes 512 values, the encoder gives 64"),
    ],
)
def test_wrong_usage_leaves_nothing(
    arguments: tuple[str, ...], error: type[Exception], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    wide = head_file(tmp_path / "wide.npz", features=512)
    files = {"FILE": str(checkpoint), "WIDE": str(wide), "FOLDER": str(tmp_path)}
    root = tmp_path / "bundle"
    with pytest.raises(error, match=message):
        run(*(files.get(argument, argument) for argument in arguments), "--bundle", root)
    assert not root.exists()
