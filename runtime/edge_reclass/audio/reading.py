"""From opened sources to ``Decoded``: which samples are read, what is done where they are damaged or cancel.

A source is one way to decode one file, or one of several parts that follow one another in it (the links of a
chained ogg, joined mp3 files). An attempt reads all that is wanted from the sources of a track.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio.decoded import Damage, Decoded, Segment
from edge_reclass.audio.excerpt import ExcerptSpec, Limits, segments
from edge_reclass.audio.mono import MonoWriter
from edge_reclass.audio.resample import resampled_length
from edge_reclass.errors import Status, TrackError

MIN_DECODED: Final = 0.9
"""Share of the wanted samples that has to decode, or the file is ``corrupt``."""

MAX_BAD_PACKETS: Final = 0.1
"""Share of the packets that may be damaged, or the file is ``corrupt``: spoiled neighbours decode to loud noise."""

SHORT_SECONDS: Final = 0.1
"""A decoded excerpt may be this much shorter than the container promises, or half of it, if that is less.

Containers round durations (wma to the millisecond), and decoders of lossy formats may keep back their last frame.
"""

_ROUNDS: Final = 20
"""How often at most a track is read, for its parts to end earlier than was thought; then its last reading counts."""


class Source(Protocol):
    """One way to decode a file, or a part of it."""

    rate: int
    channels: int
    total: int
    packets: int
    """Packets or frames that were read within what was wanted, since the counters were last set to 0."""
    bad_packets: int
    error: str | None
    """What the decoder said when it could not go on."""

    def read(self, start: int, writer: MonoWriter) -> int | None:
        """Write the samples from ``start`` on until the writer has all.

        Returns where the source turned out to end, if that is before; ``error`` is None then.
        """
        ...

    def measure(self, writer: MonoWriter) -> int:
        """Samples that the source really has, found by reading all of it."""
        ...


@dataclass(frozen=True)
class Attempt:
    """What was read from the sources of a track into the caller's buffer."""

    decoded: Decoded
    wanted: int
    missing: int
    short: int
    bad_packets: int
    packets: int
    error: str | None

    @property
    def got(self) -> int:
        """Samples that were decoded, at ``decoded.rate``."""
        return self.wanted - self.missing

    @property
    def conclusive(self) -> bool:
        """True if the decoder got through to the end of what is wanted, so that another would do no better."""
        return self.error is None and not self.short

    def result(self) -> Decoded:
        """What was decoded; TrackError ``corrupt`` if that is too little or too much of it is damaged."""
        bad = self.bad_packets / max(1, self.packets)
        if self.got >= MIN_DECODED * self.wanted and bad <= MAX_BAD_PACKETS and self.got:
            return self.decoded
        said = f" ({self.error})" if self.error else ""
        share = f"only {self.got / max(1, self.wanted):.0%} of the excerpt can be decoded"
        packets = f", {self.bad_packets} of {self.packets} packets are damaged" if self.bad_packets else ""
        raise TrackError(Status.CORRUPT, f"truncated or damaged: {share}{packets}{said}")


def attempt(
    sources: Sequence[Source],
    specs: Sequence[ExcerptSpec],
    out: NDArray[np.float32],
    writer: MonoWriter,
    limits: Limits,
    *,
    locate_again: bool,
) -> Attempt:
    """Read what is wanted of a track, again if its mix cancels.

    Args:
        sources: the parts of the track, in order.
        specs: what is wanted.
        out: float32 [capacity].
        writer: mixes into ``out``.
        limits: what is accepted.
        locate_again: where the track ends before the end that it declares, locate what is wanted again within what
            there is.

    Raises:
        TrackError: ``empty``, ``unsupported`` (rates), ``too_long``; ``corrupt`` for samples that are none.
    """
    for source in sources:
        limits.check_rate(source.rate)
    main = max(sources, key=lambda source: source.total / source.rate)
    rate = min(main.rate, limits.max_rate)
    totals = [source.total for source in sources]
    declared = None
    for rounds in range(1, _ROUNDS + 1):
        reading = _Reading(sources, totals, rate, specs, out, writer, limits)
        ended = reading.read()
        if writer.loss():
            # Once more for each channel's energy without DC, and if it is true, once more for the loudest.
            reading.read(survey=True)
            if writer.loss():
                reading.read(channel=writer.loudest())
        if ended is None or not locate_again or rounds == _ROUNDS:
            break
        i, total = ended
        declared = reading.total / rate if declared is None else declared
        # Less each time, or nothing is gained.
        totals[i] = min(total if total > 0 else sources[i].measure(writer), totals[i] - 1)
        if totals[i] <= 0:
            raise TrackError(
                Status.CORRUPT, "a header, and behind it nothing that can be decoded: truncated or damaged"
            )
    return reading.attempt(main, declared)


class _Reading:
    """One round of reading, for given lengths of the sources."""

    def __init__(
        self,
        sources: Sequence[Source],
        totals: Sequence[int],
        rate: int,
        specs: Sequence[ExcerptSpec],
        out: NDArray[np.float32],
        writer: MonoWriter,
        limits: Limits,
    ) -> None:
        self._sources, self._totals, self._rate = sources, totals, rate
        self._out, self._writer = out, writer
        lengths = [resampled_length(n, source.rate, rate) for n, source in zip(totals, sources, strict=True)]
        self._bounds = [0, *accumulate(lengths)]
        self.total = self._bounds[-1]
        if self.total <= 0:
            raise TrackError(Status.EMPTY, "a header without samples")
        limits.check_fits(self.total, rate, specs, len(out))
        self._located = segments(self.total, rate, specs)
        self._channel: int | None = None
        self._segments: list[Segment] = []
        self._missing = self._short = 0

    def read(self, channel: int | None = None, survey: bool = False) -> tuple[int, int] | None:
        """Read all segments; which source ended early, and where, if one did by more than a little."""
        self._channel = channel
        self._segments.clear()
        self._missing = self._short = 0
        for source in self._sources:
            source.packets = source.bad_packets = 0
            source.error = None
        self._writer.begin_pass(channel, survey)
        ended = None
        at = 0
        for start, count in self._located:
            samples = self._out[at : at + count]
            filled = 0
            for i, (low, high) in enumerate(pairwise(self._bounds)):
                begin, end = max(low, start), min(high, start + count)
                if begin >= end:
                    continue
                part = samples[begin - start : end - start]
                got, gap, short, stopped = self._read_part(i, begin - low, part)
                if stopped is not None and short and ended is None:
                    ended = i, stopped
                # A little less is no damage at the end of a track, and zeros between two parts of it.
                last = end == start + count
                filled = begin - start + (got if last and not short else len(part))
                part[got:] = 0.0
                self._missing += gap + short
                self._short += short
            self._segments.append(Segment(samples[:filled], start))
            at += count
        return ended

    def _read_part(self, i: int, start: int, out: NDArray[np.float32]) -> tuple[int, int, int, int | None]:
        """Samples written, lost on the way, lost at the end (0 for a little), and where the source ended, if early."""
        source, total = self._sources[i], self._totals[i]
        first = start * source.rate // self._rate
        wanted = min(total - first, -(-len(out) * source.rate // self._rate) + (source.rate != self._rate))
        self._writer.begin(out, wanted, source.rate, self._rate)
        stopped = source.read(first, self._writer)
        written, gap, short = self._writer.finish()
        if short <= min(SHORT_SECONDS * source.rate, wanted / 2):
            short = 0
        lost, late = (resampled_length(n, source.rate, self._rate) for n in (gap, short))
        return len(written), lost, late, stopped

    def attempt(self, main: Source, declared: float | None) -> Attempt:
        wanted = sum(count for _, count in self._located)
        bad, packets = sum(s.bad_packets for s in self._sources), sum(s.packets for s in self._sources)
        damage = None
        if self._missing or bad or declared is not None:
            damage = Damage(bad, packets, self._missing / wanted, declared)
        decoded = Decoded(
            segments=tuple(self._segments),
            rate=self._rate,
            file_rate=main.rate,
            channels=max(source.channels for source in self._sources),
            total=self.total,
            channel=self._channel,
            damage=damage,
        )
        error = next((source.error for source in self._sources if source.error), None)
        return Attempt(decoded, wanted, self._missing, self._short, bad, packets, error)
