"""Samples that are in memory already, as a source of excerpts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio.decoded import Decoded
from edge_reclass.audio.excerpt import ExcerptSpec, Limits
from edge_reclass.audio.mono import FULL_SCALE, MAX_CHANNELS, MonoWriter, check_out
from edge_reclass.audio.reading import Attempt, Choose, attempt, read_on
from edge_reclass.audio.runs import Run
from edge_reclass.audio.track import OpenTrack
from edge_reclass.errors import Status, TrackError


class _MemorySource:
    def __init__(self, samples: NDArray[Any], rate: int) -> None:
        self._samples = samples
        self.rate = rate
        self.total, self.channels = int(samples.shape[0]), int(samples.shape[1])
        self.packets = self.bad_packets = 0
        self.error: str | None = None

    def read(self, start: int, writer: MonoWriter) -> int | None:
        writer.append(self._samples[start : start + writer.missing])
        return None

    def measure(self, writer: MonoWriter) -> int:
        del writer
        return int(self.total)


def mix_excerpt(
    samples: NDArray[Any],
    rate: int,
    specs: Sequence[ExcerptSpec],
    out: NDArray[np.float32],
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Decoded:
    """The excerpts of a track that is in memory, mixed to mono into ``out``.

    Args:
        samples: [n] or [n, channels], float32, float64 (full scale 1.0), int16, int32, int64 or uint8 (full scale of
            the type), native byte order, any strides.
        rate: Hz.
        specs: the excerpts, at least one.
        out: float32 [capacity].
        limits: what is accepted.

    Raises:
        ValueError: another type or shape.
        TrackError: ``empty`` (no samples), ``unsupported`` (rate outside 4 kHz to 12.288 MHz), ``too_long`` (more than
            the limits allow or ``out`` holds), ``corrupt`` (NaN or infinite samples).
    """
    return _InMemory(samples, rate, specs, out, limits).first(None).result()


def open_samples(
    samples: NDArray[Any],
    rate: int,
    specs: Sequence[ExcerptSpec],
    out: NDArray[np.float32],
    limits: Limits = Limits(),  # noqa: B008 - frozen
    choose: Choose | None = None,
) -> OpenTrack:
    """As :func:`mix_excerpt`, but mix only what is chosen, and the rest when it is asked for; see ``Decoder.open``."""
    return OpenTrack(_InMemory(samples, rate, specs, out, limits), choose)


class _InMemory:
    """Samples in memory as a ``track.Readable``."""

    def __init__(
        self,
        samples: NDArray[Any],
        rate: int,
        specs: Sequence[ExcerptSpec],
        out: NDArray[np.float32],
        limits: Limits,
    ) -> None:
        check_out(out)
        self._source = _MemorySource(_checked(samples), rate)
        self._specs, self._out, self._limits = specs, out, limits
        self._writer = MonoWriter()

    def first(self, choose: Choose | None) -> Attempt:
        return attempt(
            [self._source], self._specs, self._out, self._writer, self._limits, locate_again=False, choose=choose
        )

    def more(self, first: Attempt, runs: Sequence[Run]) -> Attempt:
        return read_on(first.sources, first, runs, self._out, self._writer, self._limits)


def _checked(samples: NDArray[Any]) -> NDArray[Any]:
    """``samples`` as [n, channels]."""
    if samples.dtype not in FULL_SCALE:
        raise ValueError(
            f"samples of type {samples.dtype}, expected native {', '.join(str(dtype) for dtype in FULL_SCALE)}"
        )
    if samples.ndim == 1:
        samples = samples[:, np.newaxis]
    if samples.ndim != 2 or not 1 <= samples.shape[1] <= MAX_CHANNELS:
        raise ValueError(f"samples of shape {samples.shape}, expected [n] or [n, channels], channels ≤ {MAX_CHANNELS}")
    if len(samples) == 0:
        raise TrackError(Status.EMPTY, "no samples")
    return samples
