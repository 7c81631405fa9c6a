"""``--reference-audio``: windows of the user's own files among an encoder's reference vectors.

They go into the bundle as 16-bit samples, because no other machine could make them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_reclass.errors import UsageError
from edge_reclass_export.engine.own_audio import read_middle
from edge_reclass_export.errors import ParityError
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.parity import open_graph, reference_vectors

_STEPS = 32_768


def read_windows(files: Sequence[Path], rate: int, samples: int) -> NDArray[np.int16]:
    """One window from the middle of each file, int16[files, samples].

    Raises ``UsageError`` where a file cannot be decoded or is shorter than a window.
    """
    windows = [_window(file, rate, samples) for file in files]
    return np.stack(windows) if windows else np.empty((0, samples), np.int16)


def with_own_audio(encoder: ExportedEncoder, files: Sequence[Path], windows: NDArray[np.int16]) -> ExportedEncoder:
    """``encoder`` with ``windows``, which ``read_windows`` took from ``files``, added to its reference vectors.

    Raises ``ParityError`` where an embedding is not finite.
    """
    if not files:
        return encoder
    made = encoder.reference or reference_vectors(encoder.model, rate=encoder.rate, samples=encoder.window_samples)
    run = open_graph(encoder.model)
    answers = np.concatenate([run(row[None].astype(np.float32) / np.float32(_STEPS))[0] for row in windows])
    if not np.isfinite(answers).all():
        raise ParityError("the exported graph gives NaN or infinity for one of the --reference-audio files")
    reference = replace(
        made,
        embedding=np.concatenate([made.embedding, answers]),
        extra_inputs=windows,
        extra_names=tuple(file.name for file in files),
    )
    return replace(encoder, reference=reference)


def _window(file: Path, rate: int, samples: int) -> NDArray[np.int16]:
    resampled = read_middle(file, (samples + 2) / rate, rate)  # rounding in the resampler may take a sample
    if len(resampled) < samples:
        raise UsageError(
            f"--reference-audio {file}: expected at least {samples / rate:.2f} s, got {len(resampled) / rate:.2f} s"
        )
    grid = np.clip(np.rint(resampled[:samples] * _STEPS), -_STEPS, _STEPS - 1)
    window: NDArray[np.int16] = grid.astype(np.int16)
    return window
