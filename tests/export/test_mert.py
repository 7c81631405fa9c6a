"""The MERT recipe against transformers' HubertModel with the same weights, and against checkpoints that do not fit."""

# ruff: noqa: E402 - torch is optional, and what follows needs it

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import yaml
from numpy.typing import NDArray
from typer.testing import CliRunner

from edge_reclass import Cascade
from edge_reclass.backends.ort.cpu import OrtBackend
from edge_reclass.bundle import WaveformEntry
from edge_reclass.bundle.loading import load
from edge_reclass.bundle.reference import CASES, agreement, load_reference, synthesise
from edge_reclass.cli.commands import app as runtime_app
from edge_reclass.errors import EdgeReclassError, UsageError

torch = pytest.importorskip("torch", reason="the export needs torch")

from torch.nn.utils import parametrize
from transformers import HubertModel, Wav2Vec2FeatureExtractor

from edge_reclass_export.bundle_writer import put_encoder, stage_head
from edge_reclass_export.cli import app
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.head_files import parse_head_options
from edge_reclass_export.parity import run_graph
from edge_reclass_export.precision import half_precision
from edge_reclass_export.recipes import mert as mert_export
from edge_reclass_export.recipes.hubert import MertConfig, weight_shapes
from edge_reclass_export.recipes.mert import FLOAT32_REGIONS, MertOptions, mert_encoder, proved_batch
from edge_reclass_export.recipes.mert_checkpoint import (
    RANDOM_CONFIGS,
    Layer,
    parse_layer,
    read_config,
    read_source,
)
from edge_reclass_export.recipes.mert_model import build
from export import mert_maker
from export.made import MadeEncoders, mert_checkpoint
from export.mert_maker import Architecture, hubert_config

RATE = 24_000
SHORT = MertOptions(window_seconds=0.25)
AUDIO = synthesise(RATE, RATE // 4, 3)
GENRES = "Blues,Jazz,Rock"
RELU = parse_head_options("relu", None)


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def normalised(audio: NDArray[np.float32]) -> torch.Tensor:
    """By transformers' own preprocessor, window by window."""
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=True)
    return torch.from_numpy(np.stack(extractor(list(audio), sampling_rate=RATE)["input_values"])).float()


def oracle(model: HubertModel, audio: NDArray[np.float32], layer: Layer = "last", *, normalise: bool = True) -> Any:
    """Mean over time of a hidden state of transformers' network, whose last one is behind the final norm."""
    with torch.inference_mode():
        answer = model(normalised(audio) if normalise else torch.from_numpy(audio), output_hidden_states=True)
    # transformers 5 collects the layers' own outputs; up to 4, the last of them was last_hidden_state.
    states = [*answer.hidden_states[:-1], answer.last_hidden_state]
    if layer == "mean-of-all":
        return torch.stack([state.mean(dim=1) for state in states]).mean(dim=0).numpy()
    return states[-1 if layer == "last" else layer].mean(dim=1).numpy()


@pytest.fixture(scope="module")
def networks() -> dict[Architecture, HubertModel]:
    return {"95m": mert_maker.hubert(mert_maker.config("95m")), "330m": mert_maker.hubert(mert_maker.config("330m"))}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both architectures: new names in pytorch_model.bin; old names under a prefix in safetensors."""
    root = tmp_path_factory.mktemp("mert")
    return {name: mert_checkpoint(name, root) for name in ("95m", "330m")}


@pytest.fixture(scope="module")
def encoders(made_encoders: MadeEncoders) -> dict[str, ExportedEncoder]:
    return {name: made_encoders(f"mert {name}") for name in ("95m", "330m")}


@pytest.mark.parametrize("architecture", ["95m", "330m"])
def test_both_architectures_in_both_precisions(
    architecture: Architecture, networks: dict[Architecture, HubertModel], encoders: dict[str, ExportedEncoder]
) -> None:
    encoder, network = encoders[architecture], networks[architecture]
    assert encoder.dim == network.config.hidden_size
    assert encoder.licence_file == ""
    assert (encoder.rate, encoder.window_samples, encoder.hop_samples) == (RATE, 6_000, 6_000)
    expected = oracle(network, AUDIO)
    assert encoder.provenance["frames"] == 18
    full = agreement(expected, run_graph(encoder.model, AUDIO)[0])
    half = agreement(expected, run_graph(encoder.others["fp16"], AUDIO)[0])
    assert full.cosine >= 0.999999 and full.relative < 1e-4
    assert 0.9999 <= half.cosine < 1.0


@pytest.mark.parametrize("architecture", ["95m", "330m"])
def test_what_the_graphs_are_made_of(architecture: str, encoders: dict[str, ExportedEncoder]) -> None:
    encoder = encoders[architecture]
    layers = 2
    for precision, content in (("fp32", encoder.model), ("fp16", encoder.others["fp16"])):
        model = onnx.load_model_from_string(content)
        assert model.ir_version == 10
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
        operators = Counter(node.op_type for node in model.graph.node)
        assert operators["LayerNormalization"] == 2 + 2 * layers
        assert operators["Softmax"] == layers and operators["InstanceNormalization"] == 1
        assert operators["Cast"] == (0 if precision == "fp32" else 2)
        assert not operators["IsNaN"] and not operators["Shape"]
        float16 = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
        assert "front.first.conv.weight" in {t.name for t in model.graph.initializer} - float16
        assert bool(float16) == (precision == "fp16")


def configured(tmp_path: Path, **changes: Any) -> tuple[MertConfig, HubertModel, dict[str, torch.Tensor]]:
    plain = mert_maker.config(**changes)
    network = mert_maker.hubert(plain)
    source = read_source(mert_maker.write(tmp_path, plain, state=mert_maker.tensors(network)))
    return source.config, network, dict(source.weights)


@pytest.mark.parametrize(
    "changes",
    [
        {"feat_extract_norm": "layer", "conv_bias": True},
        {"feat_proj_layer_norm": False},
        {"conv_pos_batch_norm": True},
        {"num_conv_pos_embeddings": 15},
        mert_maker.SHALLOW,
        {"hidden_act": "relu", "layer_norm_eps": 1e-3},
        {"architecture": "330m", "feat_extract_norm": "layer"},
    ],
)
def test_every_option_of_the_configuration(changes: dict[str, Any], tmp_path: Path) -> None:
    config, network, weights = configured(tmp_path, **changes)
    module = build(config, weights, normalise=True, layer="last")
    with torch.inference_mode():
        got = module(torch.from_numpy(AUDIO)).numpy()
    assert agreement(oracle(network, AUDIO), got).relative < 1e-5


@pytest.mark.parametrize("architecture", ["95m", "330m"])
@pytest.mark.parametrize("layer", [0, 1, 2, "last", "mean-of-all"])
def test_layers(
    architecture: Architecture, layer: Layer, networks: dict[Architecture, HubertModel], folders: dict[str, Path]
) -> None:
    source = read_source(folders[architecture])
    module = build(source.config, source.weights, normalise=True, layer=layer)
    if isinstance(layer, int):
        assert len(list(module.body.get_submodule("layers").children())) == layer
    with torch.inference_mode():
        got = module(torch.from_numpy(AUDIO)).numpy()
    assert agreement(oracle(networks[architecture], AUDIO, layer), got).relative < 1e-5


def test_the_mean_of_all_layers_as_a_graph(tmp_path: Path) -> None:
    plain = mert_maker.config(**mert_maker.SHALLOW)
    encoder = mert_encoder(read_source(mert_maker.write(tmp_path, plain)), replace(SHORT, layer="mean-of-all"))
    expected = oracle(mert_maker.hubert(plain), AUDIO, "mean-of-all")
    assert agreement(expected, run_graph(encoder.model, AUDIO)[0]).cosine >= 0.999999
    assert agreement(expected, run_graph(encoder.others["fp16"], AUDIO)[0]).cosine >= 0.9999


@pytest.mark.parametrize("regions", FLOAT32_REGIONS)
def test_float32_regions_fit_the_network(regions: tuple[str, ...], folders: dict[str, Path]) -> None:
    """In torch's own float16, which unlike ONNX Runtime's on the CPU really rounds."""
    source = read_source(folders["330m"])
    module = build(source.config, source.weights, normalise=True, layer="last")
    audio = torch.from_numpy(AUDIO[:2])
    with torch.inference_mode():
        full, plain, wider = module(audio), half_precision(module)(audio), half_precision(module, regions)(audio)
    errors = [agreement(full.numpy(), half.numpy()).relative for half in (plain, wider)]
    assert 0.0 < errors[0] < 0.01 and 0.0 < errors[1] < 0.01
    # What stays outside of the regions (residual sums, positions) is rounded still.
    assert errors[1] != errors[0]


def test_without_normalisation(tmp_path: Path) -> None:
    network = mert_maker.hubert(mert_maker.config())
    folder = mert_maker.write(tmp_path, state=mert_maker.tensors(network), do_normalize=False)
    source = read_source(folder)
    module = build(source.config, source.weights, normalise=source.preprocessing.do_normalize, layer="last")
    with torch.inference_mode():
        got = module(torch.from_numpy(AUDIO)).numpy()
    assert agreement(oracle(network, AUDIO, normalise=False), got).relative < 1e-5


def test_deepnorm_and_attention_relax(tmp_path: Path) -> None:
    """Against the layer as the reference code has it: stronger residuals, and a softmax that is relaxed by r = 32."""
    config, network, weights = configured(tmp_path, deepnorm=True, attention_relax=32.0)
    with torch.inference_mode():
        features = network.feature_extractor(normalised(AUDIO)).transpose(1, 2)
        hidden = network.feature_projection(features)
        hidden = network.encoder.layer_norm(hidden + network.encoder.pos_conv_embed(hidden))
        for layer in network.encoder.layers:
            hidden = _deepnorm_layer(layer, hidden, alpha=(2 * 2) ** 0.25, heads=4, relax=32.0)
        expected = hidden.mean(dim=1).numpy()
        got = build(config, weights, normalise=True, layer="last")(torch.from_numpy(AUDIO)).numpy()
    assert agreement(expected, got).relative < 1e-5
    assert agreement(oracle(network, AUDIO), got).relative > 1e-2  # plain HuBERT is something else


def _deepnorm_layer(layer: Any, hidden: torch.Tensor, alpha: float, heads: int, relax: float) -> torch.Tensor:
    batch, frames, width = hidden.shape
    query, key, value = (
        projection(hidden).reshape(batch, frames, heads, width // heads).permute(0, 2, 1, 3)
        for projection in (layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj)
    )
    logits = (query * (width // heads) ** -0.5) @ key.transpose(2, 3) / relax
    attention = torch.softmax((logits - logits.amax(dim=-1, keepdim=True)) * relax, dim=-1) @ value
    mixed = layer.attention.out_proj(attention.permute(0, 2, 1, 3).reshape(batch, frames, width))
    hidden = layer.layer_norm(hidden * alpha + mixed)
    inner = torch.nn.functional.gelu(layer.feed_forward.intermediate_dense(hidden))
    result: torch.Tensor = layer.final_layer_norm(hidden * alpha + layer.feed_forward.output_dense(inner))
    return result


@pytest.mark.parametrize("size", ["95m", "330m"])
def test_published_sizes(size: str) -> None:
    """Names and shapes at full size, without memory for them, are those of transformers' network."""
    with torch.device("meta"):
        model = HubertModel(hubert_config(RANDOM_CONFIGS[size]))
    conv = model.encoder.pos_conv_embed.conv
    parametrize.remove_parametrizations(conv, "weight", leave_parametrized=True)
    shapes = weight_shapes(RANDOM_CONFIGS[size])
    assert shapes == {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert RANDOM_CONFIGS[size].frames(5 * RATE) == 374 and RANDOM_CONFIGS[size].frames(30 * RATE) == 2249


@pytest.mark.parametrize("old_names", [False, True])
def test_weight_norm_is_removed_exactly(old_names: bool, tmp_path: Path) -> None:
    network = mert_maker.hubert(mert_maker.config())
    folder = mert_maker.write(tmp_path, state=mert_maker.tensors(network, old_names=old_names))
    got = read_source(folder).weights["encoder.pos_conv_embed.conv.weight"]
    assert torch.equal(got, network.encoder.pos_conv_embed.conv.weight.detach())


def test_weight_norm_that_was_removed_before(tmp_path: Path) -> None:
    network = mert_maker.hubert(mert_maker.config())
    expected = network.encoder.pos_conv_embed.conv.weight.detach().clone()
    parametrize.remove_parametrizations(network.encoder.pos_conv_embed.conv, "weight")
    weights = read_source(mert_maker.write(tmp_path, state=mert_maker.tensors(network))).weights
    assert torch.equal(weights["encoder.pos_conv_embed.conv.weight"], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_half_precision_checkpoints_under_a_prefix(dtype: torch.dtype, file: str, tmp_path: Path) -> None:
    network = mert_maker.hubert(mert_maker.config())
    state = mert_maker.tensors(network, prefix="model.mert.", old_names=True)
    source = read_source(mert_maker.write(tmp_path, state=state, dtype=dtype, file=file))
    name = "encoder.layers.1.attention.q_proj.weight"
    assert torch.equal(source.weights[name], network.state_dict()[name].to(dtype).float())
    assert source.provenance["stored_dtypes"] == [str(dtype).removeprefix("torch.")]
    assert source.provenance["ignored_tensors"] == ["masked_spec_embed", "lm_head.weight"]


def test_a_licence_travels_along(tmp_path: Path) -> None:
    folder = mert_maker.write(tmp_path)
    (folder / "LICENSE").write_text("Not for sale.\n")
    assert read_source(folder).licence == "Not for sale.\n"


def test_a_state_dict_in_a_wrapper(tmp_path: Path) -> None:
    folder = mert_maker.write(tmp_path, file="pytorch_model.bin", wrapper="state_dict")
    assert read_source(folder).config.hidden_size == 48


# What does not fit.


def change_config(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        plain = json.loads((folder / "config.json").read_text()) | changes
        kept = {key: value for key, value in plain.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return spoil


def change_preprocessor(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        plain = json.loads((folder / "preprocessor_config.json").read_text()) | changes
        kept = {key: value for key, value in plain.items() if value is not None}
        (folder / "preprocessor_config.json").write_text(json.dumps(kept))

    return spoil


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for change in changes:
            change(folder)

    return spoil


def change_state(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        state = mert_maker.tensors(mert_maker.hubert(mert_maker.config()))
        change(state)
        mert_maker.write(folder, state=state)

    return spoil


def change_file(change: Callable[[bytes], bytes], name: str = "model.safetensors") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


def _without(prefix: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(state: dict[str, torch.Tensor]) -> None:
        for name in [name for name in state if name.startswith(prefix)]:
            del state[name]

    return change


def _add(name: str, *shape: int) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda state: state.update({name: torch.zeros(shape)})


def _poison(state: dict[str, torch.Tensor]) -> None:
    state["encoder.layers.1.layer_norm.weight"][3] = float("nan")


MISFITS: dict[str, tuple[Callable[[Path], None], str]] = {
    "other model": (
        change_config(model_type="wav2vec2"),
        r"model_type is 'wav2vec2', expected 'mert_model', 'music_hubert', 'hubert'",
    ),
    "other network": (change_state(_without("feature_projection")), r"not a checkpoint of this architecture"),
    "width": (change_config(hidden_size=64), "hidden_size is 64 in config.json, 48 in the file"),
    "layers": (change_config(num_hidden_layers=12), "num_hidden_layers is 12 in config.json, 2 in the file"),
    "inner width": (change_config(intermediate_size=100), "intermediate_size is 100 in config.json, 96 in the file"),
    "kernel": (
        change_config(conv_kernel=[10, 3, 3, 3, 3, 3, 2]),
        r"conv_kernel is \[10, 3, 3, 3, 3, 3, 2\] in config.json, \[10, 3, 3, 3, 3, 2, 2\] in the file",
    ),
    "positions": (change_config(num_conv_pos_embeddings=128), "num_conv_pos_embeddings is 128 .*, 16 in the file"),
    "groups": (change_config(num_conv_pos_embedding_groups=16), "embedding_groups is 16 .*, 4 in the file"),
    "norms": (
        change_config(feat_extract_norm="layer"),
        r"12 of \d+ tensors are missing: feature_extractor.conv_layers.1",
    ),
    "biases": (
        change_config(conv_bias=True),
        r"7 of \d+ tensors are missing: feature_extractor.conv_layers.0.conv.bias",
    ),
    "gap": (change_state(_without("encoder.layers.0.")), "the highest N is 1, but 0 is missing"),
    "missing tensor": (
        change_state(_without("encoder.layer_norm.")),
        r"2 of \d+ tensors are missing: encoder.layer_norm",
    ),
    "unexpected tensor": (
        change_state(_add("encoder.adapter.weight", 2)),
        "1 tensors are not expected: encoder.adapter",
    ),
    "not finite": (change_state(_poison), "encoder.layers.1.layer_norm.weight holds NaN or infinity"),
    "CQT in config": (change_config(feature_extractor_cqt=True), "this recipe has no CQT branch"),
    "CQT in file": (
        change_state(_add("feature_extractor_cqt.lenghts", 2)),
        "has no CQT branch.*feature_extractor_cqt.len",
    ),
    "deepnorm": (change_config(deepnorm=True, do_stable_layer_norm=True), "exclude each other"),
    "heads": (change_config(num_attention_heads=5), "hidden_size 48 is no multiple of num_attention_heads 5"),
    "activation": (change_config(hidden_act="gelu_fast"), "hidden_act is 'gelu_fast', expected one of gelu"),
    "norm kind": (
        change_config(feat_extract_norm="batch"),
        "feat_extract_norm is 'batch', expected 'group' or 'layer'",
    ),
    "missing key": (change_config(hidden_size=None), "the keys hidden_size are missing"),
    "type": (change_config(hidden_size="48"), "hidden_size is '48', expected a positive integer"),
    "boolean": (change_config(conv_bias=0), "conv_bias is 0, expected true or false"),
    "lengths": (change_config(conv_stride=[5, 2]), r"have \[7, 7, 2\] entries"),
    "rates": (change_config(sample_rate=16_000), "config.json says 16000 Hz, preprocessor_config.json says 24000 Hz"),
    "default rate": (
        both(change_config(sample_rate=None), change_preprocessor(sampling_rate=16_000)),
        "config.json has no sample_rate, so MERT's default of 24000 Hz, preprocessor_config.json says 16000 Hz",
    ),
    "no normalisation": (change_preprocessor(do_normalize=None), "do_normalize is None, expected true or false"),
    "no rate": (change_preprocessor(sampling_rate="24k"), "sampling_rate is '24k'"),
    "no preprocessor": (
        lambda folder: (folder / "preprocessor_config.json").unlink(),
        "preprocessor_config.json is missing",
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    "no JSON": (change_file(lambda content: content[:9], "config.json"), "no JSON"),
    "no object": (change_file(lambda content: b"[]", "config.json"), "expected an object with keys, got list"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "neither .* nor .* is there"),
    "truncated": (change_file(lambda content: content[:-100]), "is truncated: expected"),
    "corrupt": (change_file(lambda content: b"\xff" * len(content)), "damaged or no safetensors file"),
    "empty": (change_file(lambda content: b""), "the file is empty"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_misfits_have_their_own_message_and_leave_nothing(case: str, tmp_path: Path) -> None:
    spoil, message = MISFITS[case]
    folder = mert_maker.write(tmp_path / "checkpoint")
    spoil(folder)
    with pytest.raises(CheckpointError, match=message):
        run("mert", folder, "--bundle", tmp_path / "bundle", "--window-seconds", "0.25")
    assert not (tmp_path / "bundle").exists()


def test_a_truncated_torch_file(tmp_path: Path) -> None:
    folder = mert_maker.write(tmp_path, file="pytorch_model.bin")
    change_file(lambda content: content[: len(content) // 2], "pytorch_model.bin")(folder)
    with pytest.raises(CheckpointError, match="is truncated: a torch archive whose end is missing"):
        read_source(folder)


def test_a_head_of_another_width_names_both(folders: dict[str, Path], tmp_path: Path) -> None:
    head = mert_maker.write_head(tmp_path / "head.pth", features=48)
    arguments = (
        *("--bundle", tmp_path / "bundle", "--window-seconds", "0.25", "--head", head, "--genres", GENRES),
        *("--activation", "relu"),
    )
    with pytest.raises(CheckpointError, match=r"takes 48 values, the encoder gives 64"):
        run("mert", folders["330m"], *arguments)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{folder}",), "say where to: --bundle DIR"),
        (("--bundle", "b"), "either a CHECKPOINT or --random-init"),
        (("{folder}", "--random-init", "95m", "--bundle", "b"), "either a CHECKPOINT or --random-init"),
        (("--random-init", "1b", "--bundle", "b"), "expected 95m or 330m, got '1b'"),
        (
            ("{folder}", "--bundle", "b", "--layer", "deep"),
            "--layer: expected a number from 0 on, last, or mean-of-all",
        ),
        (("{folder}", "--bundle", "b", "--layer", "3"), "--layer 3: expected 0 to 2"),
        (("{folder}", "--bundle", "b", "--window-seconds", "0.01"), "240 samples give no frame"),
        (("{folder}", "--bundle", "b", "--window-seconds", "1000"), "expected up to 120, got 1000"),
        (("{folder}", "--bundle", "b", "--window-seconds", "nan"), "expected up to 120, got nan"),
        (("absent", "--bundle", "b"), "absent: expected a checkpoint directory"),
    ],
)
def test_wrong_usage(
    arguments: tuple[str, ...], message: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        run("mert", *(argument.format(folder=folders["95m"]) for argument in arguments))
    assert list(tmp_path.iterdir()) == []


def test_long_windows_are_proved_in_batches_too() -> None:
    assert [proved_batch(seconds) for seconds in (0.25, 5.0, 10.0, 30.0, 60.0, 120.0)] == [16, 16, 8, 3, 3, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--stage", "First"), "cannot be called"),
        (("--bundle", "{head}"), "is no directory"),
        (("--bundle", "{made}", "--genres", "A,B"), "leave it out"),
        (("--bundle", "{made}"), r"batch, 48\].*batch, 64\]"),
    ],
)
def test_what_is_cheap_to_know_is_known_before_the_export(
    arguments: tuple[str, ...],
    message: str,
    folders: dict[str, Path],
    encoders: dict[str, ExportedEncoder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object) -> None:
        pytest.fail("the export began")

    head = mert_maker.write_head(tmp_path / "head.pth", features=48)
    content = stage_head(tmp_path / "made", head, 48, GENRES.split(","), RELU).content
    put_encoder(tmp_path / "made", encoders["95m"], head=content, genres=GENRES.split(","))
    monkeypatch.setattr(mert_export, "mert_encoder", never)
    given = [argument.format(head=head, made=tmp_path / "made") for argument in arguments]
    with pytest.raises((UsageError, CheckpointError), match=message):
        run(
            "mert",
            folders["330m"],
            "--window-seconds",
            "0.25",
            *(() if "--bundle" in given else ("--bundle", tmp_path / "b")),
            *given,
        )


def test_a_heads_own_names_serve_for_a_new_bundle(
    folders: dict[str, Path], encoders: dict[str, ExportedEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = mert_maker.write_head(tmp_path / "bare.pth", features=48)
    head = tmp_path / "named.pth"
    named = {"model": torch.load(bare, weights_only=True), "genres": ["A", "B", "C"], "activation": "relu"}
    torch.save(named, head)
    monkeypatch.setattr(mert_export, "mert_encoder", lambda *_: encoders["95m"])
    arguments = (
        folders["95m"], "--window-seconds", "0.25", "--activation", "relu", "--bundle", tmp_path / "mine", "--head"
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"bare\.pth does not name its 3 classes"):
        run("mert", *arguments, bare)
    run("mert", *arguments, head)
    assert load(tmp_path / "mine").manifest.genres == ["A", "B", "C"]
    put_encoder(tmp_path / "direct", encoders["95m"], head=head)
    assert load(tmp_path / "direct").manifest.genres == ["A", "B", "C"]
    torch.save(named | {"genres": ["A", "C", "B"]}, head)
    with pytest.raises(CheckpointError, match=r"its classes are \['A', 'C', 'B'\], expected \['A', 'B', 'C'\]"):
        run("mert", *arguments, head)


def test_layer_names() -> None:
    assert [parse_layer(text) for text in ("last", "mean-of-all", "0", "12")] == ["last", "mean-of-all", 0, 12]
    for text in ("", "-1", "1.5", "first"):
        with pytest.raises(UsageError):
            parse_layer(text)


def test_defaults_of_the_configuration(tmp_path: Path) -> None:
    """MERT's own configuration class leaves out what is at its default."""
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {
                "model_type": "mert_model",
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "intermediate_size": 3072,
            }
        )
    )
    assert read_config(path) == RANDOM_CONFIGS["95m"]


# Through a bundle.


@pytest.fixture(scope="module")
def bundle(
    folders: dict[str, Path], encoders: dict[str, ExportedEncoder], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """330m under old names, with a head as the older project saved it, and an own window of audio.

    test_licence_notices_stand_in_the_graphs exports in the command itself.
    """

    def made(_: object, options: MertOptions, *__: object) -> ExportedEncoder:
        assert options == SHORT
        return encoders["330m"]

    root = tmp_path_factory.mktemp("bundle")
    head = mert_maker.write_head(root / "head.pth", features=64)
    audio = np.concatenate([synthesise(44_100, 44_100, 5)[0], synthesise(44_100, 44_100, 5)[3]])
    soundfile.write(root / "mine.wav", audio, 44_100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mert_export, "mert_encoder", made)
        text = run(
            "mert", folders["330m"], "--bundle", root / "mine", "--head", head, "--genres", GENRES,
            "--window-seconds", "0.25", "--reference-audio", root / "mine.wav", "--activation", "relu",
        )  # fmt: skip
    assert yaml.safe_load(text)["stages"][0]["name"] == "mert"
    return root / "mine"


def test_the_bundle_is_complete(bundle: Path) -> None:
    loaded = load(bundle)
    loaded.verify()
    entry = loaded.manifest.stage("mert").encoder
    assert isinstance(entry, WaveformEntry)
    assert set(entry.files) == {"fp32", "fp16"}
    assert (entry.dim, entry.rate, entry.window_samples, entry.short) == (64, RATE, 6_000, "repeat")
    provenance = loaded.manifest.provenance["mert"]
    assert provenance["head"]["source"] == "head.pth"
    assert provenance["source"] == "330m/model.safetensors" and "random_init" not in provenance
    assert provenance["parity"]["fp32"]["batch_16"]["cosine"] >= 0.999999
    assert provenance["parity"]["fp16"]["batch_16"]["cosine"] >= 0.9999
    assert provenance["batches_proved"] == [1, 3, 16]
    assert provenance["network"]["num_hidden_layers"] == 2
    for file in loaded.manifest.files:
        if file.endswith(".onnx"):
            model = onnx.load_model(bundle / file)
            assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (10, [("", 18)])


def test_own_audio_stands_behind_the_made_inputs(bundle: Path, networks: dict[Architecture, HubertModel]) -> None:
    vectors = load_reference(bundle / "reference" / "mert.npz")
    assert vectors.names == (*CASES, "mine.wav")
    inputs = vectors.inputs()
    assert inputs.shape == (len(CASES) + 1, 6_000) and np.abs(inputs[-1]).max() > 0.01
    assert agreement(oracle(networks["330m"], inputs), vectors.embedding).cosine >= 0.999999


def test_every_precision_answers_like_the_reference(bundle: Path) -> None:
    vectors = load_reference(bundle / "reference" / "mert.npz")
    for precision, least in (("fp32", 0.999999), ("fp16", 0.9999)):
        got = run_graph((bundle / "encoders" / f"mert.{precision}.onnx").read_bytes(), vectors.inputs())[0]
        assert agreement(vectors.embedding, got).cosine >= least, precision


def test_classify_gives_what_torch_gives(bundle: Path, networks: dict[Architecture, HubertModel]) -> None:
    audio = synthesise(RATE, 4 * 6_000, 8)[1]
    expected = oracle(networks["330m"], audio.reshape(4, 6_000)).mean(axis=0)
    state = torch.load(bundle.parent / "head.pth", weights_only=True)
    with torch.inference_mode():
        value = torch.from_numpy(expected)
        for number in (0, 3, 6):
            value = torch.nn.functional.linear(value, state[f"fc.{number}.weight"], state[f"fc.{number}.bias"])
            value = torch.relu(value) if number < 6 else torch.softmax(value, dim=-1)
    with Cascade.open(bundle) as cascade:
        verdict = cascade.classify_samples(audio, RATE)
    best = int(value.argmax())
    assert verdict.genre == GENRES.split(",")[best]
    assert verdict.confidence == pytest.approx(value[best].item(), abs=1e-4)


def test_classify_real_audio(bundle: Path, data: Path) -> None:
    with Cascade.open(bundle) as cascade:
        verdicts = [cascade.classify(path) for path in sorted((data / "audio" / "fma").glob("*.mp3"))[:2]]
    assert [verdict.status for verdict in verdicts] == ["ok", "ok"]


def test_the_float16_graph_runs_in_the_runtime(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = synthesise(RATE, 30_000, 8)[0]
    with Cascade.open(bundle) as cascade:
        full = cascade.classify_samples(audio, RATE)
    monkeypatch.setattr(OrtBackend, "precisions", ("fp16",))
    with Cascade.open(bundle) as cascade:
        half = cascade.classify_samples(audio, RATE)
    assert half.confidence == pytest.approx(full.confidence, abs=1e-2)
    assert half.confidence != full.confidence


def test_a_file_that_is_too_short_for_a_reference(folders: dict[str, Path], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", np.ones(100), 24_000)
    with pytest.raises(UsageError, match=r"short.wav: expected at least 0.25 s"):
        run("mert", folders["95m"], "--bundle", tmp_path / "b", "--window-seconds", "0.25",
            "--reference-audio", tmp_path / "short.wav")  # fmt: skip
    assert not (tmp_path / "b").exists()


# Untrained weights.


@pytest.fixture
def small_random(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size 95m made tiny."""
    tiny = MertConfig(
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=96,
        conv_dim=(32,) * 3,
        conv_kernel=(10, 8, 4),
        conv_stride=(5, 4, 4),
    )
    monkeypatch.setitem(RANDOM_CONFIGS, "95m", tiny)  # type: ignore[misc]


@pytest.mark.usefixtures("small_random")
def test_untrained_weights_are_marked_and_refused(encoders: dict[str, ExportedEncoder], tmp_path: Path) -> None:
    root = tmp_path / "bundle"
    run("mert", "--random-init", "95m", "--bundle", root, "--window-seconds", "0.25")
    provenance = load(root).manifest.provenance["mert"]
    assert provenance["random_init"] is True and provenance["head"] == {"random_init": True}
    assert len(load(root).manifest.genres) == 16
    with pytest.raises(UsageError, match=r"mert has untrained weights.*--allow-random"):
        Cascade.open(root)
    with Cascade.open(root, allow_random=True) as cascade:
        assert cascade.classify_samples(AUDIO[0], RATE).status in {"ok", "too_short"}
    soundfile.write(tmp_path / "a.wav", np.tile(AUDIO[0], 8), RATE)
    refused = CliRunner().invoke(runtime_app, ["classify", str(tmp_path / "a.wav"), "--bundle", str(root)])
    assert isinstance(refused.exception, EdgeReclassError) and "--allow-random" in str(refused.exception)
    taken = CliRunner().invoke(
        runtime_app, ["classify", str(tmp_path / "a.wav"), "--bundle", str(root), "--allow-random"]
    )
    assert taken.exit_code == 0
    # Trained weights in its place do not make the head trained.
    put_encoder(root, encoders["95m"])
    assert "random_init" not in load(root).manifest.provenance["mert"]
    with pytest.raises(UsageError, match="untrained"):
        Cascade.open(root)
