"""Downmix to mono by matrix product, in blocks of fixed size; whether the mix cancels; resampling while reading."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import soxr
from numpy.typing import NDArray

from edge_reclass.audio.runs import Run
from edge_reclass.errors import Status, TrackError

BLOCK_VALUES: Final = 2 * 65_536
"""Interleaved float32 values in one block: 65 536 stereo frames, 512 KiB, whatever the channel count."""

MAX_CHANNELS: Final = 1024
"""As many as libsndfile accepts."""

MAX_PEAK: Final = 1e6
"""Floating-point files may exceed full scale, but 120 dB above it is no audio, and its power overflows."""

CANCELS: Final = 1 / 8
"""A mix with less than this of the energy that uncorrelated channels would give is one that cancels.

For two channels that is 1/16 of the mean channel's energy, -12 dB. Channels that are silent, equal or unrelated
do not come near it, however many they are.
"""

INAUDIBLE: Final = 1e-10
"""Mean square (full scale 1) of all channels together under which it does not matter whether the mix cancels."""

FULL_SCALE: Final[dict[np.dtype[Any], float]] = {
    np.dtype(np.uint8): 2.0**7,
    np.dtype(np.int16): 2.0**15,
    np.dtype(np.int32): 2.0**31,
    np.dtype(np.int64): 2.0**63,
    np.dtype(np.float32): 1.0,
    np.dtype(np.float64): 1.0,
}
"""Sample types that are taken, and the value that stands for 1.0 in each; uint8 is centred on 128."""


class UnsoundError(TrackError):
    """Samples that are none: ``corrupt``, wherever else the track may be sound."""

    def __init__(self, message: str) -> None:
        super().__init__(Status.CORRUPT, message)


class MonoWriter:
    """Mixes blocks to mono into a caller's buffer; owns the blocks and the weights.

    A track is one or more passes (``begin_pass``), a pass one or more segments (``begin`` … ``finish``). Counts
    are in samples of the file; what is written is resampled where the rate asked for is another.
    """

    def __init__(self) -> None:
        self.block: NDArray[np.float32] = np.empty(BLOCK_VALUES, dtype=np.float32)
        self._mono: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        self._weights: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        self._out: NDArray[np.float32] = self.block[:0]
        self._stream: Any = None
        self._at = self._wanted = self._got = self._gap = self._collected = 0
        self._channels = 1
        self.spoilt: list[Run] = []
        """Where in the segment, in samples of the file, something could not be decoded; not ordered."""
        self.begin_pass()

    def begin_pass(self, channel: int | None = None, survey: bool = False) -> None:
        """Start to write a track's segments: the mix, or one channel alone.

        A ``survey`` finds each channel's energy as well, which takes longer.
        """
        self._channel = channel
        self._survey = survey
        self._mixed = 0
        self._energy = self._mix_energy = self._mix_sum = 0.0
        self._channel_energies: NDArray[np.float64] = np.zeros(0)
        self._channel_sums: NDArray[np.float64] = np.zeros(0)

    def begin(self, out: NDArray[np.float32], wanted: int, file_rate: int, rate: int) -> None:
        """Start a segment of ``wanted`` samples of the file; they go to ``out``, float32 [n], C-contiguous.

        ``out`` holds what they become at ``rate``, or a sample or two less.
        """
        self._out = out
        self._at = self._got = self._gap = self._collected = 0
        self.spoilt.clear()
        self._wanted = wanted
        self._rates = rate, file_rate
        self._stream = None
        self.source(file_rate)

    def source(self, file_rate: int) -> None:
        """From here on, samples of the file come at ``file_rate`` Hz."""
        self._mix_collected()
        self._flush()
        rate = self._rates[0]
        if file_rate != rate:
            self._stream = soxr.ResampleStream(file_rate, rate, 1, dtype="float32", quality="HQ")
            if not len(self._mono):
                self._mono = np.empty(BLOCK_VALUES, dtype=np.float32)

    @property
    def missing(self) -> int:
        """Samples of the file that are still to be written or appended."""
        return self._wanted - self._got - self._collected

    @property
    def done(self) -> int:
        """Samples of the file that were written or appended, gaps included."""
        return self._got + self._collected

    @property
    def direct(self) -> bool:
        """True if a reader of mono samples may put them into ``target``."""
        return self._stream is None

    def frames(self, count: int, channels: int) -> NDArray[np.float32]:
        """A view [m, channels] for a reader to fill, m ≤ count, as many as fit into one block."""
        m = min(count, max(1, BLOCK_VALUES // channels))
        return self.block[: m * channels].reshape(m, channels)

    def target(self, count: int) -> NDArray[np.float32]:
        """Where the next ``count`` samples go, for a reader of mono files; ``commit`` comes next."""
        return self._out[self._at : self._at + count]

    def commit(self, count: int) -> None:
        """Count ``count`` mono samples that a reader put into ``target``."""
        mono = self._out[self._at : self._at + count]
        _check_sound(mono, _energy(mono))
        self._at += count
        self._got += count

    def mix(self, frames: NDArray[np.float32]) -> None:
        """Append the mean of the channels of ``frames`` (float32 [m, channels], m ≤ missing)."""
        count, channels = frames.shape
        direct = self._stream is None
        mono = self._out[self._at : self._at + count] if direct else self._mono[:count]
        # Non-finite input shows in the energy; numpy need not warn of it as well.
        with np.errstate(invalid="ignore", over="ignore"):
            if channels == 1:
                mono[:] = frames[: len(mono), 0]
            elif self._channel is not None and self._channel < channels:
                mono[:] = frames[: len(mono), self._channel]
            else:
                if len(self._weights) != channels:
                    self._weights = np.full(channels, 1.0 / channels, dtype=np.float32)
                np.dot(frames[: len(mono)], self._weights, out=mono)
            energy = _energy(frames.reshape(-1, order="A"))
            _check_sound(frames, energy)
            if channels > 1 and self._channel is None:
                self._energy += energy
                self._mixed += count
                self._mix_energy += channels * channels * _energy(mono)
                self._mix_sum += channels * float(mono.sum())
                if self._survey:
                    self._note_channels(frames)
        self._got += count
        if direct:
            self._at += len(mono)
        else:
            self._resample(mono, last=False)

    def append(self, samples: NDArray[Any]) -> None:
        """Collect ``samples``, [m, channels] of a type in FULL_SCALE, m ≤ missing, and mix them by the block.

        For readers that give many small pieces; not to be used together with ``frames``.
        """
        channels = samples.shape[1]
        if channels != self._channels:
            self._mix_collected()
            self._channels = channels
        capacity = BLOCK_VALUES // channels
        done = 0
        while done < len(samples):
            part = samples[done : done + capacity - self._collected]
            if len(part) == capacity and part.dtype == np.float32:
                self.mix(part)
            else:
                at = self._collected * channels
                block = self.block[at : at + len(part) * channels].reshape(len(part), channels)
                _to_float(part, block)
                self._collected += len(part)
                if self._collected == capacity:
                    self._mix_collected()
            done += len(part)

    def gap(self, count: int) -> None:
        """Write ``count`` zeros (count ≤ missing) in the place of samples that cannot be decoded."""
        self._mix_collected()
        self.note_gap(self._got, count)
        while count:
            step = min(count, BLOCK_VALUES)
            if self._stream is None:
                zeros = self._out[self._at : self._at + step]
                zeros[:] = 0.0
                self._at += len(zeros)
            else:
                self._mono[:step] = 0.0
                self._resample(self._mono[:step], last=False)
            self._got += step
            count -= step

    def note_gap(self, at: int, count: int) -> None:
        """Count ``count`` samples, from ``at`` in the segment on, as filling for what cannot be decoded."""
        self._gap += count
        self.note_spoilt(at, count)

    def note_spoilt(self, at: int, count: int) -> None:
        """Note that what is written of ``count`` samples, from ``at`` in the segment on, is not to be trusted."""
        self.spoilt.append((max(0, at), min(at + count, self._wanted)))

    def finish(self) -> tuple[NDArray[np.float32], int, int]:
        """What has been written since ``begin``; samples of the file that are gaps in it; and that lack at its end."""
        self._mix_collected()
        self._flush()
        return self._out[: self._at], self._gap, self._wanted - self._got

    def loss(self) -> bool:
        """True if the mix of this pass may cancel; sure only after a survey, which leaves out the channels' DC."""
        mix = self._mix_energy - self._mix_sum**2 / max(1, self._mixed)
        energy = self._energy
        if self._survey:
            energy = float(self._spread().sum())
        return energy > INAUDIBLE * self._mixed and mix < CANCELS * energy

    def loudest(self) -> int:
        """Index of the channel with the most energy without its mean; after a survey."""
        return int(np.argmax(self._spread()))

    def _spread(self) -> NDArray[np.float64]:
        return self._channel_energies - self._channel_sums**2 / max(1, self._mixed)

    def _note_channels(self, frames: NDArray[np.float32]) -> None:
        channels = frames.shape[1]
        if len(self._channel_energies) < channels:
            grown = np.zeros((2, channels))
            grown[:, : len(self._channel_energies)] = self._channel_energies, self._channel_sums
            self._channel_energies, self._channel_sums = grown
        self._channel_energies[:channels] += [float(np.dot(frames[:, c], frames[:, c])) for c in range(channels)]
        self._channel_sums[:channels] += [float(frames[:, c].sum()) for c in range(channels)]

    def _mix_collected(self) -> None:
        count, self._collected = self._collected, 0
        if count:
            self.mix(self.block[: count * self._channels].reshape(count, self._channels))

    def _flush(self) -> None:
        if self._stream is not None:
            self._resample(self._mono[:0], last=True)
            self._stream = None

    def _resample(self, mono: NDArray[np.float32], last: bool) -> None:
        part = self._stream.resample_chunk(mono, last=last)[: len(self._out) - self._at]
        self._out[self._at : self._at + len(part)] = part
        self._at += len(part)


def _energy(samples: NDArray[np.float32]) -> float:
    """Σ x²; not finite where a sample is not, or is so large that it is none."""
    return float(np.dot(samples, samples))


def _check_sound(samples: NDArray[np.float32], energy: float) -> None:
    """UnsoundError for NaN, infinity, and values beyond MAX_PEAK; ``energy`` is that of the samples."""
    if energy < MAX_PEAK**2:
        return  # no single sample can be larger then
    low, high = float(np.min(samples)), float(np.max(samples))
    peak = max(-low, high)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UnsoundError("the excerpt holds NaN or infinite samples")
    if peak > MAX_PEAK:
        raise UnsoundError(f"the excerpt has a peak of {peak:.1e}, full scale is 1")


def _to_float(samples: NDArray[Any], out: NDArray[np.float32]) -> None:
    """Scale by full scale. int32 and float64 are rounded once, as libsndfile does; the others are exact."""
    if samples.dtype == np.float32:
        out[:] = samples
        return
    wide = np.float64 if samples.dtype.itemsize > 2 else np.float32
    # What overflows becomes infinite and is found by the energy.
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(samples, wide(1.0 / FULL_SCALE[samples.dtype]), out=out, casting="same_kind")
    if samples.dtype == np.uint8:
        out -= np.float32(1.0)


def check_out(out: NDArray[np.float32]) -> None:
    """ValueError unless ``out`` is a writeable, C-contiguous float32 vector."""
    if out.dtype != np.float32 or out.ndim != 1 or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"out has to be a writeable, contiguous float32 vector, got {out.dtype} of shape {out.shape}")
