"""Stage ``export``: untrained encoders of full size → ONNX, by the project's own export, into one bundle.

The bundle also gets a first stage on the 518 features, so that it is a cascade.
"""

from __future__ import annotations

import resource
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_reclass.bundle import MANIFEST, load
from edge_reclass.features import fma518
from edge_reclass_export.bundle_writer import put_encoder
from edge_reclass_export.heads import RANDOM_WIDTHS, random_head
from edge_reclass_export.recipe import FMA_GENRES
from edge_reclass_export.recipes.fma_mlp_stage import read_fma_mlp
from gpu_check.geometry import Encoder, encoders
from gpu_check.journal import Journal
from gpu_check.settings import Settings
from gpu_check.tracks import music

__all__ = ["FMA", "run"]

FMA = "fma"
_RATE = 44_100


def run(settings: Settings, journal: Journal) -> None:
    """See the module."""
    wanted = encoders(settings)
    present = {stage.name for stage in load(settings.bundle).manifest.stages} if _exists(settings.bundle) else set()
    for name in (FMA, *(encoder.name for encoder in wanted)):
        if name not in present:  # the record outlived the bundle
            journal.items.pop(name, None)
    journal.do(FMA, lambda: _features_stage(settings), expect=15.0)
    for encoder in wanted:
        found = journal.do(encoder.name, partial(_export, settings.bundle, encoder), expect=encoder.seconds)
        if found:
            print(f"  {encoder.name}: {found['seconds']} s, {found['megabytes']} MB, peak {found['peak_gb']} GB")


def _exists(bundle: Path) -> bool:
    return (bundle / MANIFEST).is_file()


def _export(root: Path, encoder: Encoder) -> dict[str, Any]:
    began, cpu = time.perf_counter(), time.process_time()
    made = encoder.export()
    put_encoder(
        root,
        made,
        stage=encoder.name,
        head=random_head(encoder.dim, len(FMA_GENRES)),
        head_source={"random_init": True},
        genres=FMA_GENRES,
        excerpt=encoder.excerpt,
    )
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "megabytes": {
            path.name: round(path.stat().st_size / 1e6, 1)
            for path in sorted((root / "encoders").glob(f"{encoder.name}.*.onnx"))
        },
        "parity_on_the_exporting_cpu": made.provenance["parity"],
        "flops_per_window": encoder.flops,
    }


def _features_stage(settings: Settings) -> dict[str, Any]:
    """A head with random weights behind a scaler that fits the made tracks, so that its answers differ."""
    seconds, tracks = (4.0, 4) if settings.tiny else (30.0, 8)
    rows = np.stack(
        [fma518(np.ascontiguousarray(music(seconds, _RATE, seed)[:, 0]), _RATE) for seed in range(tracks)]
    ).astype(np.float64)
    random = np.random.default_rng(518)
    state = {}
    for number, (inputs, outputs) in enumerate(pairwise((rows.shape[1], *RANDOM_WIDTHS, len(FMA_GENRES)))):
        weight = random.standard_normal((outputs, inputs)) / np.sqrt(inputs)
        state[f"net.{3 * number}.weight"] = torch.from_numpy(weight.astype(np.float32))
        state[f"net.{3 * number}.bias"] = torch.zeros(outputs)
    checkpoint = {
        "model": state,
        "scaler_mean": rows.mean(axis=0),
        "scaler_scale": rows.std(axis=0) + 0.05 * np.abs(rows).max(axis=0) + 1e-3,
        "genres": list(FMA_GENRES),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random_model.pth"
        torch.save(checkpoint, path)
        excerpt = f"{seconds:g}"
        read_fma_mlp(path, settings.bundle, stage=FMA, features="librosa-0.11", excerpt=excerpt).put(settings.bundle)
    return {"seconds_of_excerpt": seconds, "scaled_on_tracks": tracks}
