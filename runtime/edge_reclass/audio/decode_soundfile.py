"""Decode through libsndfile: wav, flac, ogg/vorbis, opus, mp3, aiff, caf, w64, au."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, Final

import soundfile

from edge_reclass.audio.mono import BLOCK_VALUES, MonoWriter
from edge_reclass.audio.pieces import Pieces
from edge_reclass.errors import Status, TrackError

_SYSTEM_ERROR: Final = 2
"""SF_ERR_SYSTEM of sndfile.h."""

_NOT_IMPLEMENTED: Final = (4, 18, 33)
"""SF_ERR_UNSUPPORTED_ENCODING of sndfile.h; SFE_UNIMPLEMENTED, SFE_CHANNEL_COUNT of libsndfile's common.h."""

_UNKNOWN_TOTAL: Final = 2**62
"""libsndfile reports SF_COUNT_MAX frames for a flac whose header does not say how long it is."""

_PREROLL_SECONDS: Final = {"MP3": 0.5}
"""By libsndfile's name of the format: how far ahead of the excerpt reading begins.

At low bit rates an mp3's bit reservoir reaches farther back than libmpg123 does when it seeks.
"""

_SKIP_SECONDS: Final = 0.05
"""How far behind a bad spot reading is tried again."""

_PACKET: Final = 4096
"""Samples that are read at a time where some may be damaged, and count as one packet; a flac frame has as many."""

_SKIPS: Final = 40
"""How often in a row; each time twice as far, up to a second."""


class NotDecodableHere(Exception):
    """libsndfile could not open the file; ``recognised``: it knows the container, but not what is in it."""

    def __init__(self, message: str, recognised: bool) -> None:
        self.recognised = recognised
        super().__init__(message)


class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read on without the seek with which soundfile ends each read.

    That changes nothing but where seeking fails: at the end of a flac of unknown length, or with a bad seek table.
    """

    def seekable(self) -> bool:
        return False


class SoundfileSource:
    """A file, or a view of one, that libsndfile opens. It is opened for each read, as that has to seek forward.

    Args:
        file: a descriptor, or a view; both stay open.
        skip_damage: read on behind what cannot be decoded.

    Raises:
        NotDecodableHere: libsndfile cannot open it.
        TrackError: ``unreadable``, the file cannot be read.
    """

    def __init__(self, file: int | Pieces, *, skip_damage: bool = False) -> None:
        self._file = file
        self._skip_damage = skip_damage
        self.packets = self.bad_packets = 0
        self.error: str | None = None
        self._opened: Any = self._open()
        self._position = 0
        self.rate, self.channels = int(self._opened.samplerate), int(self._opened.channels)
        self.total = int(self._opened.frames)
        self.length_known = self.total < _UNKNOWN_TOTAL

    def close(self) -> None:
        """Close what libsndfile has open; the file stays."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def read(self, start: int, writer: MonoWriter) -> int | None:
        """See ``Source.read``. Forward on the opened file, else on one that is opened again.

        Of libsndfile 1.2's seeks, those back into what has been read are not exact for vorbis and mp3. Forward
        ones are, but into the last page of a vorbis stream: there samples come less than one vorbis block early,
        which only an excerpt shorter than that page can meet.
        """
        if self._opened is None or start < self._position:
            self._reopen()
        try:
            if start > self._position:
                self._go_to(start, writer)
                if self._position < start:
                    self._check_file()
                    return self._position
        except soundfile.LibsndfileError as error:
            self.error = f"no way to sample {start} of {self.total}: {error.error_string}"
            if not self._walk_to(start, writer):
                self._check_file()
                if self._skip_damage:
                    self.error = None  # it ends here, for all that libsndfile can tell
                return None if self.error else self._position
        while True:
            ended = self._read_on(start, writer)
            if self.error is not None and self._skip_damage:
                if self._step_over(start, writer):
                    continue
                ended, self.error = start + writer.done, None  # nothing behind it can be decoded
            self._check_file()
            return ended

    def _go_to(self, start: int, writer: MonoWriter) -> None:
        """Forward to ``start``, from where samples are those of a full decode."""
        begin = start - round(_PREROLL_SECONDS.get(self._opened.format, 0.0) * self.rate)
        if begin > self._position or begin == start:
            self._opened.seek(begin)
            self._position = begin
        while self._position < start:
            got = len(self._opened.read(out=writer.frames(start - self._position, self.channels)))
            if not got:
                break
            self._position += got

    def measure(self, writer: MonoWriter) -> int:
        """See ``Source.measure``: decodes, up to the first error; the next read opens the file again."""
        self._reopen()
        total = 0
        with suppress(soundfile.LibsndfileError):
            while got := len(self._opened.read(out=writer.frames(BLOCK_VALUES, self.channels))):
                total += got
        self.close()
        return total

    def _open(self) -> Any:
        """By descriptor, so that libsndfile sees no suffix, and no path that soundfile may fail to encode.

        A copy of it, for libsndfile to close: up to 1.2.0 it closes what it cannot open even when told not to.
        """
        try:
            if isinstance(self._file, Pieces):
                self._file.seek(0)
                return _Stream(self._file)
            os.lseek(self._file, 0, os.SEEK_SET)
            return _Stream(os.dup(self._file), closefd=True)
        except soundfile.LibsndfileError as error:
            self._check_file()
            if error.code == _SYSTEM_ERROR and not isinstance(self._file, Pieces):
                raise TrackError(Status.UNREADABLE, f"cannot be read: {error.error_string}") from error
            raise NotDecodableHere(error.error_string, error.code in _NOT_IMPLEMENTED) from error

    def _reopen(self) -> None:
        self.close()
        self._opened = self._open()
        self._position = 0

    def _check_file(self) -> None:
        if isinstance(self._file, Pieces) and self._file.error is not None:
            raise self._file.error

    def _read_on(self, start: int, writer: MonoWriter) -> int | None:
        """Read until the writer has all or the file ends; where it ended, None for an error."""
        file = self._opened
        most = _PACKET if self._skip_damage else len(writer.block)
        try:
            while writer.missing:
                if self.channels == 1 and writer.direct:
                    got = len(file.read(out=writer.target(min(writer.missing, most))))
                    writer.commit(got)
                else:
                    frames = file.read(out=writer.frames(min(writer.missing, most), self.channels))
                    got = len(frames)
                    writer.mix(frames)
                self.packets += -(-got // _PACKET)
                if got == 0:
                    self._position = start + writer.done
                    return self._position
        except soundfile.LibsndfileError as error:
            at = start + writer.done
            self.error = f"decoding failed at sample {at} of {self.total}: {error.error_string}"
            self.close()
            return None
        self._position = start + writer.done
        return None

    def _walk_to(self, start: int, writer: MonoWriter) -> bool:
        """Go to ``start`` without a seek; False if that fails (``error``), or the file ends before (no ``error``)."""
        try:
            self._reopen()
            most = _PACKET if self._skip_damage else BLOCK_VALUES
            while self._position < start:
                count = min(start - self._position, most)
                got = len(self._opened.read(out=writer.frames(count, self.channels)))
                if got == 0:
                    break
                self._position += got
        except soundfile.LibsndfileError:
            self.close()
            return False
        self.error = None
        return self._position == start

    def _step_over(self, start: int, writer: MonoWriter) -> bool:
        """Find a place behind a bad spot from where decoding goes on, with zeros up to there."""
        at = start + writer.done
        step = max(1, round(_SKIP_SECONDS * self.rate))
        skip = 0
        for _ in range(_SKIPS):
            skip += step
            step = min(step + step // 2, self.rate)
            if skip >= writer.missing:
                break
            try:
                self._reopen()
                self._opened.seek(at + skip)
                if len(self._opened.read(out=writer.frames(1, self.channels))) == 1:
                    self._opened.seek(at + skip)
                    writer.gap(skip)
                    self.packets += -(-skip // _PACKET)
                    self.bad_packets += -(-skip // _PACKET)
                    self._position = at + skip
                    self.error = None
                    return True
            except soundfile.LibsndfileError:
                continue
        return False
