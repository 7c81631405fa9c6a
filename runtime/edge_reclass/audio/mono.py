"""Downmix to mono by matrix product, with peak and finiteness, in blocks of fixed size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio.excerpt import Decoded, ExcerptSpec, Limits, locate_union
from edge_reclass.errors import TrackError

__all__ = [
    "BLOCK_VALUES",
    "FULL_SCALE",
    "MAX_CHANNELS",
    "SHORT_SECONDS",
    "MonoWriter",
    "check_out",
    "mix_excerpt",
]

BLOCK_VALUES: Final = 2 * 65_536
"""Interleaved float32 values in one block: 65 536 stereo frames, 512 KiB, whatever the channel count."""

MAX_CHANNELS: Final = 1024
"""As many as libsndfile accepts."""

MAX_PEAK: Final = 1e6
"""Floating-point files may exceed full scale, but 120 dB above it is no audio, and its power overflows."""

SHORT_SECONDS: Final = 0.1
"""A decoded excerpt may be this much shorter than the container promises."""

FULL_SCALE: Final[dict[np.dtype[Any], float]] = {
    np.dtype(np.uint8): 2.0**7,
    np.dtype(np.int16): 2.0**15,
    np.dtype(np.int32): 2.0**31,
    np.dtype(np.float32): 1.0,
    np.dtype(np.float64): 1.0,
}
"""Sample types that are taken, and the value that stands for 1.0 in each; uint8 is centred on 128."""


class MonoWriter:
    """Mixes blocks to mono into a caller's buffer and keeps the peaks; owns one block and the weights."""

    def __init__(self) -> None:
        self.block: NDArray[np.float32] = np.empty(BLOCK_VALUES, dtype=np.float32)
        self._weights: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        self._out: NDArray[np.float32] = self.block[:0]
        self.written = 0
        self._collected = 0
        self._channels = 1
        self._peak = 0.0
        self._channel_peak = 0.0

    def begin(self, out: NDArray[np.float32]) -> None:
        """Start an excerpt of len(out) samples; they go to ``out``, float32 [n], C-contiguous."""
        self._out = out
        self.written = 0
        self._collected = 0
        self._peak = 0.0
        self._channel_peak = 0.0

    @property
    def missing(self) -> int:
        """Samples that are still to be written or appended."""
        return len(self._out) - self.written - self._collected

    @property
    def begun(self) -> bool:
        """True once anything has been written or appended."""
        return self.written + self._collected > 0

    def frames(self, count: int, channels: int) -> NDArray[np.float32]:
        """A view [m, channels] for a reader to fill, m ≤ count, as many as fit into one block."""
        m = min(count, max(1, BLOCK_VALUES // channels))
        return self.block[: m * channels].reshape(m, channels)

    def target(self, count: int) -> NDArray[np.float32]:
        """Where the next ``count`` samples go, for a reader of mono files; ``written_direct`` comes next."""
        return self._out[self.written : self.written + count]

    def written_direct(self, count: int) -> None:
        """Take note of ``count`` mono samples that a reader put into ``target``."""
        peak = _peak(self._out[self.written : self.written + count])
        self._note(peak, peak)
        self.written += count

    def mix(self, frames: NDArray[np.float32]) -> None:
        """Append the mean of the channels of ``frames`` (float32 [m, channels], m ≤ missing)."""
        count, channels = frames.shape
        mono = self._out[self.written : self.written + count]
        if channels == 1:
            mono[:] = frames[:, 0]
        else:
            if len(self._weights) != channels:
                self._weights = np.full(channels, 1.0 / channels, dtype=np.float32)
            # Non-finite input is found by the peaks, below; numpy need not warn of it as well.
            with np.errstate(invalid="ignore", over="ignore"):
                np.dot(frames, self._weights, out=mono)
        self._note(_peak(mono), _peak(frames))
        self.written += count

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

    def _mix_collected(self) -> None:
        count, self._collected = self._collected, 0
        if count:
            self.mix(self.block[: count * self._channels].reshape(count, self._channels))

    def finish(self, rate: int, channels: int, start: int, total: int) -> Decoded:
        """What has been written since ``begin``.

        TrackError ``corrupt`` if that is short by more than SHORT_SECONDS, or by more than half of the
        excerpt. Less is let pass: containers round durations (wma to the millisecond), and decoders of lossy
        formats may keep back their last frame.
        """
        self._mix_collected()
        expected = len(self._out)
        if self.missing > min(SHORT_SECONDS * rate, expected / 2):
            raise TrackError(
                "corrupt",
                f"only {self.written} of the {expected} samples from sample {start} of {total} on can be "
                "decoded: truncated or damaged",
            )
        return Decoded(
            samples=self._out[: self.written],
            rate=rate,
            channels=channels,
            start=start,
            total=total,
            peak=self._peak,
            channel_peak=self._channel_peak,
        )

    def _note(self, peak: float, channel_peak: float) -> None:
        if not (math.isfinite(peak) and math.isfinite(channel_peak)):
            raise TrackError("corrupt", "the excerpt holds NaN or infinite samples")
        if channel_peak > MAX_PEAK:
            raise TrackError("corrupt", f"the excerpt has a peak of {channel_peak:.1e}, full scale is 1")
        self._peak = max(peak, self._peak)
        self._channel_peak = max(channel_peak, self._channel_peak)


def _to_float(samples: NDArray[Any], out: NDArray[np.float32]) -> None:
    """Scale by full scale. int32 and float64 are rounded once, as libsndfile does; the others are exact."""
    if samples.dtype == np.float32:
        out[:] = samples
        return
    wide = np.float64 if samples.dtype.itemsize > 2 else np.float32
    # What overflows becomes infinite and is found by the peaks.
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(samples, wide(1.0 / FULL_SCALE[samples.dtype]), out=out, casting="same_kind")
    if samples.dtype == np.uint8:
        out -= np.float32(1.0)


def _peak(samples: NDArray[np.float32]) -> float:
    """max |sample| without a temporary; NaN where a sample is NaN; 0 without samples."""
    if samples.size == 0:
        return 0.0
    low, high = float(np.min(samples)), float(np.max(samples))
    # Either both are NaN or neither is.
    return high if math.isnan(high) else max(-low, high)


def check_out(out: NDArray[np.float32]) -> None:
    """ValueError unless ``out`` is a writeable, C-contiguous float32 vector."""
    if out.dtype != np.float32 or out.ndim != 1 or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"out has to be a writeable, contiguous float32 vector, got {out.dtype} of shape {out.shape}")


def mix_excerpt(
    samples: NDArray[Any],
    rate: int,
    specs: Sequence[ExcerptSpec],
    out: NDArray[np.float32],
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Decoded:
    """The union of the excerpts of a track that is in memory, mixed to mono into ``out``.

    samples: [n] or [n, channels], float32, float64 (full scale 1.0), int16, int32 or uint8 (full scale of the
        type), native byte order, any strides
    rate: Hz
    out: float32 [capacity]

    ValueError for another type or shape. TrackError ``empty`` (no samples), ``unsupported`` (rate outside
    8 kHz to the limits' ``max_rate``), ``too_long`` (more than the limits allow or ``out`` holds),
    ``corrupt`` (NaN or infinite samples).
    """
    check_out(out)
    if samples.dtype not in FULL_SCALE:
        raise ValueError(
            f"samples of type {samples.dtype}, expected native {', '.join(str(dtype) for dtype in FULL_SCALE)}"
        )
    if samples.ndim == 1:
        samples = samples[:, np.newaxis]
    if samples.ndim != 2 or not 1 <= samples.shape[1] <= MAX_CHANNELS:
        raise ValueError(f"samples of shape {samples.shape}, expected [n] or [n, channels], channels ≤ {MAX_CHANNELS}")
    total, channels = samples.shape
    if total == 0:
        raise TrackError("empty", "no samples")
    limits.check_rate(rate)
    start, count = locate_union(total, rate, specs)
    limits.check_fits(count, rate, len(out))
    writer = MonoWriter()
    writer.begin(out[:count])
    writer.append(samples[start : start + count])
    return writer.finish(rate, channels, start, total)
