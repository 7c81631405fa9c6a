"""An encoder that hears windows: which of an excerpt, at what loudness, and the mean of what it makes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio.loudness import Level, level, normalise
from edge_reclass.bundle.encoders import EncoderEntry
from edge_reclass.cascade.encoders.base import Parts, Progress
from edge_reclass.cascade.shared_batches import AddRows, Fill
from edge_reclass.cascade.sound import Sound
from edge_reclass.cascade.windowing import ShortRule, fill_window, listening_order, windows
from edge_reclass.errors import Status, TrackError

AddEmbeddings = Callable[[Sequence[Fill], AddRows, Parts], None]
"""Gives the embeddings of the windows to the AddRows, in order, and adds its durations to the parts."""


@dataclass(frozen=True)
class Windows:
    """How an encoder's windows lie in an excerpt, and at what loudness it hears them.

    Loudness, offset and silence are those of each window alone, so that no embedding depends on audio outside of the
    windows that it is the mean of.
    """

    window: int
    hop: int
    short: ShortRule
    loudness: float | None

    @classmethod
    def of(cls, entry: EncoderEntry, loudness: float | None) -> Windows | None:
        """The windows that the manifest asks for; None where the whole excerpt is heard at once."""
        if entry.window_samples is None or entry.hop_samples is None:
            return None
        return cls(entry.window_samples, entry.hop_samples, entry.short, loudness)

    def starts(self, sound: Sound) -> tuple[int, ...]:
        """Where the windows begin, in the order in which they are heard.

        Raises:
            TrackError: ``too_short``: less than one window, and the encoder rejects that.
        """
        starts = windows(len(sound), self.window, self.hop, self.short)
        if not starts:
            got, needed = len(sound) / sound.rate, self.window / sound.rate
            raise TrackError(Status.TOO_SHORT, f"expected at least one window of {needed:.2f} s, got {got:.2f} s")
        return tuple(starts[i] for i in listening_order(len(starts)))

    def look(self, samples: NDArray[np.float32], rate: int) -> tuple[Fill, bool]:
        """One window, as a function that writes it, and whether there is sound in it.

        Args:
            samples: float32[window], or all of an excerpt that is shorter.
        """
        found = level(samples, rate)
        return partial(self._fill, samples, found), not found.silent

    def _fill(self, samples: NDArray[np.float32], found: Level, row: NDArray[np.float32]) -> None:
        fill_window(samples, 0, self.short, row)
        if self.loudness is not None:
            normalise(row, found, self.loudness)


class RunningMean:
    """The mean of embeddings, of all so far or of as many as came first.

    It is taken in float64 and row after row, so that it is the same bit by bit however the rows were cut into batches,
    and whether it was asked for on the way or afterwards.
    """

    def __init__(self, dim: int, marks: Sequence[int] = ()) -> None:
        """``marks``: counts whose means can be had after more rows have come."""
        self._total = np.zeros(dim, np.float64)
        self._at = dict.fromkeys(marks, self._total)
        self.count = 0

    def add(self, rows: NDArray[np.float32]) -> None:
        """Take in ``rows``, float32[n, dim]."""
        for row in rows:
            self._total += row
            self.count += 1
            if self.count in self._at:
                self._at[self.count] = self._total.copy()

    def write(self, count: int, out: NDArray[np.float32]) -> None:
        """The mean of the first ``count`` rows, which are a mark or all so far, into ``out`` (float32[dim])."""
        out[:] = (self._total if count == self.count else self._at[count]) / count


class _Looking:
    """Looks at an excerpt's windows, one after the other."""

    def __init__(self, rule: Windows, sound: Sound, starts: Sequence[int]) -> None:
        self._rule, self._sound = rule, sound
        self.starts = starts
        self.at = 0
        """How many windows were looked at."""
        self.passed = [0]
        """How many until 0, 1, 2, … of them were to be heard."""
        self.seconds = 0.0
        """What that took, but for reading and resampling."""

    def there(self) -> bool:
        """True if the next window was read already."""
        return self._sound.there(self.starts[self.at], self._rule.window)

    def next(self) -> Fill | None:
        """The next window, if there is sound in it and it is intact."""
        fill, audible = self.window(self.starts[self.at])
        self.at += 1
        if not audible:
            return None
        self.passed.append(self.at)
        return fill

    def window(self, start: int) -> tuple[Fill, bool]:
        """A window, and whether it is to be heard."""
        samples = self._sound.take(start, self._rule.window)
        began = time.perf_counter()
        fill, audible = self._rule.look(samples, self._sound.rate)
        audible = audible and self._sound.intact(start, self._rule.window)
        self.seconds += time.perf_counter() - began
        return fill, audible


class WindowedEncoder:
    """The mean of the embeddings of an excerpt's windows, however they come about."""

    def __init__(
        self,
        rule: Windows,
        dim: int,
        add: AddEmbeddings,
        close: Callable[[], None],
        part: str,
        ahead: bool = False,
    ) -> None:
        """Takes over ``close``, which releases what ``add`` uses.

        Args:
            part: under which name the choice of windows is counted.
            ahead: compute the windows up to the last count of ``upto`` at once, where they need no further reading;
                what is given stays the same.
        """
        self._rule, self._dim, self._add, self._close, self._part = rule, dim, add, close, part
        self._ahead = ahead

    def encode(
        self,
        sound: Sound,
        out: NDArray[np.float32],
        parts: Parts,
        *,
        upto: Sequence[int] = (),
        anyway: bool = False,
    ) -> Iterator[Progress]:
        """See :meth:`Encoder.encode`."""
        starts = self._rule.starts(sound)
        looking = _Looking(self._rule, sound, starts)
        mean = RunningMean(self._dim, upto)
        for count in upto:
            self._hear(looking, count, mean, parts, ahead=upto[-1] if self._ahead else 0)
            if mean.count < count or looking.passed[count] == len(starts):
                break  # nothing can follow: after all of the windows the stage's last step is asked
            mean.write(count, out)
            yield Progress(count, len(starts), complete=False)
        self._hear(looking, len(starts), mean, parts)
        heard = mean.count
        if not heard and anyway:
            self._add([looking.window(starts[0])[0]], mean.add, parts)
        if mean.count:
            mean.write(mean.count, out)
        yield Progress(heard, len(starts))

    def _hear(self, looking: _Looking, count: int, mean: RunningMean, parts: Parts, ahead: int = 0) -> None:
        """Go on until ``count`` windows are in the mean, or none is left; then up to ``ahead`` that need no reading."""
        fills: list[Fill] = []
        seconds = looking.seconds
        while looking.at < len(looking.starts):
            have = mean.count + len(fills)
            if have >= count and (have >= ahead or not looking.there()):
                break
            if (fill := looking.next()) is not None:
                fills.append(fill)
        parts.add(self._part, looking.seconds - seconds)
        if fills:
            self._add(fills, mean.add, parts)

    def close(self) -> None:
        """See :meth:`Encoder.close`."""
        self._close()
