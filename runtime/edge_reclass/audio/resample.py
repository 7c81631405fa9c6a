"""Resample with soxr HQ streams into the caller's buffer, in one go or tile by tile.

Of one stream's samples none is to the bit what it is where the stream begins elsewhere. What is read in parts is
therefore resampled in tiles, each for itself, which are the same whatever else was read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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


_TILE_SECONDS: Final = 1.0
"""About how long a tile is: a longer one has less margin, a shorter one less that nobody asked for."""

_MARGIN: Final = 256
"""Samples at the lower rate around a tile; soxr's HQ filter is shorter on either side."""


def resampled_length(n: int, rate_in: int, rate_out: int) -> int:
    """Samples that ``n`` samples become: n · rate_out / rate_in, rounded half up, as libsoxr does it."""
    return (2 * n * rate_out + rate_in) // (2 * rate_in)


@dataclass(frozen=True)
class Tiles:
    """How a signal is cut for resampling: tile k holds the samples from k · ``count`` on, at the rate asked for.

    ``step`` and ``margin`` are samples at the signal's own rate; both are whole numbers of periods of the two rates.
    """

    rate_in: int
    rate_out: int
    step: int
    count: int
    margin: int

    @classmethod
    def of(cls, rate_in: int, rate_out: int) -> Tiles:
        """The tiles for two rates in Hz."""
        common = math.gcd(rate_in, rate_out)
        period = rate_in // common
        periods = max(1, round(_TILE_SECONDS * common))
        margin = 0 if rate_in == rate_out else -(-_MARGIN * rate_in // min(rate_in, rate_out))
        return cls(rate_in, rate_out, periods * period, periods * rate_out // common, -(-margin // period) * period)

    def numbers(self, start: int, stop: int) -> range:
        """The tiles that hold the samples ``start`` to ``stop``, at the rate asked for."""
        return range(start // self.count, -(-stop // self.count))

    def source(self, numbers: range) -> tuple[int, int]:
        """The samples that these tiles are made of, at the signal's own rate; those that it does not have are not."""
        return max(0, numbers.start * self.step - self.margin), numbers.stop * self.step + self.margin


class Resampler:
    """Resamples mono signals, chunk by chunk; keeps the filters of the last MAX_STREAMS rate pairs.

    The result is bit-identical to ``soxr.resample(samples, rate_in, rate_out)`` (quality HQ), but no array
    longer than CHUNK samples is made. Where the length is a whole number and a half, soxr may give one sample less than
    ``resampled_length`` (5512 from 6000 samples, 12 to 11.025 kHz): the last one is repeated. Not for use by several
    threads at once.
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
        return self._resample(samples, rate_in, rate_out, out[:length], 0)

    def resample_tile(self, samples: NDArray[np.float32], tiles: Tiles, number: int, out: NDArray[np.float32]) -> None:
        """Resample one tile of float32 [n] to where it lies in ``out``, float32 [resampled_length(n, …)]."""
        low, high = tiles.source(range(number, number + 1))
        at = number * tiles.count
        skip = at - low * tiles.rate_out // tiles.rate_in
        self._resample(samples[low:high], tiles.rate_in, tiles.rate_out, out[at : at + tiles.count], skip)

    def _resample(
        self, samples: NDArray[np.float32], rate_in: int, rate_out: int, out: NDArray[np.float32], skip: int
    ) -> int:
        """Fill ``out`` with what ``samples`` become, from the sample ``skip`` on."""
        n, length = len(samples), resampled_length(len(samples), rate_in, rate_out)
        if rate_in == rate_out:
            out[:] = samples[skip : skip + len(out)]
            return n
        if n == 0:
            return 0
        stream = self._stream(rate_in, rate_out)
        stream.clear()  # before use and not after, so that a call that was interrupted leaves nothing behind
        chunk = max(1, CHUNK * rate_in // max(rate_in, rate_out))
        written = 0
        latest = np.float32(0.0)
        for begin in range(0, n, chunk):
            part = stream.resample_chunk(samples[begin : begin + chunk], last=begin + chunk >= n)
            end = written + len(part)
            if end > length + 1:
                raise RuntimeError(f"soxr gave more than the {length} samples that {n} samples become")
            if len(part):
                latest = part[-1]
            first, last = max(0, written - skip), min(len(out), end - skip)
            if first < last:
                out[first:last] = part[first + skip - written : last + skip - written]
            written = end
        if abs(written - length) > 1:
            raise RuntimeError(f"soxr gave {written} samples where {n} samples become {length}")
        if written < length and written - skip < len(out):
            out[written - skip] = latest
        return length


def _stream(rate_in: int, rate_out: int) -> soxr.ResampleStream:
    return soxr.ResampleStream(rate_in, rate_out, 1, dtype="float32", quality="HQ")
