"""Which samples of a track are looked at, and the record of what was decoded. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge_reclass.errors import TrackError

__all__ = [
    "MAX_RATE",
    "MIN_RATE",
    "Decoded",
    "ExcerptSpec",
    "Limits",
    "locate",
    "locate_union",
]

MIN_RATE: Final = 8_000
MAX_RATE: Final = 192_000
"""Sample rates in Hz, both included, of the tracks that are accepted."""


@dataclass(frozen=True)
class ExcerptSpec:
    """The part of a track that is looked at.

    ``start`` is in seconds from the beginning, or ``"center"`` for the middle of the track; ``seconds`` is
    the length, or None for the full track (``start`` is then of no effect). ValueError for a negative or
    infinite start and for a length that is not positive and finite.
    """

    start: float | Literal["center"] = "center"
    seconds: float | None = 30.0

    def __post_init__(self) -> None:
        if self.start != "center" and not (
            isinstance(self.start, int | float) and math.isfinite(self.start) and self.start >= 0
        ):
            raise ValueError(f"start has to be 'center' or seconds from 0 up, got {self.start!r}")
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ValueError(f"seconds has to be positive, or None for the full track, got {self.seconds!r}")


@dataclass(frozen=True)
class Decoded:
    """What lies in the caller's buffer.

    samples: float32 [n], mono, a view of the caller's buffer, valid until the next decode into it
    rate: Hz
    channels: how many the track has
    start: position of the first sample in the track, in samples
    total: samples in the whole track (per channel), as its container declares or as counted
    peak: max |sample| of the mono excerpt
    channel_peak: max |sample| over all channels before the downmix; far above ``peak`` where channels cancel
    """

    samples: NDArray[np.float32]
    rate: int
    channels: int
    start: int
    total: int
    peak: float
    channel_peak: float


def locate(total: int, rate: int, spec: ExcerptSpec) -> tuple[int, int]:
    """Start and count, in samples, of an excerpt of a track of ``total`` samples at ``rate`` Hz.

    An excerpt that would run past the end is moved back so that it ends with the track; a track shorter than
    the excerpt is taken whole. Always 0 ≤ start, start + count ≤ total, and count ≥ 1 for total ≥ 1.
    """
    if spec.seconds is None:
        return 0, total
    count = min(total, max(1, round(spec.seconds * rate)))
    if spec.start == "center":
        return (total - count) // 2, count
    return min(round(spec.start * rate), total - count), count


def locate_union(total: int, rate: int, specs: Sequence[ExcerptSpec]) -> tuple[int, int]:
    """Start and count of the smallest run of samples that holds every excerpt. ValueError without specs."""
    if not specs:
        raise ValueError("at least one ExcerptSpec is needed")
    located = [locate(total, rate, spec) for spec in specs]
    start = min(first for first, _ in located)
    return start, max(first + count for first, count in located) - start


@dataclass(frozen=True)
class Limits:
    """What is accepted: sample rates of at most ``max_rate`` Hz, excerpts of at most ``max_seconds``."""

    max_rate: int = MAX_RATE
    max_seconds: float = math.inf

    def check_rate(self, rate: int) -> None:
        """TrackError ``unsupported`` unless MIN_RATE ≤ rate ≤ max_rate."""
        if not MIN_RATE <= rate <= self.max_rate:
            raise TrackError("unsupported", f"sample rate {rate} Hz, expected {MIN_RATE} to {self.max_rate} Hz")

    def check_fits(self, count: int, rate: int, capacity: int) -> None:
        """TrackError ``too_long`` if ``count`` samples are more than max_seconds, or than ``capacity`` samples.

        Rounded up to whole samples, an excerpt of exactly max_seconds has less than two samples more.
        """
        if count >= self.max_seconds * rate + 2:
            raise TrackError(
                "too_long", f"the excerpt has {count / rate:.1f} s, expected at most {self.max_seconds:g} s"
            )
        if count > capacity:
            raise TrackError(
                "too_long",
                f"the excerpt has {count} samples ({count / rate:.1f} s at {rate} Hz), "
                f"the buffer holds {capacity} ({capacity / rate:.1f} s)",
            )
