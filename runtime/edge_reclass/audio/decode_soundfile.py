"""Decode through libsndfile: wav, flac, ogg/vorbis, opus, mp3, aiff, caf, w64, au."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from edge_reclass.audio.excerpt import Decoded, ExcerptSpec, Limits, locate_union
from edge_reclass.audio.mono import BLOCK_VALUES, MonoWriter
from edge_reclass.audio.mpeg import count_samples
from edge_reclass.audio.quiet import quiet_c_stderr
from edge_reclass.errors import TrackError

__all__ = ["NotDecodableHere", "decode_soundfile"]

_SYSTEM_ERROR: Final = 2
"""SF_ERR_SYSTEM of sndfile.h."""

_NOT_IMPLEMENTED: Final = (4, 18, 33)
"""SF_ERR_UNSUPPORTED_ENCODING of sndfile.h; SFE_UNIMPLEMENTED, SFE_CHANNEL_COUNT of libsndfile's common.h."""

_UNKNOWN_TOTAL: Final = 2**62
"""libsndfile reports SF_COUNT_MAX frames for a flac whose header does not say how long it is."""


class NotDecodableHere(Exception):
    """libsndfile could not open the file; ``recognised``: it knows the container, but not what is in it."""

    def __init__(self, message: str, recognised: bool) -> None:
        self.recognised = recognised
        super().__init__(message)


def decode_soundfile(
    fd: int, specs: Sequence[ExcerptSpec], out: NDArray[np.float32], writer: MonoWriter, limits: Limits
) -> Decoded:
    """Decode the union of the excerpts from an open file into ``out``; the file stays open.

    NotDecodableHere if libsndfile cannot open the file; TrackError for all other failures.
    """
    with quiet_c_stderr():
        try:
            file = _open(fd)
        except soundfile.LibsndfileError as error:
            if error.code == _SYSTEM_ERROR:
                raise TrackError("unreadable", f"cannot be read: {error.error_string}") from error
            raise NotDecodableHere(error.error_string, error.code in _NOT_IMPLEMENTED) from error
        with file:
            rate, channels = int(file.samplerate), int(file.channels)
            limits.check_rate(rate)
            total = _total(file, fd, writer)
            if total <= 0:
                raise TrackError("empty", "a header without samples")
            start, count = locate_union(total, rate, specs)
            limits.check_fits(count, rate, len(out))
            writer.begin(out[:count])
            _read(file, start, total, writer)
            return writer.finish(rate, channels, start, total)


def _open(fd: int) -> Any:
    """By descriptor, so that libsndfile sees no suffix, and no path that soundfile may fail to encode.

    A copy of it, for libsndfile to close: up to 1.2.0 it closes what it cannot open even when told not to.
    """
    os.lseek(fd, 0, os.SEEK_SET)
    return soundfile.SoundFile(os.dup(fd), closefd=True)


def _read(file: Any, start: int, total: int, writer: MonoWriter) -> None:
    """Write the samples from ``start`` on, until the writer has all or the file ends.

    One seek per opened file, forward: of libsndfile 1.2's seeks, those back into what has been read are not
    exact for vorbis and mp3. Forward ones are, but into the last page of a vorbis stream: there samples come
    less than one vorbis block early, which only an excerpt shorter than that page can meet.
    """
    try:
        if start:
            file.seek(start)
        while writer.missing:
            if file.channels == 1:
                got = len(file.read(out=writer.target(min(writer.missing, len(writer.block)))))
                writer.written_direct(got)
            else:
                frames = file.read(out=writer.frames(writer.missing, file.channels))
                got = len(frames)
                writer.mix(frames)
            if got == 0:
                break
    except soundfile.LibsndfileError as error:
        at = start + writer.written
        raise TrackError("corrupt", f"decoding failed at sample {at} of {total}: {error.error_string}") from error


def _total(file: Any, fd: int, writer: MonoWriter) -> int:
    """Samples per channel, counted where the header does not say."""
    total = int(file.frames)
    if total >= _UNKNOWN_TOTAL:
        offset = os.lseek(fd, 0, os.SEEK_CUR)
        total = _count_by_decoding(fd, writer)
        os.lseek(fd, offset, os.SEEK_SET)
    elif file.format == "MP3":
        counted = count_samples(fd)
        # libsndfile ends at its own estimate, should that be too short (variable bit rate without a tag).
        total = total if counted is None else min(total, counted)
    return total


def _count_by_decoding(fd: int, writer: MonoWriter) -> int:
    """Samples that can be decoded, less one, of a flac whose header does not say.

    soundfile seeks to where a read ended, which fails at the end of such a file, and the block is lost. So
    the last block is read again, from a freshly opened file each time, in ever shorter pieces.
    """
    total = 0
    step = BLOCK_VALUES
    while step:
        with _open(fd) as file:
            step = min(step, max(1, BLOCK_VALUES // file.channels))
            try:
                if total:
                    file.seek(total)
                while True:
                    got = len(file.read(out=writer.frames(step, file.channels)))
                    total += got
                    if got < step:
                        return total
            except soundfile.LibsndfileError:
                step //= 2
    return total
