"""The record of what was decoded: segments of a track, and what was wrong with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio.excerpt import ExcerptSpec, locate
from edge_reclass.audio.runs import Run


@dataclass(frozen=True)
class Segment:
    """A run of samples of a track.

    Attributes:
        samples: float32 [n], mono, a view of the caller's buffer, valid until the next decode into it.
        start: position of its first sample in the track, at ``Decoded.rate``.
    """

    samples: NDArray[np.float32]
    start: int


@dataclass(frozen=True)
class Damage:
    """What is wrong with a file that could be decoded all the same, as far as it was read.

    Attributes:
        bad_packets: packets (or frames) within the segments that could not be decoded.
        packets: packets that were read for them.
        missing: share of the wanted samples that could not be decoded, 0 to 1; in their place are zeros.
        declared: seconds that the file says it has, where it ends earlier; the excerpt lies within what there is.
    """

    bad_packets: int
    packets: int
    missing: float
    declared: float | None = None

    def __str__(self) -> str:
        """Say it in one sentence."""
        parts = []
        if self.missing:
            parts.append(f"{self.missing:.1%} of the excerpt cannot be decoded")
        if self.bad_packets:
            parts.append(f"{self.bad_packets} of {self.packets} packets are damaged")
        if self.declared is not None:
            parts.append(f"the file ends before the {self.declared:.1f} s that it declares")
        return "; ".join(parts) or "undamaged"


@dataclass(frozen=True)
class Decoded:
    """What lies in the caller's buffer.

    Attributes:
        segments: in order of start, disjoint.
        rate: Hz of the samples.
        file_rate: Hz of the file; differs where the file's rate is above the working limit.
        channels: how many the track has.
        total: samples of the whole track (per channel) at ``rate``, as its container declares or as counted.
        channel: index of the channel that is heard alone, because the mix cancels; None: the mean of all channels.
        damage: None where all is well.
        read: the runs of the track that were read so far; elsewhere the segments hold nothing of it.
        lost: the runs of these that could not be decoded, or that are spoilt; zeros are in the place of most.
    """

    segments: tuple[Segment, ...]
    rate: int
    file_rate: int
    channels: int
    total: int
    channel: int | None = None
    damage: Damage | None = None
    read: tuple[Run, ...] = ()
    lost: tuple[Run, ...] = ()

    def excerpt(self, spec: ExcerptSpec) -> tuple[NDArray[np.float32], int]:
        """Samples of an excerpt that was asked for, and the position of the first in the track, at ``rate``.

        Raises:
            ValueError: the excerpt lies in none of the segments.
        """
        start, count = locate(self.total, self.rate, spec)
        for segment in self.segments:
            at = start - segment.start
            if 0 <= at < max(1, len(segment.samples)):
                return segment.samples[at : at + count], start
        raise ValueError(f"{spec} was not decoded")
