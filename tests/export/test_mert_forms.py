"""MERT as people have it: where a checkpoint lies, how it is split, and a learned mix of its hidden states."""

# ruff: noqa: E402 - torch is optional, and what follows needs it

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from edge_reclass.bundle.loading import load
from edge_reclass.bundle.reference import agreement
from edge_reclass.errors import EdgeReclassError, UsageError

torch = pytest.importorskip("torch", reason="the export needs torch")

from safetensors.torch import load_file, save_file
from torch import nn

from edge_reclass_export.cli import app
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.layer_mix import LayerMix, read_mix
from edge_reclass_export.parity import run_graph
from edge_reclass_export.precision import FLOAT16_MAX, largest_value
from edge_reclass_export.recipes import mert as mert_export
from edge_reclass_export.recipes.mert import FLOAT32_REGIONS, MertOptions, mert_encoder
from edge_reclass_export.recipes.mert_checkpoint import read_source
from edge_reclass_export.recipes.mert_model import build
from edge_reclass_export.torch_export import steady_tones
from export import mert_maker
from export.made import MadeEncoders
from export.test_mert import AUDIO, RATE, normalised, oracle

CONFIG = mert_maker.config(**mert_maker.SHALLOW)
STATES = 3  # two layers, and what goes into the first


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stderr


@pytest.fixture(scope="module")
def network() -> Any:
    return mert_maker.hubert(CONFIG)


@pytest.fixture
def folder(network: Any, tmp_path: Path) -> Path:
    return mert_maker.write(tmp_path / "mert", CONFIG, state=mert_maker.tensors(network))


def equal(found: Path, folder: Path) -> None:
    got, expected = read_source(found).weights, read_source(folder).weights
    assert set(got) == set(expected) and all(torch.equal(got[name], expected[name]) for name in expected)


def hub_cache(folder: Path, root: Path, *, refs: str | None = "abc123") -> Path:
    """A model's folder as the hub's client keeps it: snapshots of links into blobs."""
    model = root / "models--m-a-p--MERT-v1-95M"
    for name in ("abc123", "old999") if refs else ("abc123",):
        (model / "snapshots" / name).mkdir(parents=True)
    (model / "blobs").mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.copy(file, model / "blobs" / str(number))
        (model / "snapshots" / "abc123" / file.name).symlink_to(f"../../blobs/{number}")
    if refs:
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text(refs)
    return model


@pytest.mark.parametrize("refs", ["abc123", None])
def test_a_models_folder_of_the_hubs_cache(refs: str | None, folder: Path, tmp_path: Path) -> None:
    model = hub_cache(folder, tmp_path, refs=refs)
    equal(model, folder)
    said = read_source(model).provenance["source"]
    assert said == "models--m-a-p--MERT-v1-95M/snapshots/abc123/model.safetensors"


def test_a_snapshot_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="names the snapshot 'gone', snapshots has abc123, old999"):
        read_source(hub_cache(folder, tmp_path, refs="gone"))


@pytest.mark.parametrize("name", ["model.safetensors", "weights.safetensors", "mert.safetensors"])
def test_the_file_in_place_of_its_folder_and_weights_under_another_name(
    name: str, folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "model.safetensors").rename(copy / name)
    equal(copy / name, folder)
    equal(copy, folder)


@pytest.mark.parametrize("name", ["model.pth", "mert.pt", "best.ckpt"])
def test_torch_files_under_another_name(name: str, folder: Path, network: Any, tmp_path: Path) -> None:
    equal(mert_maker.write(tmp_path / "torch", CONFIG, state=mert_maker.tensors(network), file=name), folder)


def test_several_files_are_no_choice(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    shutil.copy(folder / "a.safetensors", folder / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"several files may hold the weights: a\.safetensors, b\.safetensors"):
        read_source(folder)
    equal(folder / "a.safetensors", folder / "b.safetensors")


def sharded(folder: Path) -> Path:
    """The weights in two files and an index, as transformers splits them."""
    checkpoint = folder / "model.safetensors"
    state = dict(load_file(checkpoint))
    checkpoint.unlink()
    names = sorted(state)
    placed = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file)
        placed |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return folder


def test_weights_in_several_files(folder: Path, tmp_path: Path) -> None:
    parts = sharded(shutil.copytree(folder, tmp_path / "parts"))
    equal(parts, folder)
    equal(parts / "model.safetensors.index.json", folder)
    assert read_source(parts).provenance["source"] == "parts/model.safetensors.index.json"
    (parts / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"the file model-00002-of-00002\.safetensors is missing"):
        read_source(parts)


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "..\\x", "x.index.json"]
)
def test_an_index_names_files_beside_it_only(name: str, folder: Path, tmp_path: Path) -> None:
    parts = sharded(shutil.copytree(folder, tmp_path / "parts"))
    shutil.copy(folder / "model.safetensors", tmp_path / "outside.safetensors")
    index = parts / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="expected one that lies beside it"):
        read_source(parts)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', "[" * 100_000])
def test_an_index_that_is_none(content: str, folder: Path, tmp_path: Path) -> None:
    parts = sharded(shutil.copytree(folder, tmp_path / "parts"))
    (parts / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match="no index"):
        read_source(parts)


def test_a_shard_with_other_tensors(folder: Path, tmp_path: Path) -> None:
    parts = sharded(shutil.copytree(folder, tmp_path / "parts"))
    save_file({"other": torch.ones(2)}, parts / "model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"its tensors are not those of model\.safetensors\.index\.json"):
        read_source(parts)


def test_the_authors_own_name_of_the_architecture(folder: Path) -> None:
    plain = json.loads((folder / "config.json").read_text()) | {"model_type": "music_hubert"}
    (folder / "config.json").write_text(json.dumps(plain))
    assert read_source(folder).config.hidden_size == 48


@pytest.mark.parametrize("kind", ["name", "pickle", "tensors"])
def test_fairseqs_files_are_refused_with_what_to_do(kind: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    content: dict[str, Any] = {"model": {"post_extract_proj.weight": torch.ones(2, 2)}}
    if kind == "pickle":
        content["args"] = argparse.Namespace(arch="mert")
    torch.save(content, folder / ("MERT-v1-95M_fairseq.pt" if kind == "name" else "checkpoint.pt"))
    with pytest.raises(CheckpointError, match=r"a fairseq checkpoint.*pytorch_model\.bin.*scripts/mert_hf"):
        read_source(folder)


# A learned mix of the hidden states.


def mixed(network: Any, weights: NDArray[np.floating], bias: float = 0.0) -> NDArray[np.float32]:
    """As MERT's model card has it: the states' means over time, then the weighted sum."""
    states = np.stack([oracle(network, AUDIO, layer) for layer in (0, 1, 2)])
    result: NDArray[np.float32] = np.tensordot(weights, states, axes=1) + bias
    return result


def conv(path: Path) -> nn.Conv1d:
    torch.manual_seed(5)
    module = nn.Conv1d(STATES, 1, 1)
    torch.save({f"aggregator.{name}": value for name, value in module.state_dict().items()}, path)
    return module


def test_the_convolution_of_the_model_card(network: Any, folder: Path, tmp_path: Path) -> None:
    module = conv(tmp_path / "mix.pth")
    with torch.inference_mode():
        states = torch.stack([torch.from_numpy(oracle(network, AUDIO, layer)) for layer in (0, 1, 2)], dim=1)
        expected = module(states).squeeze(1).numpy()
    mix = read_mix(tmp_path / "mix.pth", "mix", STATES)
    assert mix.bias != 0.0
    encoder = mert_encoder(read_source(folder), MertOptions(mix, window_seconds=0.25))
    assert agreement(expected, run_graph(encoder.model, AUDIO)[0]).relative < 1e-4
    assert agreement(expected, run_graph(encoder.others["fp16"], AUDIO)[0]).cosine >= 0.9999
    assert encoder.provenance["layer"] == {"weights": list(mix.weights), "bias": mix.bias}


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pth", ".safetensors"])
@pytest.mark.parametrize("kind", ["mix-plain", "mix-softmax"])
def test_vectors_of_weights(kind: Any, suffix: str, network: Any, folder: Path, tmp_path: Path) -> None:
    weights = np.array([0.5, -1.0, 2.0], np.float32)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npy":
        np.save(path, weights)
    elif suffix == ".npz":
        np.savez(path, layer_weights=weights)
    elif suffix == ".pth":
        torch.save({"layer_weights": torch.from_numpy(weights)}, path)
    else:
        save_file({"layer_weights": torch.from_numpy(weights)}, path)
    used = np.exp(weights) / np.exp(weights).sum() if kind == "mix-softmax" else weights
    source = read_source(folder)
    module = build(source.config, source.weights, normalise=True, layer=read_mix(path, kind, STATES))
    with torch.inference_mode():
        got = module(torch.from_numpy(AUDIO)).numpy()
    assert agreement(mixed(network, used), got).relative < 1e-5
    with pytest.raises(UsageError, match="say whether a softmax belongs to it"):
        read_mix(path, "mix", STATES)
    with pytest.raises(CheckpointError, match=r"has the shape \[3\], the encoder has 13 hidden states"):
        read_mix(path, kind, 13)


def test_a_mix_beside_its_head(network: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head's file has both; a head that was trained on the mix is never given another layer."""
    seen: list[MertOptions] = []

    def stop(_: object, options: MertOptions, *__: object) -> None:
        seen.append(options)
        raise UsageError("stop here")

    monkeypatch.setattr(mert_export, "mert_encoder", stop)
    module = conv(tmp_path / "mix.pth")
    head = {"fc.weight": torch.ones(2, 48), "aggregator.weight": module.weight, "aggregator.bias": module.bias}
    torch.save(head, tmp_path / "head.pth")
    arguments = (folder, "--bundle", tmp_path / "b", "--head", tmp_path / "head.pth", "--genres", "A,B")
    with pytest.raises(UsageError, match="stop here"):
        run("mert", *arguments, "--layer", "mix")
    assert seen[0].layer == LayerMix(tuple(module.weight.flatten().tolist()), module.bias.item())
    with pytest.raises(UsageError, match=r"the layer weights in \S+head\.pth go with --layer mix"):
        run("mert", *arguments)
    with pytest.raises(UsageError, match="--layer-weights goes with --layer mix"):
        run("mert", folder, "--bundle", tmp_path / "b", "--layer-weights", tmp_path / "mix.pth")
    with pytest.raises(UsageError, match="give --layer-weights FILE"):
        run("mert", folder, "--bundle", tmp_path / "b", "--layer", "mix")


# The attention in half precision.


def test_the_scale_of_the_scores_is_in_the_query_projection(made_encoders: MadeEncoders) -> None:
    encoder = made_encoders("mert 95m")
    for content in (encoder.model, encoder.others["fp16"]):
        graph = onnx.load_model_from_string(content).graph
        made_by = {output: node for node in graph.node for output in node.output}
        scores = [made_by[node.input[0]].op_type for node in graph.node if node.op_type == "Softmax"]
        assert Counter(scores) == {"MatMul": 2}


def outliers(folder: Path, factor: float) -> dict[str, torch.Tensor]:
    weights = read_source(folder).weights
    large = (".q_proj.", ".k_proj.")
    return {name: value * factor if any(part in name for part in large) else value for name, value in weights.items()}


def test_attention_alone_goes_to_float32_where_its_scores_overflow(folder: Path) -> None:
    config = read_source(folder).config
    features = normalised(AUDIO)
    module = build(config, outliers(folder, 300.0), normalise=False, layer="last")
    with torch.inference_mode():
        front = module.front(features)
        plain, by_island = (
            [largest_value(module, front, regions)[1] for regions in ((), *FLOAT32_REGIONS[:2])][i] for i in (0, 2)
        )
    assert FLOAT32_REGIONS[1] == ("layers.*.attention",)
    assert plain > FLOAT16_MAX > by_island
    # The scale is inside: the scores are those of softmax, √12 times smaller than the bare product.
    layer = module.body.get_submodule("layers.0.attention")
    assert isinstance(layer.q_proj, nn.Linear)
    expected = outliers(folder, 300.0)["encoder.layers.0.attention.q_proj.weight"] * 12**-0.5
    torch.testing.assert_close(layer.q_proj.weight, expected, rtol=1e-6, atol=0.0)


def test_the_proof_hears_steady_tones() -> None:
    tones = steady_tones(RATE, 6_000)
    assert tones.shape == (3, 6_000) and tones.dtype == np.float32
    assert (np.abs(tones).max(axis=1) > 0.99).all()
    spectrum = np.abs(np.fft.rfft(tones.astype(np.float64) * np.hanning(6_000), axis=1))
    assert [round(float(peak)) for peak in spectrum.argmax(axis=1) * RATE / 6_000] == [220, 1_000, 3_000]
    assert len(steady_tones(4_000, 100)) == 2


def test_licence_notices_stand_in_the_graphs(folder: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2, 48)}, tmp_path / "head.pth")
    (folder / "LICENSE").write_text("Not for sale.\n")
    said = run(
        "mert", folder, "--bundle", tmp_path / "b", "--window-seconds", "0.25", "--head", tmp_path / "head.pth",
        "--genres", "A,B",
    )  # fmt: skip
    bundle = load(tmp_path / "b")
    notices = {file: onnx.load_model(bundle.path(file)).doc_string for file in bundle.manifest.files if "onnx" in file}
    assert len(notices) == 3
    for file, notice in notices.items():
        assert ("Not for sale." in notice and "MERT" in notice) if "encoders" in file else "head.pth" in notice
    # What the export is doing, and what comes next, on standard error.
    steps = ("read and checked", "fp32 graph made", "fp32 proved at a batch of 1, 3, 16", "fp16 proved", "done in")
    places = [said.index(step) for step in steps]
    assert places == sorted(places) and f"next: edge-reclass verify {tmp_path / 'b'}" in said


def test_errors_are_of_ours(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(EdgeReclassError):
        read_source(folder)
