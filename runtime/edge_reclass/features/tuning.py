"""Tuning: how far the music lies from A = 440 Hz, in hundredths of a semitone.

librosa's ``estimate_tuning``: spectral peaks between 150 and 4000 Hz above a tenth of their frame's maximum, refined by
a parabola; of those at least as strong as the median peak of the whole excerpt, the commonest deviation from the
nearest semitone. FMA's features need it twice: of |S| at the true rate for the constant-Q transform, and of |S|² on a
22 050 Hz axis for chroma_stft. Local maxima of |S| and |S|² are the same bins, so they are looked for once.

A peak is kept as one uint32: the float32 magnitude with its seven lowest bits replaced by the deviation (0…99). These
order like the magnitudes (to 2⁻¹⁶), so that the stronger half is one selection in place.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_reclass.features.framing import DEFAULT_SR, F32, FRAME

U32: TypeAlias = NDArray[np.uint32]
Index: TypeAlias = NDArray[np.intp]

PEAKS_PER_FRAME: Final = (96, 32)
"""Room per frame, on average over a block, for the peaks of |S| and of |S|². Music has about 20 and 5 (seen: 56 and 13
at most over a block); noise can have more, and then every k-th peak of the block is kept."""

_LOWEST_HZ: Final = 150.0
_HIGHEST_HZ: Final = 4000.0
_STEPS: Final = 100
_DEVIATION_BITS: Final = np.uint32(127)
_TENTH: Final = np.float32(0.1)
_HALF: Final = np.float32(0.5)
_A0_HZ: Final = np.float32(440.0 / 16)
_CHUNK: Final = 1 << 16


def _bin_range(rate: float) -> tuple[int, int]:
    hz = np.arange(FRAME // 2 + 1) * (rate / FRAME)
    inside = np.flatnonzero((hz >= _LOWEST_HZ) & (hz < min(_HIGHEST_HZ, rate / 2)))
    return int(inside[0]), int(inside[-1]) + 1


class PeakStore:
    """Peaks of one excerpt, block after block, in memory that the caller owns.

    ``memory`` is a flat uint32 array with ``per_frame`` values for each frame; a block of frames owns its own part of
    it, so that blocks may be filled in any order and by any thread.
    """

    def __init__(self, memory: U32, per_frame: int, block: int, frames: int) -> None:
        self._memory = memory
        self._slot = per_frame * block
        self._counts = np.zeros(-(-frames // block), dtype=np.intp)

    def put(self, block: int, peaks: U32) -> None:
        """Keep the peaks of block number ``block``; where they do not fit, every k-th of them."""
        room = min(self._slot, len(self._memory) - block * self._slot)
        stride = max(1, -(-len(peaks) // room))
        kept = peaks[::stride]
        start = block * self._slot
        self._memory[start : start + len(kept)] = kept
        self._counts[block] = len(kept)

    def tuning(self) -> float:
        """The estimate in semitones, from -0.5 to 0.49; 0 where there is no peak. Reorders the peaks: call it once."""
        total = 0
        for block, count in enumerate(self._counts.tolist()):
            start = block * self._slot
            self._memory[total : total + count] = self._memory[start : start + count]
            total += count
        if total == 0:
            return 0.0
        peaks = self._memory[:total]
        median = total // 2
        peaks.partition(median)
        votes = np.zeros(_STEPS, dtype=np.intp)
        for start in range(median, total, _CHUNK):
            stronger = peaks[start : min(start + _CHUNK, total)] & _DEVIATION_BITS
            votes += np.bincount(stronger, minlength=_STEPS)
        return float(np.linspace(-0.5, 0.5, _STEPS + 1)[np.argmax(votes)])


class PeakFinder:
    """Finds the peaks of a block of frames for both tuning estimates at once, for one sampling rate."""

    def __init__(self, rate: float) -> None:
        self._true = _bin_range(rate)
        self._at_default_sr = _bin_range(DEFAULT_SR)
        self._first = min(self._true[0], self._at_default_sr[0])
        self._last = max(self._true[1], self._at_default_sr[1])
        self._hz_per_bin = rate / FRAME

    @property
    def bins(self) -> slice:
        """Bins that :meth:`find` looks at: the range of both estimates and one neighbour to either side."""
        return slice(self._first - 1, self._last + 1)

    def find(self, magnitude: F32, maximum: F32, masks: NDArray[np.bool_]) -> tuple[U32, U32]:
        """Packed peaks of |S| (true rate) and of |S|² (22 050 Hz axis).

        ``magnitude`` is [frames, bins] contiguous, the columns that :attr:`bins` names; ``maximum`` [frames] is the
        largest value of each whole frame; ``masks`` is scratch of at least [2, frames * bins].
        """
        frames, width = magnitude.shape
        flat = magnitude.reshape(-1)
        peak, mask = (scratch[: len(flat)] for scratch in masks)
        # Higher than the left neighbour and no lower than the right one: it rises to here, and not beyond.
        rises = mask[:-1]
        np.greater(flat[1:], flat[:-1], out=rises)
        np.greater(rises[:-1], rises[1:], out=peak[1:-1])
        strong = np.greater(magnitude, (maximum * _TENTH)[:, None], out=mask.reshape(frames, width))
        # The outermost columns have no neighbour in their own frame.
        strong[:, 0] = False
        strong[:, -1] = False
        peak &= mask
        place = np.flatnonzero(peak)
        frame = place // width
        bin_number = place - frame * width
        bin_number += self._first - 1
        strength = flat.take(place)
        squared = strength * strength
        above = squared > (maximum * maximum * _TENTH).take(frame)
        low, high = self._at_default_sr
        above &= (bin_number >= low) & (bin_number < high)
        of_default = np.flatnonzero(above)
        low, high = self._true
        of_true = np.flatnonzero((bin_number >= low) & (bin_number < high))
        place -= 1
        left = flat.take(place)
        place += 2
        right = flat.take(place)
        true = _pack(
            left.take(of_true), strength.take(of_true), right.take(of_true), bin_number.take(of_true), self._hz_per_bin
        )
        left, right = left.take(of_default), right.take(of_default)
        bin_number = bin_number.take(of_default)
        return true, _pack(left * left, squared.take(of_default), right * right, bin_number, DEFAULT_SR / FRAME)


def _pack(left: F32, middle: F32, right: F32, bin_number: Index, hz_per_bin: float) -> U32:
    # float64 where librosa's compiled loop has it.
    curve = (left + right) - middle.astype(np.float64) * 2
    slope = right - left
    slope *= _HALF
    # Where the parabola's top would lie more than a bin away (or there is none), the peak stays on its bin.
    curve[np.abs(slope) >= np.abs(curve)] = np.inf
    shift = (slope / curve).astype(np.float32)
    strength = slope * shift
    strength *= -_HALF
    strength += middle
    hertz = bin_number - shift
    hertz *= hz_per_bin
    # float32 from here on, as in librosa: the histogram's edges see its rounding.
    semitone = hertz.astype(np.float32)
    semitone /= _A0_HZ
    np.log2(semitone, out=semitone)
    semitone *= np.float32(12)
    deviation = semitone - np.floor(semitone + _HALF)
    step = (deviation.astype(np.float64) * _STEPS + _STEPS / 2).astype(np.uint32)
    np.minimum(step, _STEPS - 1, out=step)
    packed = strength.view(np.uint32)
    packed &= ~_DEVIATION_BITS
    packed |= step
    return packed
