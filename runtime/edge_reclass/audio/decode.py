"""One file in, one ``Decoded`` out; whatever is wrong with the file becomes a TrackError.

libsndfile is asked first for what it knows, PyAV (FFmpeg) for the rest, and where libsndfile refuses a file or
cannot read on; of two attempts at a damaged file, the one that decodes more counts.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio.decode_av import AvSource, has_av, import_av
from edge_reclass.audio.decode_frames import FramesSource
from edge_reclass.audio.decode_soundfile import NotDecodableHere, SoundfileSource
from edge_reclass.audio.decoded import Decoded
from edge_reclass.audio.excerpt import ExcerptSpec, Limits
from edge_reclass.audio.formats import demuxer_of, has_audio_suffix, named_container, needs_pyav, sniff, suffix_of
from edge_reclass.audio.mono import MonoWriter, check_out
from edge_reclass.audio.mpeg import tag_fits, walk
from edge_reclass.audio.ogg import links
from edge_reclass.audio.pieces import Piece, Pieces
from edge_reclass.audio.protection import is_protected
from edge_reclass.audio.quiet import quiet_c_stderr
from edge_reclass.audio.reading import Attempt, Choose, Source, attempt, read_on
from edge_reclass.audio.riff import holds_bitstream, read_wave
from edge_reclass.audio.runs import Run
from edge_reclass.audio.track import OpenTrack
from edge_reclass.errors import Status, TrackError

_FOR_SOUNDFILE: Final = frozenset(
    {"riff", "flac", "ogg", "aiff", "caf", "w64", "au", "voc", "nist", "iff", "mpeg", None}
)

_MAX_HEADER_BYTES: Final = 1 << 16
"""A file that is larger than this and gives no samples is damaged, not empty."""

_Way = tuple[Callable[[], Sequence[Source]], bool]
"""Opens the sources; and whether the excerpts are located again where the track ends early."""


class Decoder:
    """Decodes files into the caller's buffer. Owns the block in between; not for several threads at once."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        self._limits = limits
        self._writer = MonoWriter()

    def decode(
        self,
        path: str | bytes | os.PathLike[str],
        specs: Sequence[ExcerptSpec],
        out: NDArray[np.float32],
    ) -> Decoded:
        """Decode the segments that hold the excerpts, as mono, into ``out``, at the file's own rate or ``max_rate``.

        The content decides how, not the suffix; a file whose content is not recognised is ``corrupt`` if its suffix
        is an audio suffix, else ``unsupported``. Where a file ends before the end that it declares, the excerpt is
        located again within what there is.

        Args:
            path: of the file.
            specs: the excerpts, at least one.
            out: float32 [capacity].

        Raises:
            ValueError: another ``out``, or empty ``specs``.
            TrackError: ``missing`` (no such file, dangling link); ``unreadable`` (permission denied, or the file system
                failed); ``unsupported`` (not a regular file, not audio, a codec that is not known, protected, PyAV
                needed but not installed, a rate outside 4 kHz to 12.288 MHz); ``corrupt`` (cannot be decoded; NaN or
                infinity in the excerpt; less than MIN_DECODED of it decodes, or more than MAX_BAD_PACKETS of its
                packets are damaged); ``empty`` (0 bytes, or a header without samples); ``too_long`` (a full track of
                more seconds than the limits allow, or more samples than ``out`` holds).
            MemoryError: passes through.
        """
        with self._file(path, specs, out) as file:
            return file.first().result()

    @contextmanager
    def open(
        self,
        path: str | bytes | os.PathLike[str],
        specs: Sequence[ExcerptSpec],
        out: NDArray[np.float32],
        choose: Choose | None = None,
    ) -> Iterator[OpenTrack]:
        """As :meth:`decode`, but read only what is chosen, and the rest when it is asked for, while the file is open.

        Where the excerpts lie, and what is heard of channels that cancel, follows from what is read first.

        Args:
            path: of the file.
            specs: the excerpts, at least one.
            out: float32 [capacity], for all of the excerpts.
            choose: given the track's samples and their rate, the runs to read first; None: all.

        Raises:
            ValueError: as :meth:`decode`.
            TrackError: as :meth:`decode`, but for what lacks or is damaged, which ``OpenTrack.check`` tells.
        """
        with self._file(path, specs, out) as file:
            yield OpenTrack(file, choose)

    @contextmanager
    def _file(
        self, path: str | bytes | os.PathLike[str], specs: Sequence[ExcerptSpec], out: NDArray[np.float32]
    ) -> Iterator[_OneFile]:
        check_out(out)
        if not specs:
            raise ValueError("at least one ExcerptSpec is needed")
        path = os.fsdecode(path)
        with open_regular(path) as fd:
            with _reading():
                if os.fstat(fd).st_size == 0:
                    raise TrackError(Status.EMPTY, "the file has 0 bytes")
                file = _OneFile(fd, path, specs, out, self._writer, self._limits)
            try:
                yield file
            finally:
                file.close()


class _OneFile:
    """The ways to decode one opened file, one after the other; a ``track.Readable``."""

    def __init__(
        self,
        fd: int,
        path: str,
        specs: Sequence[ExcerptSpec],
        out: NDArray[np.float32],
        writer: MonoWriter,
        limits: Limits,
    ) -> None:
        self._fd, self._path, self._specs, self._out = fd, path, specs, out
        self._writer, self._limits = writer, limits
        self._container, self._offset = sniff(fd)
        self._seconds: list[Fraction | None] = []
        self._opened: list[SoundfileSource] = []
        self._start_anew(None)

    def close(self) -> None:
        """Let go of what the decoders have open. At once: no disk could be unmounted while a decoder has its file."""
        for source in self._opened:
            source.close()
        self._opened.clear()
        self._start_anew(None)

    def _start_anew(self, choose: Choose | None) -> None:
        self._choose = choose
        self._tried: list[tuple[Attempt, _Way]] = []
        self._errors: list[TrackError | NotDecodableHere] = []
        self._known: list[_Way] = []
        self._others: Iterator[_Way] = iter(())
        self._chosen: _Way | None = None

    def first(self, choose: Choose | None = None) -> Attempt:
        """What the first way gives that gets through; else what the best gives."""
        with _reading():
            self._start_anew(choose)
            if self._container is None and not has_audio_suffix(self._path):
                raise TrackError(Status.UNSUPPORTED, "neither suffix nor content is that of a known audio format")
            if is_protected(self._fd, self._container):
                raise TrackError(Status.UNSUPPORTED, "protected (DRM): only the shop's own player can decode it")
            if self._container in _FOR_SOUNDFILE:
                return self._by_soundfile()
            self._need_av()
            return self._by([(self._av, True)])

    def more(self, first: Attempt, runs: Sequence[Run]) -> Attempt:
        """Further runs, in the way in which the first were read; where it gets stuck, in the others too."""
        with _reading():
            tried: list[tuple[Attempt, Sequence[Source]]] = []
            failed: TrackError | None = None
            for sources in self._sources_for_more(first):
                try:
                    done = read_on(sources, first, runs, self._out, self._writer, self._limits)
                except NotDecodableHere as error:  # the file has changed since
                    failed = failed or TrackError(Status.CORRUPT, f"cannot be read on: {error}")
                    continue
                except TrackError as error:
                    if error.status != Status.CORRUPT:
                        raise
                    failed = failed or error
                    continue
                tried.append((done, sources))
                if done.conclusive:
                    break
            if not tried:
                raise failed or TrackError(Status.CORRUPT, "nothing more of the excerpt can be decoded")
            best = _most([done for done, _ in tried])
            done, sources = tried[best]
            if best < len(tried) - 1 or failed is not None:
                done = read_on(sources, first, runs, self._out, self._writer, self._limits)
            return done

    def _sources_for_more(self, first: Attempt) -> Iterator[Sequence[Source]]:
        yield first.sources
        self._known.extend(self._others)
        for way in self._known:
            if way is self._chosen:
                continue
            try:
                sources = way[0]()
            except (NotDecodableHere, TrackError):
                continue
            yield sources

    # The ways, in the order in which they are tried.

    def _by_soundfile(self) -> Attempt:
        if self._container is None and needs_pyav(self._path):
            import_av(f"{suffix_of(self._path)} audio")
        wave = read_wave(self._fd, self._offset) if self._container == "riff" else None
        if wave is not None and holds_bitstream(self._fd, wave):
            self._need_av("a DTS or S/PDIF bit stream")
            return self._by([(self._bitstream, True)])
        return self._by(self._ways(), known=wave is None or wave.known)

    def _by(self, ways: Iterable[_Way], known: bool = True) -> Attempt:
        """What the first of the ways gives that gets through, else the best; ``known``: see ``_refuse``."""
        self._others = iter(ways)
        for way in self._others:
            self._known.append(way)
            if self._try(way) and self._tried[-1][0].conclusive:
                break
        if not self._tried:
            self._refuse(known)
        return self._best()

    def _ways(self) -> Iterator[_Way]:
        """Ways to decode what libsndfile may know; PyAV is imported when it comes to that."""
        if self._is_mpeg():
            yield self._mpeg, False
            yield self._frames, False
            if has_av():
                yield partial(self._frames, partial(AvSource, demuxer="mp3")), False
        else:
            yield self._soundfile, False
        if not has_av():
            yield partial(self._soundfile, skip_damage=True), True
        elif self._demuxer() is not None:
            yield self._av, True

    def _is_mpeg(self) -> bool:
        return self._container == "mpeg" or (self._container is None and named_container(self._path) == "mpeg")

    def _demuxer(self) -> str | None:
        container = self._container or named_container(self._path)
        return None if container is None else demuxer_of(container)

    def _soundfile(self, skip_damage: bool = False) -> Sequence[Source]:
        views = self._views()
        sources = [self._source(view, skip_damage) for view in views]
        for source in sources:
            if not source.length_known:
                source.total = source.measure(self._writer)
        self._seconds = [Fraction(source.total, source.rate) if source.rate else None for source in sources]
        return sources

    def _source(self, view: int | Pieces, skip_damage: bool = False) -> SoundfileSource:
        source = SoundfileSource(view, skip_damage=skip_damage)
        self._opened.append(source)
        return source

    def _views(self) -> Sequence[int | Pieces]:
        """The file as decoders can read it: by its descriptor, or without a tag in front, link by link."""
        if self._container in ("ogg", "ogg-other"):
            parts = links(self._fd, self._offset)
            if len(parts) > 1 or self._offset:
                return [Pieces(self._fd, [part]) for part in parts]
        if self._container == "riff":
            wave = read_wave(self._fd, self._offset)
            streamed = wave.streamed(self._fd) if wave is not None else None
            if streamed is not None:
                return [Pieces(self._fd, streamed)]
        if self._offset and self._container not in ("mpeg", "aac", None):
            whole: Piece = (self._offset, os.fstat(self._fd).st_size - self._offset)
            return [Pieces(self._fd, [whole])]
        return [self._fd]

    def _mpeg(self) -> Sequence[Source]:
        fits = tag_fits(self._fd, self._offset)
        if fits:
            return self._soundfile()
        groups = walk(self._fd)
        if not groups:
            return self._soundfile()  # free format, or none
        if len(groups) == len(groups[0].runs) == 1:
            try:
                source = self._source(self._fd)
            except NotDecodableHere:
                pass  # junk in front that it does not look behind
            else:
                counted = groups[0].total
                # Without a tag it estimates, and ends there; a tag that is wrong leads it astray.
                near = abs(source.total - counted) <= 3 * groups[0].samples
                if source.rate == groups[0].rate and (source.total >= counted if fits is None else near):
                    source.total = min(source.total, counted)
                    return [source]
                source.close()
        return self._frames()

    def _frames(self, open_view: Callable[[Pieces], Source] = SoundfileSource) -> Sequence[Source]:
        sources = [FramesSource(self._fd, frames, open_view) for frames in walk(self._fd)]
        if not sources:
            raise TrackError(Status.CORRUPT, "no MPEG audio frames")
        return sources

    def _av(self) -> Sequence[Source]:
        demuxer = self._demuxer()
        if demuxer is None:
            raise TrackError(Status.CORRUPT, "not audio, or damaged at its beginning")
        views = self._views()
        # What libsndfile read in the header is less of a guess than FFmpeg's.
        seconds = self._seconds if len(self._seconds) == len(views) else [None] * len(views)
        return [AvSource(view, demuxer, known or None) for view, known in zip(views, seconds, strict=True)]

    def _bitstream(self) -> Sequence[Source]:
        source = AvSource(self._fd, "wav")
        if source.codec.startswith("pcm"):
            raise TrackError(Status.UNSUPPORTED, "a DTS or S/PDIF bit stream in a wav that FFmpeg does not recognise")
        return [source]

    # What becomes of them.

    def _try(self, way: _Way) -> bool:
        """Attempt one way; False if it is none."""
        try:
            done = self._attempt(way)
        except NotDecodableHere as error:
            self._errors.append(error)
            return False
        except TrackError as error:
            if error.status not in ("corrupt", "empty", "unsupported"):
                raise
            self._errors.append(error)
            return False
        self._tried.append((done, way))
        return True

    def _attempt(self, way: _Way) -> Attempt:
        make, again = way
        return attempt(
            make(), self._specs, self._out, self._writer, self._limits, locate_again=again, choose=self._choose
        )

    def _best(self) -> Attempt:
        """The attempt that decodes most; made again if another came after it."""
        best = _most([done for done, _ in self._tried])
        done, self._chosen = self._tried[best]
        return done if best == len(self._tried) - 1 else self._attempt(self._chosen)

    def _need_av(self, what: str | None = None) -> None:
        import_av(what or f"{suffix_of(self._path) or self._container} audio")

    def _refuse(self, known: bool = True) -> None:
        """Raise for a file that there is no way to decode."""
        first = self._errors[0]
        if isinstance(first, TrackError) and first.status == "empty" and self._container not in ("riff", "aiff", "au"):
            size = os.fstat(self._fd).st_size
            if size > _MAX_HEADER_BYTES:
                raise TrackError(Status.CORRUPT, f"a header, and {size} bytes of which nothing can be decoded")
        for error in self._errors:
            if isinstance(error, TrackError) and error.status == "unsupported":
                raise error
        if isinstance(first, TrackError):
            raise first
        if first.recognised or not known:
            need = "" if has_av() else "; the extra [codecs] brings PyAV, which knows more codecs"
            raise TrackError(Status.UNSUPPORTED, f"no decoder for what is in this file: {first}{need}") from first
        # Two bytes are no proof: text in UTF-16 begins like an mpeg header.
        known = has_audio_suffix(self._path) or self._container not in (None, "mpeg")
        status = Status.CORRUPT if known else Status.UNSUPPORTED
        raise TrackError(status, f"not audio, or damaged at its beginning: {first}") from first


def _most(attempts: Sequence[Attempt]) -> int:
    """Index of the attempt that decodes most, of the later one of two equals."""
    return max(range(len(attempts)), key=lambda i: (attempts[i].got, i))


@contextmanager
def _reading() -> Iterator[None]:
    """Around all that reads the file."""
    with quiet_c_stderr():
        try:
            yield
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise MemoryError("not enough memory to read this track") from error
            raise TrackError(Status.UNREADABLE, f"cannot be read: {error.strerror or error}") from error


@contextmanager
def open_regular(path: str) -> Iterator[int]:
    """A descriptor for reading a regular file; never waits for a pipe's writer, never opens a device.

    Raises:
        TrackError: it is not there, no regular file, or cannot be opened.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            raise TrackError(Status.UNSUPPORTED, "not a regular file")
        # O_NONBLOCK in case that the path has become a pipe since.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        dangling = os.path.islink(path)  # noqa: PTH114
        raise TrackError(Status.MISSING, "a dangling link" if dangling else "no such file") from error
    except OSError as error:
        status = Status.MISSING if error.errno == errno.ENAMETOOLONG else Status.UNREADABLE
        raise TrackError(status, f"cannot be opened: {error.strerror or error}") from error
    except ValueError as error:
        raise TrackError(Status.MISSING, f"no path of a file: {error}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise TrackError(Status.UNSUPPORTED, "not a regular file")
        yield fd
    finally:
        os.close(fd)
