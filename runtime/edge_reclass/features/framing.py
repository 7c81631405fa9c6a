"""The frame grid that all 518 features share: 2048 samples, a hop of 512, centred on the hop."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

FRAME: Final = 2048
"""Samples of one frame, and length of its Fourier transform."""
HOP: Final = 512
"""Samples between two frames."""
BINS: Final = FRAME // 2 + 1
"""Bins of one frame's spectrum."""
DEFAULT_SR: Final = 22050.0
"""Rate in Hz that FMA's script assumes, whatever the true one is, for every feature computed from ``S=`` without
``sr=``: centroid, bandwidth, contrast, rolloff and chroma_stft (librosa's default)."""

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]


def frame_count(samples: int) -> int:
    """Frames of an excerpt of ``samples`` samples: centred frames, so one more than whole hops."""
    return 1 + samples // HOP


def hann(length: int) -> F64:
    """Periodic Hann window of ``length`` samples, float64."""
    window: F64 = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    return window
