"""Engines of real graphs, built by the real TensorRT-RTX on a machine without a GPU. They cannot be run here."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge_reclass import bundle as bundles_module
from edge_reclass.backends import open_library
from edge_reclass.bundle.loading import load
from edge_reclass.engines.record import EngineKey, EngineRecord, Profile, target_for
from edge_reclass.engines.trust import default_store
from edge_reclass_export.bundle_writer import put_encoder
from edge_reclass_export.engine.process import BuildFailure, BuildJob, Built, build_engine
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.musicnn_wheel import MusicnnWheel
from edge_reclass_export.onnx_writer import GraphInterface, model_bytes
from edge_reclass_export.recipes.musicnn import musicnn_encoder
from edge_reclass_export.recipes.musicnn_model import MusicnnOptions
from export.made import MadeEncoders
from export.test_bundle_writer import head_file
from export.test_engine_cli import Cli
from export.tiny_transformer import DIM, WINDOW, tiny_transformer

pytestmark = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None and find_spec("tensorrt_rtx_bindings") is None,
    reason="TensorRT-RTX is not installed: pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings",
)


def job(path: Path, *, width: int, dim: int, sm: str = "8.6", batches: tuple[int, int, int] = (1, 4, 8)) -> BuildJob:
    library = open_library("tensorrt-rtx")
    target = target_for("tensorrt-rtx", library.version, gpu=None, sm=sm)
    key = EngineKey("0" * 64, target, Profile("waveform", width, *batches))
    return BuildJob(path.name, library, path, key, dim)


def compiled(model: onnx.ModelProto | bytes, folder: Path, *, width: int, dim: int, **options: Any) -> Built:
    folder.mkdir(exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    work = folder / "work"
    work.mkdir()
    events: list[Any] = []
    built = build_engine(job(path, width=width, dim=dim, **options), work, events.append)
    assert built.plan.stat().st_size > 1_000 and built.seconds > 0.0 and built.peak_bytes > 10_000_000
    assert {"progress"} <= {event["event"] for event in events}
    return built


def test_musicnn_in_float32(made_wheel: MusicnnWheel, tmp_path: Path) -> None:
    encoder = musicnn_encoder(made_wheel, options=MusicnnOptions(tags=True))
    built = compiled(encoder.model, tmp_path, width=encoder.window_samples, dim=encoder.dim)
    # Weights are inside, and the second output, which the runtime does not bind, is not in the engine.
    content = built.plan.read_bytes()
    assert len(content) > 3_000_000
    assert b"embedding" in content and b"tags\x00" not in content


@pytest.mark.parametrize("sm", ["7.5", "8.6", "12.0"])
def test_a_transformer_in_float16(tmp_path: Path, sm: str) -> None:
    compiled(tiny_transformer(), tmp_path, width=WINDOW, dim=DIM, sm=sm)


def test_the_graph_alone_says_what_is_float16(tmp_path: Path) -> None:
    """Strongly typed: the same network in float16 is built without any flag, and holds half the weights' bytes."""
    single = compiled(tiny_transformer(half=False, dim=256), tmp_path / "single", width=WINDOW, dim=256)
    half = compiled(tiny_transformer(half=True, dim=256), tmp_path / "half", width=WINDOW, dim=256)
    weights = 2 * 12 * 256 * 256
    assert single.plan.stat().st_size > 4 * weights > half.plan.stat().st_size > 2 * weights


@pytest.mark.parametrize(
    "recipe",
    ["mert 95m", "mert 330m", "openjmla", "efficientat", "yamnet", "tagger musicnn", "tagger fcn", "tagger crnn"],
)
def test_the_recipes_in_all_precisions(tmp_path: Path, recipe: str, made_encoders: MadeEncoders) -> None:
    """Tiny networks of the published architectures, as the recipes export them."""
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    if recipe == "yamnet":
        pytest.importorskip("h5py", reason="Keras files need h5py")
    encoder = made_encoders(recipe)
    sizes = {}
    for precision, model in {"fp32": encoder.model, "fp16": encoder.others["fp16"]}.items():
        built = compiled(model, tmp_path / precision, width=encoder.window_samples, dim=encoder.dim, batches=(1, 2, 4))
        sizes[precision] = built.plan.stat().st_size
    if recipe in ("openjmla", "mert 95m", "mert 330m"):  # convolutions: the kernels' code outweighs the tiny weights
        assert sizes["fp16"] < sizes["fp32"]


def test_an_operator_that_is_unknown(tmp_path: Path) -> None:
    model = tiny_transformer()
    model.opset_import.append(helper.make_opsetid("test.unknown", 1))
    model.graph.node.insert(0, helper.make_node("Warp", ["waveform"], ["w"], name="odd/warp", domain="test.unknown"))
    with pytest.raises(BuildFailure, match=r"TensorRT cannot take this graph: .*odd/warp.*next: export the encoder"):
        compiled(model, tmp_path, width=WINDOW, dim=DIM)
    assert not (tmp_path / "work" / "engine.plan").exists()


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    with pytest.raises(BuildFailure, match="TensorRT cannot take this graph"):
        compiled(b"no graph", tmp_path, width=WINDOW, dim=DIM)


def test_other_dimensions_than_the_manifest_says(tmp_path: Path) -> None:
    with pytest.raises(BuildFailure, match=r"expected the input waveform\[batch, 1600\], got .*3200"):
        compiled(tiny_transformer(), tmp_path / "a", width=1_600, dim=DIM)
    with pytest.raises(BuildFailure, match=r"expected embedding\[batch, 99\], got \[-1, 32\]"):
        compiled(tiny_transformer(), tmp_path / "b", width=WINDOW, dim=99)
    renamed = tiny_transformer()
    renamed.graph.output[0].name = renamed.graph.node[-1].output[0] = "other"
    with pytest.raises(BuildFailure, match="expected the output embedding, got other"):
        compiled(renamed, tmp_path / "c", width=WINDOW, dim=DIM)


def test_types_that_do_not_meet(tmp_path: Path) -> None:
    """A strongly typed network takes no sum of float16 and float32; nothing is cast behind the user's back."""
    model = tiny_transformer()
    cast = next(node for node in model.graph.node if node.op_type == "Cast")
    cast.attribute[0].i = TensorProto.FLOAT
    with pytest.raises(BuildFailure, match="next: "):
        compiled(model, tmp_path, width=WINDOW, dim=DIM)


def test_a_compute_capability_that_it_does_not_build_for(tmp_path: Path) -> None:
    with pytest.raises(BuildFailure, match=r"does not build for SM 9\.0: SM75, .*SM120") as raised:
        compiled(tiny_transformer(), tmp_path, width=WINDOW, dim=DIM, sm="9.0")
    assert raised.value.kind == "device"


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine store of the test's own: bundles made alike have one digest."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def engines_of(bundle: Path) -> Path:
    """Where the bundle's engines lie by default."""
    return default_store() / load(bundle).digest


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    cli = Cli(tmp_path, monkeypatch, capsys)
    cli.machine(None)
    return cli


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    single = model_bytes(tiny_transformer(half=False), expect=GraphInterface.encoder(WINDOW, DIM))
    half = model_bytes(tiny_transformer(), expect=GraphInterface.encoder(WINDOW, DIM))
    encoder = ExportedEncoder(
        name="tiny",
        model=single,
        rate=16_000,
        window_samples=WINDOW,
        hop_samples=WINDOW,
        short="repeat",
        dim=DIM,
        provenance={"recipe": "tiny"},
    )
    root = tmp_path / "bundle"
    head = head_file(tmp_path / "head.npz", features=DIM)
    put_encoder(root, replace(encoder, others={"fp16": half}), head=head, genres=["A", "B", "C"])
    return root


def test_from_bundle_to_engine_on_the_command_line(run: Cli, bundle: Path) -> None:
    assert open_library("tensorrt-rtx").api.__name__.startswith("tensorrt_rtx")
    status, out, err = run("build", bundle, "--flavour", "tensorrt-rtx")
    assert status == 5 and "say which compute capability to build for" in err
    status, out, err = run("build", bundle, "--flavour", "tensorrt-rtx", "--sm", "8.6")
    assert status == 0
    assert re.search(r"tiny +fp16 +built +built in [\d.]+ s, at most [\d.]+ GB of memory, [\d.]+ MB; not verified", out)
    assert "engines will be built but not verified: no NVIDIA GPU" in err
    assert "the engine was built for SM 8.6 but not verified: this machine has no GPU" in err
    warned = err
    (folder,) = engines_of(bundle).iterdir()
    assert folder.name.startswith("tensorrt-rtx-1.") and "-sm86-" in folder.name
    record = msgspec.json.decode((folder / "engine.json").read_bytes(), type=EngineRecord)
    assert record.key.target.gpu == record.key.target.driver == "" and record.verification is None
    manifest = bundles_module.load(bundle).manifest
    assert record.key.onnx_sha256 == manifest.files["encoders/tiny.fp16.onnx"].sha256
    plain = json.loads(run("build", bundle, "--flavour", "tensorrt-rtx", "--sm", "8.9", "--dry-run", "-f", "json")[1])
    assert plain[0]["detail"] == "stale: compute capability (SM): built for 8.6, here 8.9"
    status, _, err = run("build", bundle, "--flavour", "tensorrt-rtx", "--sm", "9.0")
    assert status == 5 and "does not build for SM 9.0" in err
    status, _, err = run("verify", bundle, "--device", "tensorrt", "--flavour", "tensorrt-rtx")
    assert status == 5 and "no NVIDIA GPU" in err
    status, _, err = run("build", bundle, "--flavour", "tensorrt-rtx", "--sm", "9.0", "--dry-run")
    assert status == 5 and "does not build for SM 9.0" in err
    assert f"on the device, run  edge-reclass verify {bundle} --device tensorrt" in warned
    assert [path.name for path in engines_of(bundle).iterdir()] == [folder.name]


def test_the_tiny_transformer_is_a_network(tmp_path: Path) -> None:
    """ONNX Runtime runs both precisions, and they agree: what is built above is a graph that means something."""
    import onnxruntime

    audio = np.random.default_rng(0).standard_normal((3, WINDOW)).astype(np.float32)
    got = []
    for half in (False, True):
        model = model_bytes(tiny_transformer(half=half), expect=GraphInterface.encoder(WINDOW, DIM))
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        got.append(session.run(None, {"waveform": audio})[0])
    assert np.abs(got[0] - got[1]).max() < 0.02 * np.abs(got[0]).max()


def test_boosted_trees_as_a_head(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="trees are fitted with the extra [fit]")
    from edge_reclass_learn.fit.trees import fit_trees

    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    rows = random.normal(0, 1, (60, 20)) + 2.0 * labels[:, None]
    graph = fit_trees(rows, labels, np.ones(60), 3, strength=0.1).graph()
    # The builder makes engines of encoders: the same graph under their names.
    for values, name in ((graph.graph.input, "waveform"), (graph.graph.output, "embedding")):
        old, values[0].name = values[0].name, name
        for node in graph.graph.node:
            for names in (node.input, node.output):
                names[:] = [name if one == old else one for one in names]
    compiled(model_bytes(graph, expect=GraphInterface.encoder(20, 3)), tmp_path, width=20, dim=3)
