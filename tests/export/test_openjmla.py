"""OpenJMLA: the front end against SpectPrompt's recipe, the network against numpy, and checkpoints that do not fit."""

# ruff: noqa: E402 - torch is optional, and what follows needs it
from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import yaml
from numpy.typing import NDArray
from onnx import helper
from typer.testing import CliRunner

from edge_reclass import Cascade
from edge_reclass.bundle import ExcerptEntry, WaveformEntry
from edge_reclass.bundle.loading import load
from edge_reclass.bundle.reference import CASES, agreement, load_reference, synthesise
from edge_reclass.cascade.windowing import fill_window
from edge_reclass.errors import UsageError
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.parity import run_graph

torch = pytest.importorskip("torch", reason="the export needs torch")

from edge_reclass_export.checkpoints import load_state
from edge_reclass_export.cli import app
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.recipes import openjmla as openjmla_export
from edge_reclass_export.recipes.openjmla import one_window, openjmla_encoder, read_source
from edge_reclass_export.recipes.openjmla_checkpoint import (
    FULL_SIZE,
    random_weights,
    read_weights,
)
from edge_reclass_export.recipes.openjmla_model import (
    Geometry,
    Pool,
    SpectPrompt,
    VisionTransformer,
    build,
    tensor_shapes,
)
from export import openjmla_maker as maker
from export import openjmla_reference as reference
from export.made import MadeEncoders
from synth import music

RATE = 16_000
State = dict[str, "torch.Tensor"]


def float64(state: State) -> dict[str, NDArray[np.float64]]:
    return {name: value.double().numpy() for name, value in state.items()}


@pytest.fixture(scope="module")
def state() -> State:
    return maker.encoder_state()


@pytest.fixture(scope="module")
def checkpoint(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return maker.write_encoder_file(tmp_path_factory.mktemp("openjmla") / "epoch_20.pth", state)


@pytest.fixture(scope="module")
def encoder(made_encoders: MadeEncoders) -> ExportedEncoder:
    return made_encoders("openjmla")


# ---- geometry


def test_full_size_has_the_published_parameters() -> None:
    shapes = tensor_shapes(FULL_SIZE)
    counted = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    assert sum(counted.values()) == 86_366_208
    assert counted["pos_embed"] == 936 * 768
    assert sum(n for name, n in counted.items() if name.startswith("patch_embed.")) == 590_592
    assert sum(n for name, n in counted.items() if name.startswith("layers.")) == 85_054_464
    assert (FULL_SIZE.heads, FULL_SIZE.tokens, FULL_SIZE.frames, FULL_SIZE.window_samples) == (12, 936, 2992, 478_760)


def test_geometry_comes_from_the_file(checkpoint: Path) -> None:
    weights = read_weights(load_state(checkpoint))
    assert weights.geometry == Geometry(maker.WIDTH, maker.LAYERS, maker.HIDDEN, maker.PATCH, 5, maker.COLUMNS)
    assert weights.geometry.window_samples == maker.WINDOW


def test_random_weights_are_reproducible_and_untouched_by_other_seeds() -> None:
    geometry = Geometry(64, 1, 128, 16, 5, 2)
    first, again, other = (random_weights(geometry, seed).tensors for seed in (3, 3, 4))
    assert set(first) == set(tensor_shapes(geometry))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["pos_embed"], other["pos_embed"])


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.audio_encoder."])
def test_the_same_encoder_out_of_every_kind_of_file(prefix: str, state: State, tmp_path: Path) -> None:
    large = read_weights(load_state(maker.write_large_file(tmp_path / "epoch_4-step_1.pth", state, prefix)))
    assert (large.prefix, large.others) == (prefix, len(maker.language_model_state()))
    assert all(torch.equal(large.tensors[name], value) for name, value in state.items())
    half = read_weights(load_state(maker.write_half_safetensors(tmp_path / "encoder.safetensors", state)))
    assert all(torch.equal(half.tensors[name], value.half().float()) for name, value in state.items())


# ---- front end


def front_end(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        image: NDArray[np.float32] = SpectPrompt()(torch.from_numpy(audio)).numpy()
    assert (image[:, 0] == image[:, 1]).all() and (image[:, 0] == image[:, 2]).all()
    return image[:, 0]


def test_front_end_is_spectprompts() -> None:
    """Every case of the reference vectors, one second; frames and edges included."""
    pytest.importorskip("librosa", reason="the oracle takes librosa's mel bands")
    samples = 99 * 160 + 200
    audio = synthesise(RATE, samples, 3)
    got = front_end(audio)
    expected = np.stack([reference.log_mel(row, 100) for row in audio])
    assert got.shape == expected.shape == (len(CASES), 80, 100)
    error = np.abs(got - expected).max(axis=(1, 2))
    by_case = dict(zip(CASES, error.tolist(), strict=True))
    assert by_case["noise"] < 1e-5 and by_case["quiet_noise"] < 1e-5, by_case
    # Where one frame holds loud and nearly silent bands, the silent ones show float32 rounding of the transform.
    assert max(by_case.values()) < 5e-4, by_case
    assert np.abs(got - expected).mean() < 5e-6


def test_the_window_holds_the_frames_exactly() -> None:
    audio = synthesise(RATE, maker.WINDOW, 3)[:1]
    assert front_end(audio).shape[2] == maker.COLUMNS * maker.PATCH
    assert front_end(audio[:, :-1]).shape[2] == maker.COLUMNS * maker.PATCH - 1


def test_silence_is_the_floor_of_the_logarithm() -> None:
    got = front_end(np.zeros((1, 2000), np.float32))
    np.testing.assert_allclose(got, (np.log(np.finfo(np.float32).eps) + 4.5) / 4.5, rtol=1e-6)


# ---- network


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_network_against_numpy(pool: Pool, state: State, checkpoint: Path) -> None:
    pytest.importorskip("librosa", reason="the oracle takes librosa's mel bands")
    audio = synthesise(RATE, maker.WINDOW, 5)
    module = build(read_weights(load_state(checkpoint)), pool)
    with torch.inference_mode():
        got = module(torch.from_numpy(audio)).numpy()
    frames = maker.COLUMNS * maker.PATCH
    expected = np.stack([reference.embedding(row, float64(state), frames, pool) for row in audio])
    found = agreement(expected, got)
    assert found.cosine >= 0.999_999 and found.relative < 1e-4, found
    # The comparison can fail: the inputs' embeddings are not all alike.
    assert agreement(expected, np.roll(got, 1, axis=0)).cosine < 0.99


def test_patches_go_along_time_first_then_to_higher_bands(state: State) -> None:
    """Row-major over mel, then time: patch p covers bands 16·(p // columns) and frames 16·(p % columns)."""
    geometry = Geometry(maker.WIDTH, maker.LAYERS, maker.HIDDEN, maker.PATCH, 5, maker.COLUMNS)
    network = VisionTransformer(geometry)
    network.load_state_dict(state)
    silent = torch.zeros(1, 3, 80, geometry.frames)
    with torch.inference_mode():
        before = network.patch_embed(silent)
        for row, column in [(0, 0), (0, maker.COLUMNS - 1), (1, 0), (4, 2)]:
            marked = silent.clone()
            marked[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 1.0
            changed = (network.patch_embed(marked) != before).any(dim=2)[0]
            assert changed.nonzero().flatten().tolist() == [row * maker.COLUMNS + column]


def test_graphs_of_both_precisions(state: State, encoder: ExportedEncoder) -> None:
    pytest.importorskip("librosa", reason="the oracle takes librosa's mel bands")
    assert (encoder.rate, encoder.window_samples, encoder.dim) == (RATE, maker.WINDOW, maker.WIDTH)
    assert (encoder.hop_samples, encoder.short, encoder.name) == (maker.WINDOW, "repeat_centered", "jmla")
    audio = synthesise(RATE, maker.WINDOW, 9)[:5]
    frames = maker.COLUMNS * maker.PATCH
    expected = np.stack([reference.embedding(row, float64(state), frames) for row in audio])
    full = agreement(expected, run_graph(encoder.model, audio)[0])
    assert full.cosine >= 0.999_999 and full.relative < 1e-4, full
    half = agreement(expected, run_graph(encoder.others["fp16"], audio)[0])
    assert half.cosine >= 0.999_9 and half.relative < 2e-2, half
    assert half.relative > full.relative
    for rows in (1, 3):
        np.testing.assert_allclose(run_graph(encoder.model, audio[:rows])[0], expected[:rows], atol=1e-4)
    assert len(encoder.others["fp16"]) < 0.75 * len(encoder.model)


def test_half_precision_leaves_the_front_end_and_the_pooling_in_float32(encoder: ExportedEncoder) -> None:
    graph = onnx.load_from_string(encoder.others["fp16"]).graph
    weights = {tensor.name: tensor.data_type for tensor in graph.initializer}
    (first_conv, second_conv) = (node for node in graph.node if node.op_type == "Conv")
    assert weights[first_conv.input[1]] == onnx.TensorProto.FLOAT
    assert weights[second_conv.input[1]] == onnx.TensorProto.FLOAT16
    order = [node.op_type for node in graph.node]
    assert order.index("Log") < order.index("Cast")
    assert len(order) - 1 - order[::-1].index("Cast") < order.index("ReduceMean")
    counted = Counter(order)
    assert counted["Cast"] == 2
    assert counted["LayerNormalization"] == 2 * maker.LAYERS + 1
    assert counted["Shape"] == 0, "a graph that asks for its batch size"
    # Too small a difference for a comparison of numbers: the exact GELU, and the norms' epsilon.
    assert (counted["Erf"], counted["Tanh"]) == (maker.LAYERS, 0)
    norms = [helper.get_node_attr_value(node, "epsilon") for node in graph.node if node.op_type == "LayerNormalization"]
    assert norms == pytest.approx([1e-6] * len(norms))


def test_a_hidden_unit_beyond_float16_makes_a_float32_region(tmp_path: Path) -> None:
    """One unit of 1e5, of which the next layer takes a hundred-thousandth: harmless in float32, infinite in float16."""
    state = maker.encoder_state()
    state["layers.0.ffn.layers.0.0.bias"][7] += 1e5
    state["layers.0.ffn.layers.1.weight"][:, 7] *= 1e-5
    path = maker.write_encoder_file(tmp_path / "epoch_20.pth", state)
    made = openjmla_encoder(read_source(path))
    figures = made.provenance["parity"]
    assert isinstance(figures, dict)
    assert figures["fp16"]["float32_islands"] == ["layers.*.ffn"]
    assert figures["fp16"]["largest_value"] < 65_504
    assert figures["fp16"]["batch_1"]["cosine"] >= 0.9999
    weights = {tensor.name: tensor.data_type for tensor in onnx.load_from_string(made.others["fp16"]).graph.initializer}
    kinds = {kind for name, kind in weights.items() if name.endswith("attn.qkv.bias")}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert {kind for name, kind in weights.items() if "ffn" in name} == {onnx.TensorProto.FLOAT}


def test_the_same_checkpoint_gives_the_same_bytes(checkpoint: Path, encoder: ExportedEncoder) -> None:
    again = openjmla_encoder(read_source(checkpoint))
    assert again.model == encoder.model and again.others == encoder.others


# ---- windows


@pytest.mark.parametrize("samples", [6_400, 12_000])
def test_short_input_is_nearly_what_spectprompt_makes_of_it(samples: int, state: State, checkpoint: Path) -> None:
    """The runtime repeats samples around a centred copy, SpectPrompt repeats frames: near, and far better than zeros.

    A spectrogram of n samples has n // 160 + 1 frames, so SpectPrompt's copies lie up to a frame further apart.
    """
    pytest.importorskip("librosa", reason="the oracle takes librosa's mel bands")
    short = synthesise(RATE, samples, 7)
    repeated = np.empty((len(short), maker.WINDOW), np.float32)
    for row, out in zip(short, repeated, strict=True):
        fill_window(row, 0, "repeat_centered", out)
    with_zeros = np.pad(short, ((0, 0), (0, maker.WINDOW - samples)))
    frames = maker.COLUMNS * maker.PATCH
    theirs = [
        reference.tokens(reference.circular(reference.log_mel(row), frames), float64(state))[1:].mean(axis=0)
        for row in short
    ]
    module = build(read_weights(load_state(checkpoint)))
    with torch.inference_mode():
        ours, zeros = (module(torch.from_numpy(rows)).numpy() for rows in (repeated, with_zeros))
    near = [agreement(a[None], b[None]).cosine for a, b in zip(theirs, ours, strict=True)]
    far = [agreement(a[None], b[None]).cosine for a, b in zip(theirs, zeros, strict=True)]
    assert all(a > b for a, b in zip(near, far, strict=True)), (near, far)
    assert min(near) > 0.9 and np.median(near) > 0.98, near


def test_one_window_is_never_two() -> None:
    excerpt = one_window(FULL_SIZE.window_samples)
    assert excerpt == ExcerptEntry(start="center", seconds=29.92)
    for rate in (8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000):
        decoded = round(29.92 * rate)
        assert FULL_SIZE.window_samples - 42 <= decoded * RATE / rate + 1 <= FULL_SIZE.window_samples


# ---- refusals


def edited(change: Callable[[State], None]) -> State:
    made = maker.encoder_state()
    change(made)
    return made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("patch_embed.projection.weight"), r"no tensor 'patch_embed\.projection\.weight'"),
        (lambda s: s.update(pos_embed=torch.zeros(1, 129, 128)), "129 rows.*128 patches.*5 rows.*no multiple of 5"),
        (lambda s: s.update(pos_embed=torch.zeros(1, 31, 192)), r"pos_embed is \[1, 31, 192\].*width is 128"),
        (
            lambda s: s.update({"layers.1.attn.qkv.weight": torch.zeros(256, 128)}),
            r"attn\.qkv\.weight expected \[384, 128\], got \[256, 128\]",
        ),
        (
            lambda s: s.pop("layers.1.ffn.layers.1.bias"),
            r"1 of 30 tensors are missing: layers\.1\.ffn\.layers\.1\.b",
        ),
        (lambda s: s.update({"layers.1.gamma": torch.ones(128)}), r"1 tensors are not expected: layers\.1\.gamma"),
        (lambda s: s.update({"pre_norm.weight": torch.ones(128)}), r"not expected: pre_norm\.weight"),
        (lambda s: s.update({"ln1.weight": torch.full((128,), float("nan"))}), r"ln1\.weight holds NaN"),
        (lambda s: s.update({"ln1.bias": torch.zeros(128, dtype=torch.int32)}), "floating point, got torch.int32"),
        (
            lambda s: s.update({"patch_embed.projection.weight": torch.zeros(128, 1, 16, 16)}),
            r"patch kernel is \[128, 1, 16, 16\], expected \[width, 3,",
        ),
        (
            lambda s: s.update({"patch_embed.projection.weight": torch.zeros(100, 3, 16, 16)}),
            "width is 100, expected a multiple of 64",
        ),
        (lambda s: [s.pop(name) for name in list(s) if name.startswith("layers.0.")], "0 is missing"),
        (lambda s: [s.pop(name) for name in list(s) if name.startswith("layers.")], "at least one layer"),
        (lambda s: s.update(cls_token=torch.zeros(1, 1, 64)), r"cls_token expected \[1, 1, 128\], got \[1, 1, 64\]"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change: Callable[[State], None], message: str, tmp_path: Path) -> None:
    path = maker.write_encoder_file(tmp_path / "epoch_20.pth", edited(change))
    with pytest.raises(CheckpointError, match=message):
        read_weights(load_state(path))


def test_another_architecture_is_refused_by_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "mert.pth"
    torch.save({"feature_extractor.conv_layers.0.conv.weight": torch.zeros(4)}, path)
    with pytest.raises(CheckpointError, match=r"not a checkpoint of this architecture.*feature_extractor"):
        read_source(path)


@pytest.mark.parametrize("keep", [0, 100, 0.5, -1])
def test_truncated_files(keep: float, checkpoint: Path, tmp_path: Path) -> None:
    content = checkpoint.read_bytes()
    size = int(keep * len(content)) if isinstance(keep, float) else keep
    (tmp_path / "cut.pth").write_bytes(content[:size])
    with pytest.raises(CheckpointError, match=r"empty|truncated|damaged|no torch checkpoint"):
        read_source(tmp_path / "cut.pth")


def test_a_flipped_bit_is_noticed(checkpoint: Path, tmp_path: Path) -> None:
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_source(tmp_path / "flipped.pth")


# ---- command


def run(*arguments: str | Path) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["openjmla", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.stdout, result.stderr


def head_file(path: Path, features: int = maker.WIDTH) -> Path:
    """A bare state dict as the older project saved its heads."""
    layers = {"fc.0": (24, features), "fc.3": (12, 24), "fc.6": (3, 12)}
    generator = torch.Generator().manual_seed(1)
    state = {}
    for name, (outputs, inputs) in layers.items():
        state[f"{name}.weight"] = torch.randn(outputs, inputs, generator=generator)
        state[f"{name}.bias"] = torch.randn(outputs, generator=generator)
    torch.save(state, path)
    return path


def test_command_makes_a_bundle_with_everything(state: State, tmp_path: Path) -> None:
    source = maker.write_large_file(tmp_path / "epoch_4.pth", state)
    head = head_file(tmp_path / "head.pth")
    own = tmp_path / "mine.wav"
    soundfile.write(own, music(2.0, RATE, 1), RATE)
    root = tmp_path / "bundle"
    text, _ = run(
        *(source, "--bundle", root, "--head", head, "--genres", "Jazz,Pop,Rock", "--pool", "cls"),
        *("--activation", "relu", "--reference-audio", own),
    )
    assert set(yaml.safe_load(text)) == {"stages", "provenance", "files"}, "the exporter's own output is kept away"
    assert logging.getLogger("torch.onnx").level == logging.NOTSET
    bundle = load(root)
    bundle.verify()
    stage = bundle.manifest.stage("jmla")
    assert isinstance(stage.encoder, WaveformEntry)
    assert set(stage.encoder.files) == {"fp32", "fp16"}
    assert (stage.encoder.short, stage.encoder.dim) == ("repeat_centered", maker.WIDTH)
    assert stage.excerpt == ExcerptEntry(start="center", seconds=0.96)
    said = bundle.manifest.provenance["jmla"]
    assert (said["recipe"], said["pool"], said["source_prefix"]) == ("openjmla", "cls", "backbone.")
    assert said["network"]["parameters"] == sum(value.numel() for value in state.values())
    assert said["parity"]["fp32"]["batch_1"]["cosine"] >= 0.999_999
    assert "random_init" not in said
    assert said["batches_proved"] == [1, 3, 16]
    assert yaml.safe_load(text)["stages"][0]["name"] == "jmla"
    assert stage.encoder.reference is not None
    vectors = load_reference(bundle.path(stage.encoder.reference))
    assert vectors.embedding.shape == (len(CASES) + 1, maker.WIDTH)
    for precision, least in (("fp32", 0.999_999), ("fp16", 0.9999)):
        got = run_graph(bundle.path(stage.encoder.files[precision]).read_bytes(), vectors.inputs())[0]
        assert agreement(vectors.embedding, got).cosine > least, precision
    logits = run_graph(bundle.path(stage.head.file).read_bytes(), vectors.embedding)[0]
    weights = torch.load(head, weights_only=True)
    value = torch.from_numpy(vectors.embedding)
    for name in ("fc.0", "fc.3", "fc.6"):
        value = torch.relu(value) if name != "fc.0" else value
        value = value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    np.testing.assert_allclose(logits, value.numpy(), rtol=1e-4, atol=1e-4)


def test_untrained_weights_are_marked_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(openjmla_export.random_source, Geometry(64, 1, 128, 16, 5, 7))
    monkeypatch.setattr(openjmla_export, "random_source", small)
    root = tmp_path / "bundle"
    _, said = run("--random-init", "--bundle", root)
    assert "untrained" in said
    bundle = load(root)
    assert bundle.manifest.provenance["jmla"]["random_init"] is True
    assert len(bundle.manifest.genres) == 16
    with pytest.raises(UsageError, match="jmla has untrained weights"):
        Cascade.open(root)
    with Cascade.open(root, allow_random=True, threads=1) as cascade:
        assert cascade.classify_samples(music(3.0, 44_100, 2), 44_100).status == "ok"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((), UsageError, "CHECKPOINT or --random-init"),
        (("FILE", "--random-init"), UsageError, "CHECKPOINT or --random-init"),
        (("FILE", "--pool", "max"), UsageError, "no pooling 'max'"),
        (("FILE", "--excerpt", "half"), UsageError, "expected full, SECONDS"),
        (("absent.pth",), UsageError, "cannot read the checkpoint"),
        (
            ("FILE", "--head", "WIDE", "--genres", "A,B,C", "--activation", "relu"),
            CheckpointError,
            "takes 768 values, the encoder gives 128",
        ),
        (("FILE", "--head", "WIDE", "--genres", "A,B,C"), UsageError, "3 linear layers.*give --activation relu"),
    ],
)
def test_wrong_usage_leaves_nothing(
    arguments: tuple[str, ...], error: type[Exception], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    files = {"FILE": str(checkpoint), "WIDE": str(head_file(tmp_path / "wide.pth", 768))}
    root = tmp_path / "bundle"
    with pytest.raises(error, match=message):
        run(*(files.get(argument, argument) for argument in arguments), "--bundle", root)
    assert not root.exists()


def test_a_bundle_that_does_not_fit_is_refused_before_the_export(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        pytest.fail("the export began")

    monkeypatch.setattr(openjmla_export, "openjmla_encoder", never)
    source = maker.write_large_file(tmp_path / "epoch_4.pth", state)
    with pytest.raises(UsageError, match="is no directory"):
        run(source, "--bundle", source)
    with pytest.raises(UsageError, match="cannot be called"):
        run(source, "--bundle", tmp_path / "b", "--stage", "First")
    assert not (tmp_path / "b").exists()
