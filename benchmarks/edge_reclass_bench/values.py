"""Values with what is known of their uncertainty."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct, field

PERCENTILES: Final = (50, 90, 95, 99)
Count = Annotated[int, Meta(ge=0)]


class Estimate(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A value with an interval. ``low`` and ``high`` are None where there are too few draws."""

    value: float
    low: float | None = None
    high: float | None = None


class Proportion(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``count`` of ``total``, with Wilson's 95 % interval of the share. ``total`` is at least 1."""

    count: Count
    total: Annotated[int, Meta(ge=1)]
    low: float
    high: float

    @property
    def share(self) -> float:
        """Count divided by total."""
        return self.count / self.total


class Summary(Struct, frozen=True, kw_only=True):
    """What the samples of one measure say; see ``statistics``.

    Attributes:
        n: samples.
        tracks: distinct tracks; 0 where samples do not belong to tracks.
        processes: distinct processes.
        mean: mean over tracks of each track's median, with its spread over tracks: how far it would move with others.
        error: measurement error: half-width of the 99 % interval over processes, relative to the mean. None with fewer
            than five processes.
        percentiles: ``p50``, ``p90``, ``p95``, ``p99`` over the tracks' medians (where samples have no tracks, over
            samples), as far as so many draws support them.
        tail: ``p95``, ``p99`` of a pass over a track, as a multiple of the track's median.
        scatter: interquartile range over passes / median, the median over tracks.
        drift: second half of the passes / first half, the median over tracks.
    """

    n: int
    tracks: int
    processes: int
    min: float
    max: float
    mean: Estimate
    error: float | None
    percentiles: dict[str, Estimate]
    tail: dict[str, float] = field(default_factory=dict)
    scatter: float | None = None
    drift: float | None = None
