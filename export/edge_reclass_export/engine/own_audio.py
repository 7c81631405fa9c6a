"""The middle of one of the user's own audio files, at an encoder's rate."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio import MAX_RATE, Decoder, ExcerptSpec, Limits, Resampler, resampled_length
from edge_reclass.errors import TrackError, UsageError


def read_middle(file: Path, seconds: float, rate: int) -> NDArray[np.float32]:
    """Up to ``seconds`` from the middle of ``file``, mono float32[samples] at ``rate`` Hz.

    Raises:
        UsageError: the file of ``--reference-audio`` cannot be decoded.
    """
    raw = np.empty(math.ceil(seconds * MAX_RATE) + 2, np.float32)
    try:
        decoded = Decoder(Limits(MAX_RATE)).decode(file, [ExcerptSpec("center", seconds)], raw)
    except TrackError as error:
        raise UsageError(f"--reference-audio {file}: {error}") from error
    samples = decoded.segments[0].samples
    resampled = np.empty(resampled_length(len(samples), decoded.rate, rate) + 2, np.float32)
    return resampled[: Resampler().resample(samples, decoded.rate, rate, resampled)]
