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
from edge_reclass.cascade.encoders.base import Parts
from edge_reclass.cascade.shared_batches import Fill
from edge_reclass.cascade.windowing import ShortRule, fill_window, windows
from edge_reclass.errors import Status, TrackError

AddEmbeddings = Callable[[Sequence[Fill], NDArray[np.float64], Parts], None]
"""Adds the embedding of each window to the total, float64[dim], row after row, and its durations to the parts."""


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

    def choose(self, samples: NDArray[np.float32], rate: int, *, anyway: bool = False) -> tuple[list[Fill], bool]:
        """The windows with sound in them, each as a function that writes it, and whether there is any.

        Where there is none, ``anyway`` gives the first window all the same.

        Raises:
            TrackError: ``too_short``: less than one window, and the encoder rejects that.
        """
        starts = windows(len(samples), self.window, self.hop, self.short)
        if not starts:
            got, needed = len(samples) / rate, self.window / rate
            raise TrackError(Status.TOO_SHORT, f"expected at least one window of {needed:.2f} s, got {got:.2f} s")
        found = [(start, level(samples[start : start + self.window], rate)) for start in starts]
        heard = [(start, its) for start, its in found if not its.silent]
        chosen = heard or (found[:1] if anyway else [])
        return [partial(self._fill, samples, start, its) for start, its in chosen], bool(heard)

    def _fill(self, samples: NDArray[np.float32], start: int, found: Level, row: NDArray[np.float32]) -> None:
        fill_window(samples, start, self.short, row)
        if self.loudness is not None:
            normalise(row, found, self.loudness)


class WindowedEncoder:
    """The mean of the embeddings of an excerpt's windows, however they come about."""

    def __init__(self, rule: Windows, dim: int, add: AddEmbeddings, close: Callable[[], None], part: str) -> None:
        """``part``: under which name the choice of windows is counted."""
        self._rule, self._add, self._close, self._part = rule, add, close, part
        # Means of embeddings are taken in float64 and row after row, so that no batch size can be heard in them.
        self._total = np.zeros(dim, np.float64)

    def encode(
        self,
        samples: NDArray[np.float32],
        rate: int,
        out: NDArray[np.float32],
        parts: Parts,
        *,
        upto: Sequence[int] = (),
        anyway: bool = False,
    ) -> Iterator[int]:
        """See :meth:`Encoder.encode`."""
        began = time.perf_counter()
        fills, heard = self._rule.choose(samples, rate, anyway=anyway)
        self._total.fill(0.0)
        parts.add(self._part, time.perf_counter() - began)
        done = 0
        for count in sorted({*(n for n in upto if 0 < n < len(fills)), len(fills)}):
            if not fills:
                return
            self._add(fills[done:count], self._total, parts)
            done = count
            out[:] = self._total / done
            yield done if heard else 0

    def close(self) -> None:
        """See :meth:`Encoder.close`."""
        self._close()
