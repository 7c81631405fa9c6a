"""Resample with soxr HQ streams into the caller's buffer."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from edge_reclass.audio.mono import check_out

CHUNK: Final = 65_536
"""Samples that go in, or come out, of one call of soxr, whichever is more."""

MAX_STREAMS: Final = 8
"""Rate pairs whose filters are kept; a library has few."""


def resampled_length(n: int, rate_in: int, rate_out: int) -> int:
    """Samples that ``n`` samples become: n · rate_out / rate_in, rounded half up, as libsoxr does it."""
    return (2 * n * rate_out + rate_in) // (2 * rate_in)


class Resampler:
    """Resamples mono signals, chunk by chunk; keeps the filters of the last MAX_STREAMS rate pairs.

    The result is bit-identical to ``soxr.resample(samples, rate_in, rate_out)`` (quality HQ), but no array
    longer than CHUNK samples is made. Not for use by several threads at once.
    """

    def __init__(self) -> None:
        self._stream = lru_cache(MAX_STREAMS)(_stream)

    def resample(self, samples: NDArray[np.float32], rate_in: int, rate_out: int, out: NDArray[np.float32]) -> int:
        """Resample float32 [n] into the beginning of ``out``, which must not overlap; equal rates copy.

        Returns:
            resampled_length(n, rate_in, rate_out).

        Raises:
            ValueError: a rate is not positive, ``samples`` is not a float32 vector, or ``out`` is too short.
        """
        if rate_in <= 0 or rate_out <= 0:
            raise ValueError(f"rates have to be positive, got {rate_in} and {rate_out} Hz")
        if samples.dtype != np.float32 or samples.ndim != 1:
            raise ValueError(f"samples have to be a float32 vector, got {samples.dtype} of shape {samples.shape}")
        check_out(out)
        n = len(samples)
        length = resampled_length(n, rate_in, rate_out)
        if length > len(out):
            raise ValueError(f"{n} samples at {rate_in} Hz become {length} at {rate_out} Hz, but out holds {len(out)}")
        if rate_in == rate_out:
            out[:n] = samples
            return n
        if n == 0:
            return 0
        stream = self._stream(rate_in, rate_out)
        stream.clear()  # before use and not after, so that a call that was interrupted leaves nothing behind
        chunk = max(1, CHUNK * rate_in // max(rate_in, rate_out))
        written = 0
        for begin in range(0, n, chunk):
            part = stream.resample_chunk(samples[begin : begin + chunk], last=begin + chunk >= n)
            end = written + len(part)
            if end > length:
                raise RuntimeError(f"soxr gave more than the {length} samples that {n} samples become")
            out[written:end] = part
            written = end
        if written != length:
            raise RuntimeError(f"soxr gave {written} samples where {n} samples become {length}")
        return written


def _stream(rate_in: int, rate_out: int) -> soxr.ResampleStream:
    return soxr.ResampleStream(rate_in, rate_out, 1, dtype="float32", quality="HQ")
