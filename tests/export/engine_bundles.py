"""Bundles with real small graphs in two precisions, heads that tell them apart, and reference vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper

import bundles
from edge_reclass.backends.ort.cpu import OrtBackend
from edge_reclass.bundle.loading import file_entry
from edge_reclass.bundle.reference import CASES, ReferenceVectors, synthesise

RATE, WINDOW, DIM = 16_000, 8_000, 8
SEED = 5


def write_head(path: Path, width: int, seed: int) -> None:
    """A linear head whose weights are large enough that most inputs have a clear genre."""
    random = np.random.default_rng(seed)
    weights = {
        "W": random.normal(0, 2.0, (width, len(bundles.GENRES))).astype(np.float32),
        "b": np.zeros(len(bundles.GENRES), np.float32),
    }
    nodes = [helper.make_node("Gemm", ["features", "W", "b"], ["logits"])]
    bundles.write_graph(path, ("features", width), ("logits", len(bundles.GENRES)), nodes, weights)


def embeddings(onnx: Path) -> np.ndarray:
    """What an encoder's file gives for the reference inputs, float32[cases, dim]."""
    graph = OrtBackend(1).open_graph(
        onnx, input_name="waveform", output_name="embedding", width=WINDOW, output_width=DIM, max_batch=len(CASES)
    )
    graph.input[:] = synthesise(RATE, WINDOW, SEED)
    return graph.run(len(CASES)).copy()


def engine_bundle(root: Path, *names: str, precisions: tuple[str, ...] = ("fp32", "fp16"), fma: bool = False) -> Path:
    """A bundle with a waveform stage per name (default: one, ``mert``); each head takes all the stages so far.

    With ``fma``, an fma518 stage stands first and is an input of every head. The excerpt is 2 s: four windows.
    """
    names = names or ("mert",)
    root.mkdir(parents=True, exist_ok=True)
    stages = [bundles.fma_stage()] if fma else []
    for name in names:
        inputs = [stage["name"] for stage in stages] + [name]
        files = {precision: f"encoders/{name}.{precision}.onnx" for precision in precisions}
        encoder = {"files": files, "reference": f"reference/{name}.npz"}
        stages.append(bundles.waveform_stage(name, RATE, WINDOW, DIM, encoder=encoder, head={"inputs": inputs}))
    bundles.make_bundle(root, stages, excerpt={"start": "center", "seconds": 2.0})
    (root / "reference").mkdir()
    for i, name in enumerate(names):
        width = DIM * (i + 1) + 518 * fma
        write_head(root / f"heads/{name}.onnx", width, seed=i + 3)
        first = root / f"encoders/{name}.{precisions[0]}.onnx"
        vectors = ReferenceVectors(RATE, WINDOW, SEED, embeddings(first))
        (root / f"reference/{name}.npz").write_bytes(vectors.to_bytes())
    refresh_hashes(root)
    return root


def refresh_hashes(root: Path) -> None:
    """Enter every file of the bundle in the manifest as it is now."""
    files = sorted(path for folder in ("encoders", "heads", "reference") for path in (root / folder).glob("*"))
    entries = {str(path.relative_to(root)): file_entry(path) for path in files}
    bundles.edit_manifest(root, files={name: {"sha256": e.sha256, "bytes": e.bytes} for name, e in entries.items()})
