"""The loop that one writes first: for every file load it with librosa, compute, open the models, ask them, close them.

It does what the whole ensemble of a bundle does for a file: every stage, each with its own ``librosa.load`` at its
rate, the features by librosa, a new ONNX Runtime session for encoder and head.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import librosa
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edge_reclass.audio import level, normalise
from edge_reclass.bundle import Bundle, EncoderEntry, StageEntry
from edge_reclass.cascade import fill_window, genre_map, windows
from edge_reclass_bench.peers.librosa_fma518 import librosa_fma518

__all__ = ["per_file"]


def per_file(bundle: Bundle, path: Path) -> NDArray[np.float64]:
    """The confidence of every stage of ``bundle``, in its order, for one file: float64[stages]."""
    embeddings: dict[str, NDArray[np.float32]] = {}
    confidences = []
    for stage in bundle.manifest.stages:
        embeddings[stage.name] = _embedding(bundle, stage, path)
        head = onnxruntime.InferenceSession(bundle.path(stage.head.file), providers=["CPUExecutionProvider"])
        features = np.concatenate([embeddings[name] for name in stage.head.inputs])[None]
        logits = head.run(None, {"features": features})[0][0].astype(np.float64) / stage.head.temperature
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        read = genre_map(stage.head, bundle.manifest.genres)
        confidences.append(probabilities.max() if read is None else max(read(probabilities)[0]))
    return np.array(confidences)


def _embedding(bundle: Bundle, stage: StageEntry, path: Path) -> NDArray[np.float32]:
    samples, rate = _load(bundle, stage, path)
    encoder = stage.encoder
    window = encoder.window_samples or len(samples)
    starts = windows(len(samples), window, encoder.hop_samples or window, encoder.short)
    rows = np.empty((len(starts), window), np.float32)
    for row, start in zip(rows, starts, strict=True):
        fill_window(samples, start, encoder.short, row)
        if stage.loudness is not None:
            normalise(row, level(row, rate), stage.loudness)
    mean: NDArray[np.float32]
    if not encoder.graph_files:
        vectors = np.stack([np.nan_to_num(librosa_fma518(row, rate).values) for row in rows])
        mean = vectors.mean(axis=0).astype(np.float32)
    else:
        mean = _run(bundle, encoder, rows).mean(axis=0)
    return mean


def _run(bundle: Bundle, encoder: EncoderEntry, rows: NDArray[np.float32]) -> Any:
    model = onnxruntime.InferenceSession(bundle.path(encoder.graph_files["fp32"]), providers=["CPUExecutionProvider"])
    return model.run(["embedding"], {"waveform": rows})[0]


def _load(bundle: Bundle, stage: StageEntry, path: Path) -> tuple[NDArray[np.float32], int]:
    excerpt = stage.excerpt or bundle.manifest.excerpt
    rate = None if stage.encoder.rate == "native" else stage.encoder.rate
    if excerpt.full or excerpt.seconds is None:
        samples, loaded = librosa.load(path, sr=rate)
    else:
        rest = max(0.0, librosa.get_duration(path=path) - excerpt.seconds)
        offset = rest / 2 if excerpt.start in ("center", None) else min(float(excerpt.start), rest)
        samples, loaded = librosa.load(path, sr=rate, offset=offset, duration=excerpt.seconds)
    return samples, int(loaded)
