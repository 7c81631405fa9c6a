"""The embeddings of every stage of a bundle, straight from the encoders, for a folder of clips → one npz file.

``embeddings.py FOLDER OUTPUT [WINDOWS]``, with the starter bundle, where edge_reclass[cpu,codecs] is installed. One row
per clip and stage, under the name ``CLIP/STAGE``; versions and machine under ``about``. It goes past the cascade: every
stage is computed for every clip, with one thread, from the first WINDOWS of the excerpt (all of them by default) in one
batch.
"""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from edge_reclass import load_bundle
from edge_reclass.audio import Decoder, ExcerptSpec, Resampler, resampled_length
from edge_reclass.backends import open_backend
from edge_reclass.bundle import Fma518Entry, StageEntry
from edge_reclass.bundle.loading import Bundle, starter_path
from edge_reclass.cascade.windowing import fill_window, windows
from edge_reclass.features import fma518

CAPACITY = 200 * 48_000
PACKAGES = ("numpy", "scipy", "soundfile", "soxr", "av", "onnxruntime")


def main() -> None:
    """Write the embeddings and say what was written."""
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    most = int(sys.argv[3]) if len(sys.argv) > 3 else None
    bundle = load_bundle(starter_path())
    decoder, room = Decoder(), np.empty(CAPACITY, np.float32)
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    about = f"{platform.machine()}, Python {platform.python_version()}, {versions}"
    rows: dict[str, np.ndarray] = {"about": np.array(about)}
    for clip in sorted(folder.iterdir()):
        for stage in bundle.manifest.stages:
            excerpt = stage.excerpt or bundle.manifest.excerpt
            spec = ExcerptSpec(start=excerpt.start or 0.0, seconds=excerpt.seconds)
            decoded = decoder.decode(clip, [spec], room)
            rows[f"{clip.name}/{stage.name}"] = embedding(bundle, stage, decoded.samples, decoded.rate, most)
    np.savez(output, **rows)
    print(f"{len(rows) - 1} embeddings on {about}")


def embedding(bundle: Bundle, stage: StageEntry, samples: np.ndarray, rate: int, most: int | None) -> np.ndarray:
    """float32[dim]: the mean over the first ``most`` windows of the excerpt; over all, it is what the head takes."""
    encoder = stage.encoder
    target = rate if encoder.rate == "native" else encoder.rate
    at_rate = np.empty(resampled_length(len(samples), rate, target), np.float32)
    Resampler().resample(samples, rate, target, at_rate)
    window, hop = encoder.window_samples or len(at_rate), encoder.hop_samples or len(at_rate)
    starts = windows(len(at_rate), window, hop, encoder.short)[:most]
    batch = np.empty((len(starts), window), np.float32)
    for row, start in zip(batch, starts, strict=True):
        fill_window(at_rate, start, encoder.short, row)
    if isinstance(encoder, Fma518Entry):
        return np.mean([fma518(row, target) for row in batch], axis=0, dtype=np.float64).astype(np.float32)
    with open_backend("cpu", threads=1) as backend:
        graph = backend.open_graph(
            bundle.path(encoder.files["fp32"]),
            input_name="waveform",
            output_name="embedding",
            width=window,
            output_width=encoder.dim,
            max_batch=len(batch),
        )
        graph.input[:] = batch
        result = graph.run(len(batch)).mean(axis=0, dtype=np.float64).astype(np.float32)
        graph.close()
    return result


if __name__ == "__main__":
    main()
