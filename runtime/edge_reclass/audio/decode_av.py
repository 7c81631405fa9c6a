"""Decode through PyAV (FFmpeg): what libsndfile does not know, and what it refuses or gives up.

PyAV is imported when the first such file comes. The demuxer is always named, never guessed by FFmpeg: among
those that it would guess are playlists, which open other files and the network.

Where a sample lies: positions count from the first sample that the decoder gives (FFmpeg drops the priming
that an m4a declares; adts and wma declare none, so there it stays in). Seeking aims PREROLL_SECONDS before
the excerpt, because lossy decoders need some frames before their output is that of a full decode, and the
frames' timestamps say where it arrived. aac bands coded by noise substitution hold random noise by design:
there an excerpt differs from a full decode in the noise, not in its position.

Packets that cannot be decoded are left out, and counted; zeros take their place where the timestamps of what
follows say that something is missing.

The length of the track is what the container declares; raw streams declare none (FFmpeg guesses from the bit
rate), so there the packets are counted, without decoding them.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from typing import Any, Final

from numpy.typing import NDArray

from edge_reclass.audio.mono import FULL_SCALE, MAX_CHANNELS, MonoWriter
from edge_reclass.audio.pieces import Pieces
from edge_reclass.errors import MissingExtraError, Status, TrackError

_NO_LENGTH: Final = frozenset({"aac", "mp3", "loas", "ac3", "eac3", "dts", "dtshd", "truehd", "mlp", "amr"})
"""Demuxers of streams that declare no length."""

_NO_LENGTH_CODECS: Final = ("dca", "ac3", "eac3")
"""Codecs whose packets are counted in a wav: its header means the bytes to be PCM."""

_RUNNING: Final = ("adpcm_yamaha", "adpcm_ct", "adpcm_sbpro", "adpcm_aica", "g722", "g726", "dfpwm", "sol_dpcm", "bonk")
"""Codecs (the beginnings of their names) whose every sample builds on all before it: there seeking is of no use."""

PREROLL_SECONDS: Final = 0.5
"""More than any decoder's memory: 10 mp3 frames of bit reservoir at 22.05 kHz are 0.26 s."""

_MAX_PLANES: Final = 8
"""AV_NUM_DATA_POINTERS of FFmpeg."""

_GAP_SECONDS: Final = 0.02
"""Timestamps that run ahead by more than this, and by half a frame, say that something is missing."""


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
    """Import PyAV; TrackError ``unsupported``, with the pip line, where it is not installed."""
    try:
        import av
    except ModuleNotFoundError as error:
        message = str(MissingExtraError(f"{what} is decoded by PyAV, which is not installed", "codecs"))
        raise TrackError(Status.UNSUPPORTED, message) from error
    except ImportError as error:
        # Its libraries are there, but do not load: not enough memory, or a mismatch.
        raise TrackError(Status.UNSUPPORTED, f"{what} is decoded by PyAV, which cannot be imported: {error}") from error
    return av


def has_av() -> bool:
    """True if PyAV can be imported."""
    try:
        import_av("")
    except TrackError:
        return False
    return True


class AvSource:
    """A file, or a view of one, and the demuxer that FFmpeg reads it with.

    Args:
        file: a descriptor, or a view; both stay open.
        demuxer: FFmpeg's name of it.
        seconds: how long it is, where that is known already.

    Raises:
        TrackError: it cannot be opened, holds no audio, or nothing of it can be decoded.
        OSError: of the file itself.
    """

    def __init__(self, file: int | Pieces, demuxer: str, seconds: Fraction | None = None) -> None:
        self._av = import_av(f"{demuxer} audio")
        self._file = file
        self._demuxer = demuxer
        self._seconds = seconds
        self.packets = self.bad_packets = 0
        self.error: str | None = None
        try:
            self._probe()
        except self._av.FFmpegError as error:
            raise TrackError(Status.CORRUPT, f"cannot be decoded: {error.strerror}") from error

    def read(self, start: int, writer: MonoWriter) -> int | None:
        """See ``Source.read``."""
        preroll = round(PREROLL_SECONDS * self.rate)
        try:
            # At the beginning without a seek: after one, FFmpeg does not give the priming to the decoder.
            seek = start > preroll and not self.codec.startswith(_RUNNING)
            if seek and self._read(start, start - preroll, writer):
                return self._ended
            # The seek arrived behind the excerpt's start, or failed; there is always the long way.
            if not writer.done:
                self._read(start, None, writer)
        except self._av.FFmpegError as error:
            self.error = f"cannot be decoded: {error.strerror}"
            return None
        return self._ended

    def measure(self, writer: MonoWriter) -> int:
        """See ``Source.measure``: by the packets' timestamps."""
        del writer
        with self._open() as container:
            last = 0
            for packet in container.demux(self._stream(container)):
                if packet.pts is not None:
                    end = (packet.pts - self._origin + (packet.duration or 0)) * self._tick
                    last = max(last, round(end))
        return last

    def _open(self) -> AbstractContextManager[Any]:
        file = self._file if isinstance(self._file, Pieces) else _File(self._file, "rb", closefd=False)
        file.seek(0)
        try:
            container: AbstractContextManager[Any] = self._av.open(
                file, mode="r", format=self._demuxer, metadata_errors="ignore"
            )
        except ValueError as error:
            if isinstance(error, self._av.error.FFmpegError):
                raise  # about the file; else it is about the demuxer's name
            has = f"the FFmpeg of PyAV {self._av.__version__} cannot read {self._demuxer} files"
            raise TrackError(Status.UNSUPPORTED, f"{has} ({error}); a newer PyAV may") from error
        return container

    def _stream(self, container: Any) -> Any:
        """The first audio stream that there is a decoder for."""
        streams = container.streams.audio
        if not streams:
            if len(container.streams):
                raise TrackError(Status.UNSUPPORTED, "the container holds no audio stream")
            raise TrackError(Status.CORRUPT, "the container holds no stream")
        for stream in streams:
            if stream.codec_context is not None:
                return stream
        raise TrackError(Status.UNSUPPORTED, "FFmpeg has no decoder for the audio stream")

    def _probe(self) -> None:
        """What the first frame and the container say."""
        with self._open() as container:
            stream = self._stream(container)
            damaged = False
            first = None
            for _, frame in self._frames(container, stream):
                if frame is not None and frame.sample_rate > 0:
                    first = frame
                    break
                damaged = damaged or frame is None
            self.codec = str(stream.codec_context.name)
            if first is None:
                if damaged:
                    raise TrackError(Status.CORRUPT, "no packet of the audio stream can be decoded")
                raise TrackError(Status.EMPTY, "the decoder gives no samples for the audio stream")
            self.rate = int(first.sample_rate)
            self.channels = _samples(first).shape[1]
            # Samples per tick of the time base. In a flac, frames are numbered by samples, whatever a false header in
            # damaged data made FFmpeg believe of the rate.
            self._tick = Fraction(1) if self._demuxer == "flac" else Fraction(stream.time_base) * self.rate
            self._origin = int(first.pts or 0)  # timestamp of the first sample, in ticks
            self._frame_samples = int(first.samples)
            guessed = self._demuxer in _NO_LENGTH or (self._demuxer == "wav" and self.codec in _NO_LENGTH_CODECS)
            declared = None if guessed and not self._seconds else self._declared_total(stream, container)
        self.total = self._counted_total() if declared is None else declared
        if self.total <= 0:
            raise TrackError(Status.EMPTY, "an audio stream without samples")

    def _declared_total(self, stream: Any, container: Any) -> int | None:
        if self._seconds is not None:
            return round(self._seconds * self.rate)
        if stream.duration is not None and stream.duration > 0:
            return round(int(stream.duration) * self._tick)
        if container.duration is not None and container.duration > 0:
            return round(Fraction(container.duration, 1_000_000) * self.rate)
        return None

    def _counted_total(self) -> int:
        with self._open() as container:
            packets = container.demux(self._stream(container))
            total = round(sum(packet.duration or 0 for packet in packets) * self._tick)
        if total:
            return total
        with self._open() as container:
            frames = self._frames(container, self._stream(container))
            return sum(frame.samples for _, frame in frames if frame is not None)

    def _frames(self, container: Any, stream: Any) -> Iterator[tuple[Any, Any]]:
        """Packets and their frames in order, None in the place of the frames of one that cannot be decoded."""
        if stream.codec_context.name == "flac":
            # Else a frame that fails its checksum is played, as what it has become.
            stream.codec_context.options = {"err_detect": "crccheck+explode"}
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except self._av.FFmpegError:
                if packet.size:
                    yield packet, None
            else:
                for frame in frames:
                    yield packet, frame

    def _position(self, pts: int) -> int:
        """Where a frame with a timestamp begins, in samples of the track.

        A time base coarser than a sample (wma: milliseconds) is made exact by the frames' constant length.
        """
        exact = (pts - self._origin) * self._tick
        if self._tick > 1 and self._frame_samples:
            on_grid = round(exact / self._frame_samples) * self._frame_samples
            if abs(on_grid - exact) <= self._tick:
                return on_grid
        return round(exact)

    def _read(self, start: int, seek_to: int | None, writer: MonoWriter) -> bool:
        """Write the samples from ``start`` on; False, with nothing written, if the seek did not arrive before it."""
        self._ended: int | None = None
        with self._open() as container:
            stream = self._stream(container)
            if seek_to is not None:
                try:
                    container.seek(self._origin + int(seek_to / self._tick), stream=stream, backward=True)
                except self._av.FFmpegError:
                    return False
            position = None if seek_to is not None else 0
            threshold = max(2 * float(self._tick), _GAP_SECONDS * self.rate, self._frame_samples / 2)
            for packet, frame in self._frames(container, stream):
                if frame is None or frame.sample_rate != self.rate:
                    self._note_bad(packet, start, position, writer)
                    continue
                try:
                    samples = _samples(frame)
                except TrackError:
                    self._note_bad(packet, start, position, writer)
                    continue
                stamped = None if frame.pts is None else self._position(int(frame.pts))
                # Until the excerpt begins, timestamps lead.
                if not writer.done and stamped is not None:
                    position = stamped
                if position is None:
                    continue
                if position > start and not writer.done:
                    if seek_to is not None:
                        return False
                    writer.gap(min(position - start, writer.missing))
                # Inside, samples are contiguous, but where the timestamps leave a gap.
                if writer.done and stamped is not None:
                    ahead = stamped - position
                    if stamped <= self.total and ahead > threshold:
                        writer.gap(min(ahead, writer.missing))
                        position = stamped
                self.packets += position + len(samples) > start
                skip = max(0, start - position) if not writer.done else 0
                position += len(samples)
                writer.append(samples[skip : skip + writer.missing])
                if not writer.missing:
                    return True
        if position is None and seek_to is not None:
            return False
        self._ended = position or 0
        return True

    def _note_bad(self, packet: Any, start: int, position: int | None, writer: MonoWriter) -> None:
        """Count a packet that cannot be decoded, if it belongs to the excerpt."""
        at = self._position(int(packet.pts)) if packet.pts is not None else position
        if writer.done or (at is not None and at >= start):
            self.packets += 1
            self.bad_packets += 1
            writer.note_spoilt(writer.done if at is None else at - start, self._frame_samples)


def _packed(frame: Any) -> Any:
    """The frame with its channels interleaved: PyAV 18 follows the pointers to 8 planes or more beyond their end."""
    av = import_av("")
    converter = av.AudioResampler(format=frame.format.packed.name, layout=frame.layout, rate=frame.sample_rate)
    parts = converter.resample(frame)
    if len(parts) != 1 or parts[0].samples != frame.samples:
        raise TrackError(Status.UNSUPPORTED, f"{len(frame.layout.channels)} channels in planes cannot be interleaved")
    return parts[0]


def _samples(frame: Any) -> NDArray[Any]:
    """The frame's samples as [n, channels], in the decoder's own type."""
    if frame.format.is_planar and len(frame.layout.channels) >= _MAX_PLANES:
        frame = _packed(frame)
    try:
        values: NDArray[Any] = frame.to_ndarray()
    except ValueError as error:
        raise TrackError(Status.UNSUPPORTED, f"sample format {frame.format.name}: {error}") from error
    if values.dtype not in FULL_SCALE:
        raise TrackError(Status.UNSUPPORTED, f"sample format {frame.format.name}")
    samples = values.T if frame.format.is_planar else values.reshape(frame.samples, -1)
    if not 1 <= samples.shape[1] <= MAX_CHANNELS:
        raise TrackError(Status.UNSUPPORTED, f"{samples.shape[1]} channels, expected 1 to {MAX_CHANNELS}")
    return samples
