"""Excerpts of tracks as arrays: what features and encoders are measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio import MAX_RATE, Decoder, ExcerptSpec, Limits, Resampler, resampled_length
from edge_reclass.errors import TrackError


class Clip(NamedTuple):
    """A track's number and file, its excerpt as mono float32 samples in [-1, 1], and their rate in Hz."""

    track: int
    path: Path
    samples: NDArray[np.float32]
    rate: int


def decoded(files: Sequence[Path], seconds: float = 30.0) -> Iterator[Clip]:
    """The middle ``seconds`` of every file that can be decoded; a library has others, and they are passed over."""
    decoder = Decoder(Limits(MAX_RATE, seconds))
    buffer = np.empty(int(seconds * MAX_RATE) + 1, np.float32)
    for track, file in enumerate(files):
        try:
            found = decoder.decode(file, [ExcerptSpec("center", seconds)], buffer)
        except TrackError:
            continue
        yield Clip(track, file, found.segments[0].samples.copy(), found.rate)


def at_rate(clip: Clip, rate: int) -> NDArray[np.float32]:
    """The clip's samples at ``rate`` Hz."""
    out = np.empty(resampled_length(len(clip.samples), clip.rate, rate), np.float32)
    Resampler().resample(clip.samples, clip.rate, rate, out)
    return out
