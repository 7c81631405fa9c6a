"""What the encoders hear: an excerpt at a rate, of which only those parts are read and resampled that are asked for.

What the policy's first steps can hear is read at once, and the rest of an excerpt when a window outside of that is
asked for. So the policy decides what is read, and never timing. A window's samples do not depend on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio import MIN_DECODED, ExcerptSpec, OpenTrack, Resampler, Run, Tiles, locate, resampled_length
from edge_reclass.audio.decoded import Decoded
from edge_reclass.audio.loudness import SILENCE_DB
from edge_reclass.cascade.plan import Plan, Signal, StagePlan
from edge_reclass.cascade.windowing import listening_order, windows
from edge_reclass.errors import Status, TrackError
from edge_reclass.verdict import DamageSeen

if TYPE_CHECKING:
    from edge_reclass.cascade.encoders import Parts, Progress
    from edge_reclass.cascade.stages import Stage

_ALONG_SECONDS = 1.0
"""Shorter parts of an excerpt are read along with the rest of it."""

Spent = Callable[[str, float], None]
"""Is told what was done, and how many seconds that took."""


class Sound(Protocol):
    """An excerpt at one rate."""

    @property
    def rate(self) -> int:
        """Samples per second."""

    def __len__(self) -> int:
        """Samples."""

    def take(self, start: int, count: int) -> NDArray[np.float32]:
        """``count`` samples from ``start`` on, less at the end: float32, mono, a view until the next track.

        Where the excerpt turns out to end a little earlier than was thought, they are moved back to end with it.

        Raises:
            TrackError: ``unreadable``: the file cannot be read on.
        """

    def there(self, start: int, count: int) -> bool:
        """True if ``take`` need not read the file on for these samples."""

    def intact(self, start: int, count: int) -> bool:
        """True if enough could be decoded of the samples that ``take`` gave for the same arguments."""


@dataclass(frozen=True)
class Known:
    """What is known of a track by now: of more of it read, more may be known.

    ``excerpts``: seconds at which each of the plan's excerpts begins, and samples that it has at ``rate``.
    """

    total: int
    rate: int
    excerpts: tuple[tuple[float, int], ...]
    channel: int | None
    damage: DamageSeen | None


class Hearing(Protocol):
    """One open track, and what the stages hear of it."""

    @property
    def known(self) -> Known:
        """What is known of the track by now."""

    def encode(
        self, stage: Stage, embeddings: Mapping[str, NDArray[np.float32]], parts: Parts, upto: Sequence[int]
    ) -> Iterator[Progress]:
        """Write a stage's embedding of its excerpt among ``embeddings``; see :meth:`Stage.encode`."""

    def check(self) -> None:
        """Raise TrackError ``corrupt`` if too little of what was read could be decoded."""

    def nothing_heard(self) -> TrackError:
        """Why no stage heard anything: ``corrupt`` or ``silent``."""


class Excerpts:
    """A track that is open in this process, its excerpts at the rates of a plan's signals; a :class:`Hearing`."""

    def __init__(
        self,
        track: OpenTrack,
        specs: Sequence[ExcerptSpec],
        signals: Mapping[Signal, NDArray[np.float32]],
        resampler: Resampler,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``clock``: in seconds, of what reading and resampling take."""
        self._track, self._specs = track, specs
        self._signals, self._resampler, self._clock = signals, resampler, clock
        self._done: dict[Signal, set[int]] = {signal: set() for signal in signals}

    @property
    def decoded(self) -> Decoded:
        """What was read so far."""
        return self._track.decoded

    @property
    def known(self) -> Known:
        """See :attr:`Hearing.known`."""
        decoded = self.decoded
        excerpts = (decoded.excerpt(spec) for spec in self._specs)
        return Known(
            decoded.total,
            decoded.rate,
            tuple((start / decoded.rate, len(samples)) for samples, start in excerpts),
            decoded.channel,
            None if decoded.damage is None else DamageSeen(**asdict(decoded.damage)),
        )

    def encode(
        self, stage: Stage, embeddings: Mapping[str, NDArray[np.float32]], parts: Parts, upto: Sequence[int]
    ) -> Iterator[Progress]:
        """See :meth:`Hearing.encode`."""
        return stage.encode(self.at(stage.plan.signal, parts.add), embeddings, parts, upto)

    def check(self) -> None:
        """See :meth:`Hearing.check`."""
        self._track.check()

    def nothing_heard(self) -> TrackError:
        """See :meth:`Hearing.nothing_heard`."""
        try:
            self.check()
        except TrackError as error:
            return error
        nothing = f"no stage heard any sound above {SILENCE_DB:g} dBFS in its excerpt"
        if lost := self.decoded.lost:
            seconds = sum(stop - start for start, stop in lost) / self.decoded.rate
            return TrackError(Status.CORRUPT, f"{nothing}, and {seconds:.2f} s of what was read could not be decoded")
        return TrackError(Status.SILENT, nothing)

    def at(self, signal: Signal, spent: Spent) -> Sound:
        """One excerpt at one rate. What was resampled for it before is not resampled again.

        ``spent``: is told what reading and resampling take.
        """
        if signal.rate is None:
            return _Native(self._track, signal.excerpt, spent, self._clock)
        at_rate = signal.rate, self._signals[signal], self._done[signal]
        return _Resampled(self._track, signal.excerpt, spent, self._clock, self._resampler, *at_rate)


class _Native:
    """An excerpt at the file's own rate."""

    def __init__(self, track: OpenTrack, spec: ExcerptSpec, spent: Spent, clock: Callable[[], float]) -> None:
        self._track, self._spec, self._spent, self._clock = track, spec, spent, clock

    @property
    def rate(self) -> int:
        return self._track.decoded.rate

    def __len__(self) -> int:
        return len(self.excerpt())

    def take(self, start: int, count: int) -> NDArray[np.float32]:
        began = self._clock()
        if self._track.need(self._spec, *_fit(start, count, len(self))):
            self._spent("read", self._clock() - began)
        start, stop = _fit(start, count, len(self))
        return self.excerpt()[start:stop]

    def there(self, start: int, count: int) -> bool:
        return self._track.has(self._spec, *_fit(start, count, len(self)))

    def intact(self, start: int, count: int) -> bool:
        start, stop = _fit(start, count, len(self))
        return self._track.lost(self._spec, start, stop) <= (1.0 - MIN_DECODED) * (stop - start)

    def excerpt(self) -> NDArray[np.float32]:
        """All of it, of which some may not have been read."""
        return self._track.decoded.excerpt(self._spec)[0]


class _Resampled:
    """An excerpt at another rate than the file's, in a buffer that is filled tile by tile."""

    def __init__(
        self,
        track: OpenTrack,
        spec: ExcerptSpec,
        spent: Spent,
        clock: Callable[[], float],
        resampler: Resampler,
        rate: int,
        buffer: NDArray[np.float32],
        done: set[int],
    ) -> None:
        self._native = _Native(track, spec, spent, clock)
        self._spent, self._clock, self._resampler = spent, clock, resampler
        self._buffer, self._done = buffer, done
        self._tiles = Tiles.of(track.decoded.rate, rate)

    @property
    def rate(self) -> int:
        return self._tiles.rate_out

    def __len__(self) -> int:
        return resampled_length(len(self._native), self._tiles.rate_in, self._tiles.rate_out)

    def take(self, start: int, count: int) -> NDArray[np.float32]:
        first, last = self._source(start, count)
        self._native.take(first, last - first)
        start, stop = _fit(start, count, len(self))
        lacking = [number for number in self._tiles.numbers(start, stop) if number not in self._done]
        if lacking:
            began = self._clock()
            samples, out = self._native.excerpt(), self._buffer[: len(self)]
            for number in lacking:
                self._resampler.resample_tile(samples, self._tiles, number, out)
            self._done.update(lacking)
            self._spent("resample", self._clock() - began)
        return self._buffer[start:stop]

    def there(self, start: int, count: int) -> bool:
        first, last = self._source(start, count)
        return self._native.there(first, last - first)

    def _source(self, start: int, count: int) -> tuple[int, int]:
        """The samples at the file's rate that are needed."""
        first, last = self._tiles.source(self._tiles.numbers(*_fit(start, count, len(self))))
        return first, min(last, len(self._native))

    def intact(self, start: int, count: int) -> bool:
        start, stop = _fit(start, count, len(self))
        first, last = (resampled_length(at, self.rate, self._tiles.rate_in) for at in (start, stop))
        return self._native.intact(first, last - first)


def _fit(start: int, count: int, n: int) -> tuple[int, int]:
    """Where ``count`` samples from ``start`` on begin and end among ``n``: moved back rather than cut off."""
    start = max(0, min(start, n - count))
    return start, min(start + count, n)


def heard_first(plan: Plan, total: int, rate: int) -> list[Run]:
    """What of a track the policy's first steps can hear, as long as every window that they take holds sound.

    Those are what the first step asks for, and the windows of all steps from there on to one that asks for a whole
    excerpt. Args and result as ``audio.Choose``.
    """
    stages = {stage.name: stage for stage in plan.stages}
    runs: list[Run] = []
    for step in plan.policy.steps:
        stage = stages[step.after]
        start, count = locate(total, rate, stage.signal.excerpt)
        if step.windows is None and runs:
            break
        first, last = (0, count) if step.windows is None else _needed(stage, step.windows, count, rate)
        runs.append((start + first, start + last))
    return runs


def _needed(stage: StagePlan, most: int, count: int, rate: int) -> Run:
    """What the first ``most`` windows need of an excerpt of ``count`` samples; short parts are read along."""
    encoder, tiles = stage.encoder, Tiles.of(rate, stage.signal.rate or rate)
    n = resampled_length(count, rate, tiles.rate_out)
    window, hop = encoder.window_samples, encoder.hop_samples
    starts = () if window is None or hop is None else windows(n, window, hop, encoder.short)
    if not starts or window is None:
        return 0, count
    first = [starts[i] for i in listening_order(len(starts))[:most]]
    low, high = tiles.source(tiles.numbers(min(first), min(n, max(first) + window)))
    along = _ALONG_SECONDS * rate
    return low if low > along else 0, high if count - high > along else count
