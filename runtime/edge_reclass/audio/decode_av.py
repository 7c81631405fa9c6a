"""Decode through PyAV (FFmpeg): m4a (aac, alac), adts aac, wma; and ogg and mp3 that libsndfile refuses.

PyAV is imported when the first such file comes. The demuxer is always named, never guessed by FFmpeg: among
those that it would guess are playlists, which open other files and the network.

Where a sample lies: positions count from the first sample that the decoder gives (FFmpeg drops the priming
that an m4a declares; adts and wma declare none, so there it stays in). Seeking aims PREROLL_SECONDS before
the excerpt, because lossy decoders need some frames before their output is that of a full decode, and the
frames' timestamps say where it arrived. aac bands coded by noise substitution hold random noise by design:
there an excerpt differs from a full decode in the noise, not in its position.

The length of the track is what the container declares; adts and mp3 declare none (FFmpeg guesses from the bit
rate), so there the packets are counted, without decoding them.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio.excerpt import Decoded, ExcerptSpec, Limits, locate_union
from edge_reclass.audio.mono import FULL_SCALE, MAX_CHANNELS, MonoWriter
from edge_reclass.errors import MissingExtraError, TrackError

__all__ = ["PREROLL_SECONDS", "Demuxer", "decode_av", "import_av"]

Demuxer = Literal["mov", "aac", "asf", "mp3", "ogg"]
"""FFmpeg's names of the demuxers that are used."""

_NO_LENGTH: Final = ("aac", "mp3")

PREROLL_SECONDS: Final = 0.5
"""More than any decoder's memory: 10 mp3 frames of bit reservoir at 22.05 kHz are 0.26 s."""


@dataclass(frozen=True)
class _Track:
    """What the first frame and the container say."""

    rate: int
    channels: int
    origin: int  # timestamp of the first sample, in ticks
    tick: Fraction  # samples per tick of the stream's time base
    frame_samples: int
    total: int


class _File(io.FileIO):
    def seek(self, offset: int, whence: int = 0, /) -> int:
        """As FileIO's, but -1, which FFmpeg takes for a failure, where a damaged file leads before its beginning.

        PyAV would keep the exception, and print it when the next one comes.
        """
        try:
            return super().seek(offset, whence)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return -1
            raise


def import_av(what: str) -> Any:
    """The module ``av``. TrackError ``unsupported`` with the pip line where it is not installed."""
    try:
        import av
    except ImportError as error:
        message = str(MissingExtraError(f"{what} is decoded by PyAV, which is not installed", "codecs"))
        raise TrackError("unsupported", message) from error
    return av


def decode_av(
    fd: int,
    demuxer: Demuxer,
    specs: Sequence[ExcerptSpec],
    out: NDArray[np.float32],
    writer: MonoWriter,
    limits: Limits,
) -> Decoded:
    """Decode the union of the excerpts from an open file into ``out``; the file stays open.

    TrackError for all failures but an OSError of the file itself, which passes.
    """
    av = import_av(f"{demuxer} audio")
    with _File(fd, "rb", closefd=False) as file:
        try:
            track = _probe(av, file, demuxer)
            limits.check_rate(track.rate)
            start, count = locate_union(track.total, track.rate, specs)
            limits.check_fits(count, track.rate, len(out))
            preroll = round(PREROLL_SECONDS * track.rate)
            # At the beginning without a seek: after one, FFmpeg does not give the priming to the decoder.
            seek_to = start - preroll if start > preroll else None
            writer.begin(out[:count])
            if not _read(av, file, demuxer, track, start, seek_to, writer):
                # The seek arrived behind the excerpt's start; there is always the long way.
                writer.begin(out[:count])
                _read(av, file, demuxer, track, start, None, writer)
        except av.FFmpegError as error:
            raise TrackError("corrupt", f"cannot be decoded: {error.strerror}") from error
    return writer.finish(track.rate, track.channels, start, track.total)


def _open(av: Any, file: io.FileIO, demuxer: Demuxer) -> AbstractContextManager[Any]:
    file.seek(0)
    container: AbstractContextManager[Any] = av.open(file, mode="r", format=demuxer, metadata_errors="ignore")
    return container


def _audio_stream(container: Any) -> Any:
    if not container.streams.audio:
        if len(container.streams):
            raise TrackError("unsupported", "the container holds no audio stream")
        raise TrackError("corrupt", "the container holds no stream")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise TrackError("unsupported", "FFmpeg has no decoder for the audio stream")
    return stream


def _probe(av: Any, file: io.FileIO, demuxer: Demuxer) -> _Track:
    with _open(av, file, demuxer) as container:
        stream = _audio_stream(container)
        damaged = False
        first = None
        for frame in _frames(av, container, stream):
            if frame is not None:
                first = frame
                break
            damaged = True
        if first is None:
            if damaged:
                raise TrackError("corrupt", "no packet of the audio stream can be decoded")
            raise TrackError("empty", "the decoder gives no samples for the audio stream")
        rate = int(first.sample_rate)
        if rate <= 0:
            raise TrackError("corrupt", f"sample rate {rate} Hz in the audio stream")
        tick = Fraction(stream.time_base) * rate
        declared = None if demuxer in _NO_LENGTH else _declared_total(stream, container, tick, rate)
        channels = _samples(first).shape[1]
        origin = int(first.pts or 0)
        frame_samples = int(first.samples)
    total = _counted_total(av, file, demuxer, tick) if declared is None else declared
    if total <= 0:
        raise TrackError("empty", "an audio stream without samples")
    return _Track(rate, channels, origin, tick, frame_samples, total)


def _declared_total(stream: Any, container: Any, tick: Fraction, rate: int) -> int | None:
    if stream.duration is not None and stream.duration > 0:
        return round(int(stream.duration) * tick)
    if container.duration is not None and container.duration > 0:
        return round(Fraction(container.duration, 1_000_000) * rate)
    return None


def _counted_total(av: Any, file: io.FileIO, demuxer: Demuxer, tick: Fraction) -> int:
    with _open(av, file, demuxer) as container:
        packets = container.demux(_audio_stream(container))
        return round(sum(packet.duration or 0 for packet in packets) * tick)


def _frames(av: Any, container: Any, stream: Any) -> Iterator[Any]:
    """The stream's frames in order, None in the place of every packet that cannot be decoded."""
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            yield None
        else:
            yield from frames


def _samples(frame: Any) -> NDArray[Any]:
    """The frame's samples as [n, channels], in the decoder's own type."""
    try:
        values: NDArray[Any] = frame.to_ndarray()
    except ValueError as error:
        raise TrackError("unsupported", f"sample format {frame.format.name}: {error}") from error
    if values.dtype not in FULL_SCALE:
        raise TrackError("unsupported", f"sample format {frame.format.name}")
    samples = values.T if frame.format.is_planar else values.reshape(frame.samples, -1)
    if not 1 <= samples.shape[1] <= MAX_CHANNELS:
        raise TrackError("unsupported", f"{samples.shape[1]} channels, expected 1 to {MAX_CHANNELS}")
    return samples


def _position(frame: Any, track: _Track) -> int:
    """Where a frame with a timestamp begins, in samples of the track.

    A time base coarser than a sample (wma: milliseconds) is made exact by the frames' constant length.
    """
    exact = (int(frame.pts) - track.origin) * track.tick
    if track.tick > 1 and track.frame_samples:
        on_grid = round(exact / track.frame_samples) * track.frame_samples
        if abs(on_grid - exact) <= track.tick:
            return on_grid
    return round(exact)


def _read(
    av: Any,
    file: io.FileIO,
    demuxer: Demuxer,
    track: _Track,
    start: int,
    seek_to: int | None,
    writer: MonoWriter,
) -> bool:
    """Write the samples from ``start`` on; False, with nothing written, if the seek arrived behind it."""
    with _open(av, file, demuxer) as container:
        stream = _audio_stream(container)
        if seek_to is not None:
            container.seek(track.origin + int(seek_to / track.tick), stream=stream, backward=True)
        position = None if seek_to is not None else 0
        for frame in _frames(av, container, stream):
            if frame is None:
                if writer.begun:
                    break  # what follows would lie at the wrong place; finish() says whether it is needed
                continue
            if frame.sample_rate != track.rate:
                raise TrackError("corrupt", f"the sample rate changes from {track.rate} to {frame.sample_rate} Hz")
            # Until the excerpt begins, timestamps lead; inside, samples are contiguous.
            if not writer.begun and frame.pts is not None:
                position = _position(frame, track)
            if position is None:
                continue
            if position > start and not writer.begun:
                return False
            samples = _samples(frame)
            skip = max(0, start - position) if not writer.begun else 0
            position += len(samples)
            writer.append(samples[skip : skip + writer.missing])
            if not writer.missing:
                break
    return True
