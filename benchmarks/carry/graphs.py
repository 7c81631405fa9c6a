"""Makes the graphs to carry: bundles of untrained encoders of full size, without their weights.

    python graphs.py FOLDER [--tiny]

Run on a machine with torch and the export's packages. FOLDER gets ``cascade.tar.xz`` (features, MERT-95M, OpenJMLA) and
``mert-330m.tar.xz``. Each is exported by edge-reclass itself, emptied, filled by the rule of ``gpu_check.filled``, and
then given reference vectors (ONNX Runtime on this CPU) and exit thresholds of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from onnx import numpy_helper

from edge_reclass.backends import PlainFile, open_backend
from edge_reclass.bundle import (
    MANIFEST,
    Bundle,
    ExcerptEntry,
    WaveformEntry,
    content_entry,
    load,
    load_reference,
    manifest_text,
)
from edge_reclass.features import FEATURE_COUNT
from edge_reclass.host import usable_cpus
from edge_reclass_bench.synthetic.build import FEATURE_STAGE, Runner, export_process, export_stages, set_policies
from edge_reclass_bench.synthetic.calibration import CalibrationTracks
from edge_reclass_export.bundle_writer import put_encoder
from edge_reclass_export.heads import random_head
from edge_reclass_export.recipes.hubert import MertConfig, random_weights
from edge_reclass_export.recipes.mert import RANDOM_SEED, MertOptions, mert_encoder
from edge_reclass_export.recipes.mert_checkpoint import MertSource, Preprocessing
from edge_reclass_export.recipes.openjmla import one_window, openjmla_encoder, random_source
from edge_reclass_export.recipes.openjmla_checkpoint import random_weights as openjmla_weights
from edge_reclass_export.recipes.openjmla_model import Geometry
from gpu_check.filled import LARGE, TENSORS, bytes_of, empty, fill, made

BUNDLES: Mapping[str, Sequence[str]] = {"cascade": ("mert-95m", "openjmla"), "mert-330m": ("mert-330m",)}
_SMALL = {"conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
_TINY: Mapping[str, MertConfig | Geometry] = {
    # The two kinds of transformer: norms behind the sums as in 95M, before them as in 330M.
    "mert-95m": MertConfig(48, 2, 4, 96, **_SMALL),  # type: ignore[arg-type]
    "mert-330m": MertConfig(64, 2, 4, 128, do_stable_layer_norm=True, attention_relax=32.0, **_SMALL),  # type: ignore[arg-type]
    "openjmla": Geometry(width=128, layers=2, hidden=192, patch=16, rows=5, columns=6),
}
_TINY_TRACKS = 4


def make(folder: Path, tiny: bool) -> list[Path]:
    """The archives, one per bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    archives = []
    for name, stages in BUNDLES.items():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            root, tracks = Path(scratch) / name, CalibrationTracks(number=_TINY_TRACKS if tiny else 16)
            run: Runner = _export_tiny if tiny else export_process
            export_stages(stages, root, tracks, run, partial(print, file=sys.stderr))
            _enter_tensors(root, _emptied(root))
            archive = folder / f"{name}.tar.xz"
            _pack(root, archive)
            full = Path(scratch) / "filled"
            fill(archive, full)
            _refer(full)
            set_policies(full, [FEATURE_STAGE, *stages], tracks)
            for file in (MANIFEST, *(f"reference/{stage}.npz" for stage in stages)):
                shutil.copyfile(full / file, root / file)
            _pack(root, archive)
            print(f"{archive}: {archive.stat().st_size / 2**20:.2f} MiB for {_megabytes(full):.0f} MB of graphs")
        archives.append(archive)
    return archives


def _export_tiny(arguments: Sequence[str]) -> None:
    """Stands in for ``edge-reclass export``, which has no small networks; the features' stage is exported by it."""
    if arguments[0] == "fma-mlp":
        return export_process(arguments)
    stage, root = arguments[arguments.index("--stage") + 1], Path(arguments[-1])
    size, seconds = _TINY[stage], 0.5
    if isinstance(size, Geometry):
        encoder, excerpt = openjmla_encoder(random_source(size)), one_window(size.window_samples)
    else:
        provenance = {"random_init": True, "source": f"untrained weights, seed {RANDOM_SEED}", "licence": "none"}
        weights, preprocessing = random_weights(size, RANDOM_SEED), Preprocessing(size.sample_rate, do_normalize=True)
        encoder = mert_encoder(
            MertSource(size, preprocessing, weights, provenance), MertOptions(window_seconds=seconds)
        )
        excerpt = ExcerptEntry(start="center", seconds=6 * seconds)
    head = random_head(encoder.dim, len(load(root).manifest.genres))
    put_encoder(root, encoder, stage=stage, head=head, head_source={"random_init": True}, excerpt=excerpt)
    return None


def _emptied(root: Path) -> dict[str, tuple[Sequence[int], float]]:
    """Take the weights out of every graph of the bundle; gives their shapes and deviations."""
    bundle = load(root)
    tensors: dict[str, tuple[Sequence[int], float]] = {}
    for stage in bundle.manifest.stages:
        weights = _weights(stage.name, bundle.manifest.provenance.get(stage.name) or {})
        for file in stage.encoder.graph_files.values():
            _empty_file(root / file, weights, tensors)
        head = [numpy_helper.to_array(tensor) for tensor in onnx.load(root / stage.head.file).graph.initializer]
        large = [values for values in head if values.size > 2 * FEATURE_COUNT]  # not the scaler's, which were measured
        own = {f"{stage.head.file}:{i}": _forms(values, "") for i, values in enumerate(large)}
        _empty_file(root / stage.head.file, own, tensors)
    return {name: (shape, 0.0 if name.endswith("cls_token") else each) for name, (shape, each) in tensors.items()}


def _enter_tensors(root: Path, tensors: Mapping[str, tuple[Sequence[int], float]]) -> None:
    """Into a file of the bundle; what the cascade answered with other weights goes."""
    content, manifest = json.dumps(tensors).encode("ascii"), load(root).manifest
    (root / TENSORS).write_bytes(content)
    files = {name: entry for name, entry in manifest.files.items() if name != manifest.reference}
    if manifest.reference is not None:
        (root / manifest.reference).unlink()
    manifest = msgspec.structs.replace(manifest, files={**files, TENSORS: content_entry(content)}, reference=None)
    (root / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")


Forms = list[tuple[np.ndarray[Any, Any], dict[str, Any]]]
"""What a graph may hold of a weight, and the rule that makes it; the weight itself is the first."""


def _empty_file(path: Path, weights: Mapping[str, Forms], tensors: dict[str, tuple[Sequence[int], float]]) -> None:
    known = {
        bytes_of(values, dtype): {"of": name, **rule}
        for name, forms in weights.items()
        for values, rule in forms
        for dtype in (np.float32, np.float16)
    }
    model = onnx.load(path)
    for name in empty(model, known):
        weight = weights[name][0][0]
        tensors[name] = (list(weight.shape), float(f"{weight.std():.4g}"))
    for tensor in model.graph.initializer:
        if tensor.raw_data and np.prod(tensor.dims) > 1 << 18:
            raise SystemExit(f"{path}: {tensor.name}, {list(tensor.dims)}, is made of no weight that is known")
    path.write_bytes(model.SerializeToString())


def _forms(values: np.ndarray[Any, Any], name: str, factor: float = 1.0) -> Forms:
    rules: list[dict[str, Any]] = [{}]
    if values.ndim == 2:
        rules.append({"transposed": True})
    if name.endswith("q_proj.weight"):
        rules += [{**rule, "factor": factor} for rule in rules]
    return [(made(values, rule), rule) for rule in rules]


def _weights(stage: str, provenance: Mapping[str, Any]) -> dict[str, Forms]:
    """The weights that the export has drawn, by the checkpoint's names behind the stage's."""
    network, factor = provenance.get("network"), 1.0
    if network is None:
        return {}
    if provenance["recipe"] == "openjmla":
        sizes = {key: network[key] for key in ("width", "layers", "hidden", "patch", "rows", "columns")}
        found = dict(openjmla_weights(Geometry(**sizes), RANDOM_SEED).tensors)
    else:
        config = msgspec.convert(network, MertConfig)
        factor = (config.hidden_size // config.num_attention_heads) ** -0.5  # folded into the query's projection
        found = random_weights(config, RANDOM_SEED)
    drawn = {name: tensor.numpy() for name, tensor in found.items() if tensor.numel() >= LARGE and tensor.std() > 0}
    forms = {f"{stage}:{name}": _forms(values, name, factor) for name, values in drawn.items()}
    if "cls_token" in found:  # a small graph holds the sum of both; filled, the token is 0
        for dtype in (torch.float32, torch.float16):
            total = found["pos_embed"].to(dtype).clone()
            total[:, :1] += found["cls_token"].to(dtype)
            forms[f"{stage}:pos_embed"].append((total.numpy().astype(np.float32), {}))
    return forms


def _refer(root: Path) -> None:
    """Replace the reference vectors by what the filled graphs give here; untrained weights are called by their rule."""
    bundle = load(root)
    provenance, files = {**bundle.manifest.provenance}, {**bundle.manifest.files}
    for stage in bundle.manifest.stages:
        entry = stage.encoder
        if isinstance(entry, WaveformEntry) and entry.reference is not None:
            old = load_reference(root / entry.reference)
            content = _answers(bundle, entry, old)
            (root / entry.reference).write_bytes(content)
            files[entry.reference] = content_entry(content)
            known = {**provenance[stage.name], "source": "untrained weights by the rule of gpu_check.filled"}
            known.pop("parity", None)  # of other weights
            provenance[stage.name] = known
    manifest = msgspec.structs.replace(bundle.manifest, provenance=provenance, files=files)
    (root / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")


def _answers(bundle: Bundle, entry: WaveformEntry, old: Any) -> bytes:
    inputs = old.inputs()
    with open_backend("cpu", threads=usable_cpus()) as device:
        graph = device.open_graph(
            PlainFile(bundle.path(entry.files["fp32"])),
            input_name="waveform",
            output_name="embedding",
            width=entry.window_samples,
            output_width=entry.dim,
            max_batch=1,
        )
        rows = []
        for row in inputs:
            graph.input[0] = row
            rows.append(graph.run(1)[0].copy())
        graph.close()
    return bytes(replace(old, embedding=np.stack(rows)).to_bytes())


def _pack(root: Path, archive: Path) -> None:
    with tarfile.open(archive, "w:xz", preset=9) as tar:
        for file in sorted(path for path in root.rglob("*") if path.is_file()):
            tar.add(file, str(file.relative_to(root)))


def _megabytes(root: Path) -> float:
    return sum(path.stat().st_size for path in root.rglob("*.onnx")) / 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the check's script")
    chosen = parser.parse_args()
    torch.set_grad_enabled(False)
    make(chosen.folder, chosen.tiny)
