"""A track that stays open, so that only those parts of its excerpts are read that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edge_reclass.audio.decoded import Decoded
from edge_reclass.audio.excerpt import ExcerptSpec, locate
from edge_reclass.audio.mono import UnsoundError
from edge_reclass.audio.reading import Attempt, Choose
from edge_reclass.audio.runs import Run, length, within, without
from edge_reclass.errors import Status, TrackError


class Readable(Protocol):
    """A file, or samples in memory, that is read in one go or in several."""

    def first(self, choose: Choose | None) -> Attempt:
        """Find the excerpts, and read of them what is chosen; None: all.

        Raises:
            TrackError: see ``Decoder.decode``; not where little decodes, which ``Attempt.result`` tells.
        """

    def more(self, first: Attempt, runs: Sequence[Run]) -> Attempt:
        """Read further runs within the layout of the ``first`` attempt.

        Raises:
            TrackError: see :meth:`first`.
        """


class OpenTrack:
    """What was read of a track so far, and the way to read more. Reads when it is made.

    Samples that cannot be decoded, or are none (NaN), are ``lost``. That is an error only where nothing else was read.
    """

    def __init__(self, file: Readable, choose: Choose | None = None) -> None:
        """``choose``: what is read at once; None: all."""
        self._file = file
        self._so_far = self._begin(choose)

    @property
    def decoded(self) -> Decoded:
        """What was read so far."""
        return self._so_far.decoded

    def has(self, spec: ExcerptSpec, start: int, stop: int) -> bool:
        """True if samples ``start`` to ``stop`` of an excerpt were read."""
        first, count = locate(self.decoded.total, self.decoded.rate, spec)
        return not without(within([(first + start, first + stop)], [(first, first + count)]), self.decoded.read)

    def need(self, spec: ExcerptSpec, start: int, stop: int) -> bool:
        """Make sure that samples ``start`` to ``stop`` of an excerpt were read, or else read all that lacks of it.

        True if something had to be read; ``decoded`` is another then, and its last segment may be a little shorter.

        Raises:
            TrackError: ``unreadable``: the file cannot be read any more.
        """
        if self.has(spec, start, stop):
            return False
        first, count = locate(self.decoded.total, self.decoded.rate, spec)
        runs = without([(first, first + count)], self.decoded.read)
        try:
            self._so_far = self._so_far.joined(self._file.more(self._so_far, runs))
        except TrackError as error:
            if error.status != Status.CORRUPT:
                raise
            self._so_far = self._so_far.losing(runs, str(error))
        return True

    def lost(self, spec: ExcerptSpec, start: int, stop: int) -> int:
        """How many of the samples ``start`` to ``stop`` of an excerpt, which were read, could not be decoded."""
        decoded = self.decoded
        first, _ = locate(decoded.total, decoded.rate, spec)
        return length(within(decoded.lost, [(first + start, first + stop)]))

    def check(self) -> None:
        """Raise TrackError ``corrupt`` if too little of what was read could be decoded."""
        self._so_far.result()

    def _begin(self, choose: Choose | None) -> Attempt:
        try:
            return self._file.first(choose)
        except UnsoundError as error:
            if choose is None:
                raise
            others = self._file.first(lambda total, rate: without([(0, total)], choose(total, rate)))
            if not others.wanted:
                raise
            layout = others.layout
            return others.losing(within(choose(layout.total, layout.rate), layout.runs), str(error))
