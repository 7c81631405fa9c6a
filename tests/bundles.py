"""Small bundles made on the spot, with real ONNX graphs, for tests that need a cascade but not its accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_reclass.bundle import CertificateEntry, CountEntry, Manifest, digests, graph_digests
from edge_reclass.bundle.loading import MANIFEST, file_entry
from edge_reclass.bundle.strict_yaml import dump_yaml

GENRES = ("Alpha", "Beta", "Gamma")
POLICY = {"vote": "soft", "steps": [{"after": "fma", "weights": {"fma": 1.0}}]}


def write_graph(
    path: Path, source: tuple[str, int], target: tuple[str, int], nodes: list[Any], weights: Mapping[str, Any]
) -> None:
    """Write float32[batch, width] → float32[batch, width] with opset 18 and IR 10."""
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(source[0], TensorProto.FLOAT, ["batch", source[1]])],
        [helper.make_tensor_value_info(target[0], TensorProto.FLOAT, ["batch", target[1]])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def write_encoder(path: Path, window: int, dim: int) -> None:
    """An encoder whose embedding is log(1 + 1000 × mean |x|) over each of ``dim`` equal parts of the window."""
    nodes = [
        helper.make_node("Abs", ["waveform"], ["magnitude"]),
        helper.make_node("Reshape", ["magnitude", "shape"], ["parts"]),
        helper.make_node("ReduceMean", ["parts", "axis"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "thousand"], ["scaled"]),
        helper.make_node("Add", ["scaled", "one"], ["shifted"]),
        helper.make_node("Log", ["shifted"], ["embedding"]),
    ]
    weights = {
        "shape": np.array([0, dim, window // dim], np.int64),
        "axis": np.array([2], np.int64),
        "thousand": np.array(1000, np.float32),
        "one": np.array(1, np.float32),
    }
    write_graph(path, ("waveform", window), ("embedding", dim), nodes, weights)


def write_head(
    path: Path, width: int, classes: int = len(GENRES), seed: int = 0, bias: Sequence[float] | None = None
) -> None:
    """A linear head with small random weights; ``bias`` makes one genre win for sure."""
    random = np.random.default_rng(seed)
    weights = {
        "W": random.normal(0, 1e-6, (width, classes)).astype(np.float32),
        "b": np.asarray(bias if bias is not None else [0.0] * classes, np.float32),
    }
    nodes = [helper.make_node("Gemm", ["features", "W", "b"], ["logits"])]
    write_graph(path, ("features", width), ("logits", classes), nodes, weights)


def write_range(path: Path, weights: NDArray[np.float32]) -> None:
    """A range test whose distance is the weighted sum of the embedding."""
    node = helper.make_node("MatMul", ["features", "W"], ["distance"])
    write_graph(path, ("features", len(weights)), ("distance", 1), [node], {"W": weights[:, None]})


def relist(root: Path) -> None:
    """Bring sizes and hashes in the manifest up to date with the files that lie there."""
    files = sorted(file.relative_to(root).as_posix() for file in root.rglob("*.*") if file.name != MANIFEST)
    edit_manifest(root, files=entries(root, files))


def entries(root: Path, files: Iterable[str]) -> dict[str, Any]:
    """Sizes and hashes of files in a bundle, as the manifest keeps them."""
    return {file: msgspec.to_builtins(file_entry(root / file)) for file in files}


def waveform_stage(name: str, rate: int = 16_000, window: int = 16_000, dim: int = 8, **extra: Any) -> dict[str, Any]:
    """The manifest entry of a stage made by :func:`make_bundle`."""
    encoder = {
        "kind": "waveform",
        "rate": rate,
        "window_samples": window,
        "hop_samples": window,
        "dim": dim,
        "files": {"fp32": f"encoders/{name}.fp32.onnx"},
    }
    return _stage(name, encoder, **extra)


def fma_stage(name: str = "fma", rate: int | str = 22_050, **extra: Any) -> dict[str, Any]:
    """The manifest entry of an fma518 stage."""
    return _stage(name, {"kind": "fma518", "rate": rate}, **extra)


def _stage(name: str, own: dict[str, Any], encoder: Any = (), head: Any = (), **extra: Any) -> dict[str, Any]:
    own_head = {"file": f"heads/{name}.onnx", "inputs": [name]}
    return {"name": name, "encoder": own | dict(encoder), "head": own_head | dict(head), **extra}


def make_bundle(
    root: Path,
    stages: Sequence[dict[str, Any]],
    *,
    biases: Mapping[str, Sequence[float]] | None = None,
    accept: float = 0.9,
    **manifest: Any,
) -> Path:
    """Write a bundle with ``stages``; the default policy ``ladder`` asks them in order, soft vote, last one alone."""
    dims = {s["name"]: s["encoder"].get("dim", 518) for s in stages}
    files: list[str] = []
    for i, stage in enumerate(stages):
        encoder, head = stage["encoder"], stage["head"]
        if encoder["kind"] == "waveform":
            for file in encoder["files"].values():
                write_encoder(root / file, encoder["window_samples"], encoder["dim"])
                files.append(file)
        width = sum(dims[name] for name in head["inputs"])
        write_head(root / head["file"], width, seed=i, bias=(biases or {}).get(stage["name"]))
        files.append(head["file"])
        if "range" in head:
            write_range(
                root / head["range"]["file"], np.zeros(sum(dims[name] for name in head["range"]["inputs"]), np.float32)
            )
            files.append(head["range"]["file"])
    steps: list[dict[str, Any]] = [{"after": s["name"], "weights": {s["name"]: 1.0}, "accept": accept} for s in stages]
    del steps[-1]["accept"]
    plain = {
        "format": 1,
        "name": "test",
        "genres": list(GENRES),
        "excerpt": {"start": "center", "seconds": 4.0},
        "stages": list(stages),
        "policies": {"ladder": {"vote": "soft", "steps": steps}},
        "default_policy": "ladder",
    } | manifest
    plain["files"] = plain.get("files") or entries(root, files)
    (root / MANIFEST).write_text(dump_yaml(plain), encoding="utf-8")
    return root


def certificate(manifest: Manifest, ran: Mapping[str, str] | None = None) -> CertificateEntry:
    """One of the default policy, as if 300 tracks had been counted on what ``ran`` says of the stages."""
    now, ran = digests(manifest, manifest.default_policy), dict(ran or {})
    count = CountEntry(
        ran=ran,
        graphs=graph_digests(manifest, ran),
        tracks=300,
        mistakes=7,
        p_value=0.02,
        tested=30,
        data_sha256="0" * 64,
        seed=0,
        program="edge-reclass 0",
        unsure=4,
    )
    return CertificateEntry(
        policy=manifest.default_policy,
        risk="disagreement",
        epsilon=0.05,
        delta=0.1,
        policy_sha256=now.policy,
        heads_sha256=now.heads,
        encoders_sha256=now.encoders,
        chosen_on="0123456789",
        assumes=["exchangeable tracks"],
        counts=[count],
    )


def edit_manifest(root: Path, **changes: Any) -> None:
    """Replace keys of a bundle's manifest; None removes a key."""
    file = root / MANIFEST
    plain = yaml.safe_load(file.read_text(encoding="utf-8")) | changes
    file.write_text(dump_yaml({k: v for k, v in plain.items() if v is not None}), encoding="utf-8")


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest as plain data."""
    plain: dict[str, Any] = yaml.safe_load((root / MANIFEST).read_text(encoding="utf-8"))
    return plain


def rehash(root: Path) -> None:
    """Enter the files that the manifest lists as they are now: what somebody does who changes a bundle on purpose."""
    edit_manifest(root, files=entries(root, read_manifest(root)["files"]))


def random_heads(root: Path, stages: Sequence[dict[str, Any]], spread: float, dim: int = 8) -> None:
    """Heads of three genres in place of the bundle's own, whose answers depend on what the stages hear."""
    for i, stage in enumerate(stages):
        width = dim * len(stage["head"]["inputs"])
        weights = np.random.default_rng(i + 5).normal(0, spread / width, (width, 3)).astype(np.float32)
        node = helper.make_node("MatMul", ["features", "W"], ["logits"])
        write_graph(root / stage["head"]["file"], ("features", width), ("logits", 3), [node], {"W": weights})
    rehash(root)
