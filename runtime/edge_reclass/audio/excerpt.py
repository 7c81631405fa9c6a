"""Which samples of a track are looked at. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from edge_reclass.errors import Status, TrackError

MIN_RATE: Final = 4_000
"""Lowest sample rate in Hz of the tracks that are accepted."""

MAX_RATE: Final = 192_000
"""Highest sample rate in Hz that is worked at. Files above it are resampled to it while they are read."""

MAX_FILE_RATE: Final = 12_288_000
"""Highest sample rate in Hz of a file: DSD1024 has 5 644 800 once FFmpeg has made 8 bits one sample."""

NEAR_SECONDS: Final = 1.0
"""Excerpts that lie closer together than this are read as one."""


@dataclass(frozen=True)
class ExcerptSpec:
    """The part of a track that is looked at.

    Attributes:
        start: seconds from the beginning, or ``"center"`` for the middle of the track.
        seconds: the length, or None for the full track (``start`` is then of no effect).

    Raises:
        ValueError: the start is negative or infinite, or the length not positive and finite.
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


def segments(total: int, rate: int, specs: Sequence[ExcerptSpec]) -> list[tuple[int, int]]:
    """Start and count, in samples, of the runs that hold every excerpt: ascending, disjoint.

    Excerpts that overlap, or lie less than NEAR_SECONDS apart, share one.

    Raises:
        ValueError: there are no specs.
    """
    if not specs:
        raise ValueError("at least one ExcerptSpec is needed")
    merged: list[tuple[int, int]] = []
    for start, count in sorted(locate(total, rate, spec) for spec in specs):
        if merged:
            first, length = merged[-1]
            if start - (first + length) < NEAR_SECONDS * rate:
                merged[-1] = first, max(first + length, start + count) - first
                continue
        merged.append((start, count))
    return merged


def decode_seconds(specs: Sequence[ExcerptSpec], max_seconds: float) -> float:
    """An upper bound, in seconds, of what ``segments`` takes of any track that is accepted.

    A full track counts as ``max_seconds``, and holds everything else. Otherwise the lengths are added up
    (centred excerpts lie within one another), and NEAR_SECONDS for every gap that may be read along.

    Raises:
        ValueError: there are no specs.
    """
    if not specs:
        raise ValueError("at least one ExcerptSpec is needed")
    lengths: dict[float | str, float] = {}
    for spec in specs:
        if spec.seconds is None:
            return max_seconds
        lengths[spec.start] = max(spec.seconds, lengths.get(spec.start, 0.0))
    return math.fsum(lengths.values()) + NEAR_SECONDS * (len(lengths) - 1)


@dataclass(frozen=True)
class Limits:
    """What is worked with: at most ``max_rate`` Hz, full tracks of at most ``max_seconds``.

    A file at a higher rate is resampled to ``max_rate`` while it is read.
    """

    max_rate: int = MAX_RATE
    max_seconds: float = math.inf

    def check_rate(self, rate: int) -> None:
        """Raise TrackError ``unsupported`` unless MIN_RATE ≤ rate ≤ MAX_FILE_RATE."""
        if not MIN_RATE <= rate <= MAX_FILE_RATE:
            raise TrackError(Status.UNSUPPORTED, f"sample rate {rate} Hz, expected {MIN_RATE} to {MAX_FILE_RATE} Hz")

    def check_fits(self, total: int, rate: int, specs: Sequence[ExcerptSpec], capacity: int) -> None:
        """Raise TrackError ``too_long`` if a full track exceeds max_seconds, or the segments ``capacity``.

        Rounded up to whole samples, a track of exactly max_seconds has less than two samples more.
        """
        if any(spec.seconds is None for spec in specs) and total >= self.max_seconds * rate + 2:
            raise TrackError(
                Status.TOO_LONG, f"the track has {total / rate:.1f} s, expected at most {self.max_seconds:g} s"
            )
        count = sum(length for _, length in segments(total, rate, specs))
        if count > capacity:
            raise TrackError(
                Status.TOO_LONG,
                f"the excerpt has {count} samples ({count / rate:.1f} s at {rate} Hz), "
                f"the buffer holds {capacity} ({capacity / rate:.1f} s)",
            )
