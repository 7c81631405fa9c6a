"""One file in, one ``Decoded`` out; whatever is wrong with the file becomes a TrackError."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio.decode_av import Demuxer, decode_av, import_av
from edge_reclass.audio.decode_soundfile import NotDecodableHere, decode_soundfile
from edge_reclass.audio.excerpt import Decoded, ExcerptSpec, Limits
from edge_reclass.audio.formats import Container, is_audio, needs_pyav, sniff
from edge_reclass.audio.mono import MonoWriter, check_out
from edge_reclass.errors import TrackError

__all__ = ["Decoder"]

_DEMUXERS: Final[dict[Container | None, Demuxer]] = {"mov": "mov", "aac": "aac", "asf": "asf", "ogg-other": "ogg"}
"""What libsndfile does not know."""


class Decoder:
    """Decodes files into the caller's buffer. Owns the block in between; not for several threads at once."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        """``limits``: highest sample rate and longest excerpt that are accepted."""
        self._limits = limits
        self._writer = MonoWriter()

    def decode(
        self,
        path: str | bytes | os.PathLike[str],
        specs: Sequence[ExcerptSpec],
        out: NDArray[np.float32],
    ) -> Decoded:
        """Decode the union of the excerpts (``locate_union``) at the file's own rate, as mono, into ``out``.

        The content decides how, not the suffix; a file whose content is not recognised is ``corrupt`` if its
        suffix is an audio suffix, else ``unsupported``. ``out``: float32 [capacity]. ValueError for another
        ``out`` or empty ``specs``. MemoryError passes through. Everything else is a TrackError:

        missing: no such file, dangling link
        unreadable: permission denied, or the file system failed
        unsupported: not a regular file, not audio, a codec that is not known, PyAV needed but not installed
            (the message has the pip line), a rate outside 8 kHz to the limits' ``max_rate``
        corrupt: cannot be decoded; NaN or infinity in the excerpt; an excerpt that decodes short by more than
            0.1 s (or half of it, if that is less). A truncated file whose excerpt is complete is fine.
        empty: 0 bytes, or a header without samples
        too_long: more seconds than the limits allow, or samples than ``out`` holds
        """
        check_out(out)
        if not specs:
            raise ValueError("at least one ExcerptSpec is needed")
        path = os.fsdecode(path)
        with _open_regular(path) as fd:
            try:
                return self._decode(fd, path, specs, out)
            except OSError as error:
                raise TrackError("unreadable", f"cannot be read: {error.strerror or error}") from error

    def _decode(self, fd: int, path: str, specs: Sequence[ExcerptSpec], out: NDArray[np.float32]) -> Decoded:
        if os.fstat(fd).st_size == 0:
            raise TrackError("empty", "the file has 0 bytes")
        container = sniff(fd)
        if container is None and not is_audio(path):
            raise TrackError("unsupported", "neither suffix nor content is that of a known audio format")
        demuxer = _DEMUXERS.get(container)
        if demuxer is not None:
            return decode_av(fd, demuxer, specs, out, self._writer, self._limits)
        try:
            return decode_soundfile(fd, specs, out, self._writer, self._limits)
        except NotDecodableHere as refused:
            return self._second_choice(fd, path, container, refused, specs, out)

    def _second_choice(
        self,
        fd: int,
        path: str,
        container: Container | None,
        refused: NotDecodableHere,
        specs: Sequence[ExcerptSpec],
        out: NDArray[np.float32],
    ) -> Decoded:
        """What becomes of a file that libsndfile cannot open."""
        if container is None and needs_pyav(path):
            import_av(f"{os.path.splitext(path)[1].lower()} audio")  # noqa: PTH122
        if container == "mpeg" or (container is None and path.lower().endswith(".mp3")):
            # FFmpeg finds mp3 frames behind junk, two of them in a row, that libsndfile does not look for.
            try:
                return decode_av(fd, "mp3", specs, out, self._writer, self._limits)
            except TrackError as error:
                # Without PyAV, or where FFmpeg can do nothing with it either, libsndfile's answer stands.
                if error.status not in ("unsupported", "corrupt"):
                    raise
        if refused.recognised:
            raise TrackError("unsupported", f"libsndfile cannot decode this: {refused}") from refused
        # Two bytes are no proof: text in UTF-16 begins like an mpeg header.
        status = "corrupt" if is_audio(path) or container not in (None, "mpeg") else "unsupported"
        raise TrackError(status, f"not audio, or damaged at its beginning: {refused}") from refused


@contextmanager
def _open_regular(path: str) -> Iterator[int]:
    """A descriptor for reading a regular file; never waits for a pipe's writer, never opens a device."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            raise TrackError("unsupported", "not a regular file")
        # O_NONBLOCK in case that the path has become a pipe since.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        dangling = os.path.islink(path)  # noqa: PTH114
        raise TrackError("missing", "a dangling link" if dangling else "no such file") from error
    except OSError as error:
        status = "missing" if error.errno == errno.ENAMETOOLONG else "unreadable"
        raise TrackError(status, f"cannot be opened: {error.strerror or error}") from error
    except ValueError as error:
        raise TrackError("missing", f"no path of a file: {error}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise TrackError("unsupported", "not a regular file")
        yield fd
    finally:
        os.close(fd)
