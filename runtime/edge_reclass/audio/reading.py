"""From opened sources to ``Decoded``: which samples are read, what is done where they are damaged or cancel.

A source is one way to decode one file, or one of several parts that follow one another in it (the links of a
chained ogg, joined mp3 files). An attempt reads what is wanted from the sources of a track: all of the excerpts, or
some runs of them. Where each sample lies in the caller's buffer is fixed by the first attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio.decoded import Damage, Decoded, Segment
from edge_reclass.audio.excerpt import ExcerptSpec, Limits, segments
from edge_reclass.audio.mono import MonoWriter
from edge_reclass.audio.resample import resampled_length
from edge_reclass.audio.runs import Run, length, union, within
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


Choose = Callable[[int, int], Sequence[Run]]
"""Given the samples of a track and their rate: the runs of it that are wanted first."""


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
class Layout:
    """Where a track's excerpts lie in it, and so in the caller's buffer: fixed by the first attempt."""

    rate: int
    total: int
    located: tuple[tuple[int, int], ...]
    """Start and count of each segment."""

    @property
    def runs(self) -> list[Run]:
        """All that is wanted of the track."""
        return [(start, start + count) for start, count in self.located]


@dataclass(frozen=True)
class Attempt:
    """What was read from the sources of a track into the caller's buffer."""

    sources: Sequence[Source]
    totals: Sequence[int]
    layout: Layout
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

    def joined(self, more: Attempt) -> Attempt:
        """Both together, of which ``more`` came later."""
        wanted, missing = self.wanted + more.wanted, self.missing + more.missing
        bad, packets = self.bad_packets + more.bad_packets, self.packets + more.packets
        own, other = self.decoded, more.decoded
        pairs = zip(own.segments, other.segments, strict=True)
        declared = None if own.damage is None else own.damage.declared
        decoded = replace(
            own,
            segments=tuple(min(pair, key=lambda segment: len(segment.samples)) for pair in pairs),
            channel=other.channel if own.channel is None else own.channel,
            damage=_damage(bad, packets, missing, wanted, declared),
            read=tuple(union((*own.read, *other.read))),
            lost=tuple(union((*own.lost, *other.lost))),
        )
        return replace(
            self,
            decoded=decoded,
            wanted=wanted,
            missing=missing,
            short=self.short + more.short,
            bad_packets=bad,
            packets=packets,
            error=self.error or more.error,
        )

    def losing(self, runs: Sequence[Run], why: str) -> Attempt:
        """With further ``runs`` that hold no sound samples; zeros take their place."""
        for segment in self.decoded.segments:
            for start, stop in within(runs, [(segment.start, segment.start + len(segment.samples))]):
                segment.samples[start - segment.start : stop - segment.start] = 0.0
        count = length(runs)
        lost = tuple(runs)
        decoded = replace(self.decoded, channel=None, read=lost, lost=lost)
        return self.joined(
            replace(self, decoded=decoded, wanted=count, missing=count, short=0, bad_packets=0, packets=0, error=why)
        )


def attempt(
    sources: Sequence[Source],
    specs: Sequence[ExcerptSpec],
    out: NDArray[np.float32],
    writer: MonoWriter,
    limits: Limits,
    *,
    locate_again: bool,
    choose: Choose | None = None,
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
        choose: what of it is read; None: all.

    Raises:
        TrackError: ``empty``, ``unsupported`` (rates), ``too_long``; ``corrupt`` for samples that are none.
    """
    for source in sources:
        limits.check_rate(source.rate)
    rate = _rate(sources, limits)
    totals = [source.total for source in sources]
    declared = None
    for rounds in range(1, _ROUNDS + 1):
        layout = _lay_out(sources, totals, rate, specs, limits, len(out))
        runs = layout.runs if choose is None else within(choose(layout.total, rate), layout.runs)
        reading = _Reading(sources, totals, layout, out, writer)
        ended = reading.read_sound(runs)
        if ended is None or not locate_again or rounds == _ROUNDS:
            break
        i, total = ended
        declared = layout.total / rate if declared is None else declared
        # Less each time, or nothing is gained.
        totals[i] = min(total if total > 0 else sources[i].measure(writer), totals[i] - 1)
        if totals[i] <= 0:
            raise TrackError(
                Status.CORRUPT, "a header, and behind it nothing that can be decoded: truncated or damaged"
            )
    return reading.attempt(declared)


def read_on(
    sources: Sequence[Source],
    first: Attempt,
    runs: Sequence[Run],
    out: NDArray[np.float32],
    writer: MonoWriter,
    limits: Limits,
) -> Attempt:
    """Read further runs of a track, within the layout of the ``first`` attempt.

    A channel that the first attempt heard alone is heard alone here too.

    Raises:
        TrackError: ``corrupt`` for samples that are none, or where these sources have another rate.
    """
    layout = first.layout
    if (rate := _rate(sources, limits)) != layout.rate:
        raise TrackError(Status.CORRUPT, f"decodes at {layout.rate} Hz in one place, and at {rate} Hz in another")
    totals = list(first.totals) if sources is first.sources else [source.total for source in sources]
    reading = _Reading(sources, totals, layout, out, writer)
    reading.read_sound(runs, first.decoded.channel)
    return reading.attempt(None)


def _rate(sources: Sequence[Source], limits: Limits) -> int:
    """The rate of what is written."""
    return min(_main(sources).rate, limits.max_rate)


def _main(sources: Sequence[Source]) -> Source:
    return max(sources, key=lambda source: source.total / source.rate)


def _lay_out(
    sources: Sequence[Source],
    totals: Sequence[int],
    rate: int,
    specs: Sequence[ExcerptSpec],
    limits: Limits,
    capacity: int,
) -> Layout:
    total = sum(resampled_length(n, source.rate, rate) for n, source in zip(totals, sources, strict=True))
    if total <= 0:
        raise TrackError(Status.EMPTY, "a header without samples")
    limits.check_fits(total, rate, specs, capacity)
    return Layout(rate, total, tuple(segments(total, rate, specs)))


def _damage(bad: int, packets: int, missing: int, wanted: int, declared: float | None) -> Damage | None:
    if not (missing or bad or declared is not None):
        return None
    return Damage(bad, packets, missing / max(1, wanted), declared)


class _Reading:
    """One round of reading, for given lengths of the sources."""

    def __init__(
        self,
        sources: Sequence[Source],
        totals: Sequence[int],
        layout: Layout,
        out: NDArray[np.float32],
        writer: MonoWriter,
    ) -> None:
        self._sources, self._totals, self._layout = sources, list(totals), layout
        self._out, self._writer = out, writer
        lengths = [resampled_length(n, source.rate, layout.rate) for n, source in zip(totals, sources, strict=True)]
        self._bounds = [0, *accumulate(lengths)]
        if (lacking := layout.total - self._bounds[-1]) > 0:
            # Another way to decode the track may know less of it: that is found out by reading.
            self._totals[-1] += resampled_length(lacking, layout.rate, sources[-1].rate)
            self._bounds[-1] = layout.total
        self._channel: int | None = None
        self._runs: list[Run] = []
        self._lost: list[Run] = []
        self._ends: dict[int, int] = {}
        self._missing = self._short = 0

    def read_sound(self, runs: Sequence[Run], channel: int | None = None) -> tuple[int, int] | None:
        """Read the runs; if their mix cancels, again, one channel alone. Without a choice where one is given."""
        ended = self._read(runs, channel)
        if channel is None and self._writer.loss():
            # Once more for each channel's energy without DC, and if it is true, once more for the loudest.
            self._read(runs, survey=True)
            if self._writer.loss():
                self._read(runs, self._writer.loudest())
        return ended

    def _read(self, runs: Sequence[Run], channel: int | None = None, survey: bool = False) -> tuple[int, int] | None:
        """Read the runs; which source ended early, and where, if one did by more than a little."""
        self._channel = channel
        self._runs = list(runs)
        self._lost.clear()
        self._ends.clear()
        self._missing = self._short = 0
        for source in self._sources:
            source.packets = source.bad_packets = 0
            source.error = None
        self._writer.begin_pass(channel, survey)
        ended = None
        at = 0
        for number, (first, count) in enumerate(self._layout.located):
            samples = self._out[at : at + count]
            at += count
            for start, stop in within(runs, [(first, first + count)]):
                for i, (low, high) in enumerate(pairwise(self._bounds)):
                    begin, end = max(low, start), min(high, stop)
                    if begin >= end:
                        continue
                    part = samples[begin - first : end - first]
                    got, short, stopped = self._read_part(i, low, begin, part)
                    if stopped is not None and short and ended is None:
                        ended = i, stopped
                    part[got:] = 0.0
                    # A little less is no damage at the end of a track, and zeros between two parts of it.
                    if end == first + count and not short:
                        self._ends[number] = begin - first + got
        return ended

    def _read_part(self, i: int, low: int, begin: int, out: NDArray[np.float32]) -> tuple[int, int, int | None]:
        """Samples written, lost at the end (0 for a little), and where the source ended, if early."""
        source, total, rate = self._sources[i], self._totals[i], self._layout.rate
        first = (begin - low) * source.rate // rate
        wanted = min(total - first, -(-len(out) * source.rate // rate) + (source.rate != rate))
        self._writer.begin(out, wanted, source.rate, rate)
        stopped = source.read(first, self._writer)
        written, gap, short = self._writer.finish()
        if short <= min(SHORT_SECONDS * source.rate, wanted / 2):
            short = 0
        for start, stop in (*self._writer.spoilt, (wanted - short, wanted)):
            run = (resampled_length(at, source.rate, rate) for at in (start, stop))
            self._lost.extend(within([(begin + next(run), begin + next(run))], [(begin, begin + len(out))]))
        lost, late = (resampled_length(n, source.rate, rate) for n in (gap, short))
        self._missing += lost + late
        self._short += late
        return len(written), late, stopped

    def attempt(self, declared: float | None) -> Attempt:
        """The record of what was read last."""
        wanted = sum(stop - start for start, stop in self._runs)
        bad, packets = sum(s.bad_packets for s in self._sources), sum(s.packets for s in self._sources)
        views = []
        at = 0
        for number, (start, count) in enumerate(self._layout.located):
            views.append(Segment(self._out[at : at + self._ends.get(number, count)], start))
            at += count
        main = _main(self._sources)
        decoded = Decoded(
            segments=tuple(views),
            rate=self._layout.rate,
            file_rate=main.rate,
            channels=max(source.channels for source in self._sources),
            total=self._layout.total,
            channel=self._channel,
            damage=_damage(bad, packets, self._missing, wanted, declared),
            read=tuple(self._runs),
            lost=tuple(union(self._lost)),
        )
        error = next((source.error for source in self._sources if source.error), None)
        return Attempt(
            self._sources,
            tuple(self._totals),
            self._layout,
            decoded,
            wanted,
            self._missing,
            self._short,
            bad,
            packets,
            error,
        )
