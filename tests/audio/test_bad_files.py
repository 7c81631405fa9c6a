"""Bad files: the right status for each, never another exception, never a hang, nothing on stderr."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import synth
from edge_reclass.audio import Decoder, ExcerptSpec, Limits, segments
from edge_reclass.errors import FAILURE_STATUSES, TrackError

FULL = [ExcerptSpec(seconds=None)]
CENTER = [ExcerptSpec("center", 2.0)]
CODECS = [*synth.SOUNDFILE_FORMATS, *synth.AV_FORMATS]
Made = Callable[[str], Path]


@pytest.fixture(scope="module")
def out() -> np.ndarray:
    return np.empty(14 * 48_000, dtype=np.float32)


def failure(path: Any, out: np.ndarray, specs: list[ExcerptSpec] = CENTER) -> TrackError:
    with pytest.raises(TrackError) as caught:
        Decoder().decode(path, specs, out)
    assert caught.value.status in FAILURE_STATUSES
    assert str(caught.value)
    return caught.value


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".flac", ".m4a", ".wma", ".txt"])
def test_empty_file(suffix: str, tmp_path: Path, out: np.ndarray) -> None:
    assert failure(put(tmp_path / f"a{suffix}", b""), out).status == "empty"


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".wma"])
@pytest.mark.parametrize(
    "content",
    [b"hello, this is text\n" * 500, bytes(20_000), b"\xff" * 20_000, b"x"],
    ids=["text", "zeros", "ones", "x"],
)
def test_not_audio_with_audio_suffix(suffix: str, content: bytes, tmp_path: Path, out: np.ndarray) -> None:
    assert failure(put(tmp_path / f"a{suffix}", content), out).status == "corrupt"


@pytest.mark.parametrize(
    "content",
    [
        b"hello\n",
        "UTF-16 \u266b".encode("utf-16"),
        b"%PDF-1.4 ...",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"#EXTM3U\nhttp://x/\n",
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a", "a.jpg"])
def test_not_audio_without_audio_suffix(content: bytes, name: str, tmp_path: Path, out: np.ndarray) -> None:
    assert failure(put(tmp_path / name, content), out).status == "unsupported"


@pytest.mark.parametrize("suffix", [".m4a", ".aac", ".wma", ".mp3"])
def test_playlist_opens_nothing_else(suffix: str, tmp_path: Path, out: np.ndarray, made: Made) -> None:
    """FFmpeg would guess the hls or concat demuxer and open what the text names."""
    for text in (f"#EXTM3U\n#EXTINF:10,\n{made('.mp3')}\n", f"ffconcat version 1.0\nfile {made('.mp3')}\n"):
        assert failure(put(tmp_path / f"a{suffix}", text.encode()), out).status == "corrupt"


def test_missing(tmp_path: Path, out: np.ndarray) -> None:
    assert failure(tmp_path / "none.wav", out).status == "missing"
    put(tmp_path / "file", b"x")
    assert failure(tmp_path / "file" / "a.wav", out).status == "missing"
    (tmp_path / "dangling.mp3").symlink_to(tmp_path / "gone.mp3")
    error = failure(tmp_path / "dangling.mp3", out)
    assert error.status == "missing"
    assert "dangling" in str(error)
    assert failure("a\0b.wav", out).status == "missing"
    assert failure(tmp_path / ("x" * 300 + ".wav"), out).status == "missing"


def test_link_that_leads_in_a_circle(tmp_path: Path, out: np.ndarray) -> None:
    (tmp_path / "a.mp3").symlink_to(tmp_path / "b.mp3")
    (tmp_path / "b.mp3").symlink_to(tmp_path / "a.mp3")
    assert failure(tmp_path / "a.mp3", out).status == "unreadable"


def test_permission_denied(made: Made, out: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def denied(path: Any, *args: Any, **kwargs: Any) -> int:
        if os.fspath(path) == str(made(".wav")):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, *args, **kwargs)

    made(".wav")
    monkeypatch.setattr(os, "open", denied)
    error = failure(made(".wav"), out)
    assert error.status == "unreadable"
    assert "Permission denied" in str(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything; test_permission_denied fakes it")
def test_permission_really_denied(copied: Callable[[str, str], Path], out: np.ndarray) -> None:
    path = copied(".wav", "a.wav")
    path.chmod(0)
    assert failure(path, out).status == "unreadable"


@pytest.mark.parametrize("kind", [".wav", ".m4a"])
def test_read_error(kind: str, made: Made, out: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error of the file system is not the file's fault."""

    def broken(*args: Any) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    made(kind)
    monkeypatch.setattr(os, "pread", broken)
    error = failure(made(kind), out)
    assert error.status == "unreadable"
    assert "Input/output error" in str(error)


def test_read_error_inside_ffmpeg(made: Made, out: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    from edge_reclass.audio import decode_av

    class Broken(decode_av._File):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    made(".m4a")
    monkeypatch.setattr(decode_av, "_File", Broken)
    assert failure(made(".m4a"), out).status == "unreadable"


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a", "a"])
def test_special_files_do_not_hang(name: str, tmp_path: Path, out: np.ndarray) -> None:
    os.mkfifo(tmp_path / name)
    error = failure(tmp_path / name, out)
    assert error.status == "unsupported"
    assert "regular file" in str(error)


def test_directory_socket_and_device(tmp_path: Path, out: np.ndarray) -> None:
    (tmp_path / "x.mp3").mkdir()
    assert failure(tmp_path / "x.mp3", out).status == "unsupported"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.wav"))
        assert failure(tmp_path / "s.wav", out).status == "unsupported"
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    assert failure(tmp_path / "zero.wav", out).status == "unsupported"


def test_wav_headers(tmp_path: Path, out: np.ndarray) -> None:
    path = tmp_path / "a.wav"
    assert failure(put(path, synth.wav_bytes()), out).status == "empty"
    assert failure(put(path, synth.wav_bytes()[:30]), out).status == "corrupt"
    assert failure(put(path, synth.wav_bytes(bytes(400), rate=0)), out).status == "corrupt"
    assert failure(put(path, synth.wav_bytes(bytes(400), channels=0)), out).status == "corrupt"
    assert failure(put(path, synth.wav_bytes(bytes(4000), channels=2000)), out).status == "unsupported"
    assert failure(put(path, synth.wav_bytes(bytes(4000), rate=2**31 - 1)), out).status == "unsupported"
    # It claims 2 GiB and has 100 frames: libsndfile goes by what is there.
    decoded = Decoder().decode(put(path, synth.wav_bytes(bytes(400), declared=2**31)), CENTER, out)
    assert decoded.total == 100


@pytest.mark.parametrize("rate", [100, 3_999, 20_000_000])
def test_rates_outside(rate: int, tmp_path: Path, out: np.ndarray) -> None:
    error = failure(put(tmp_path / "a.wav", synth.wav_bytes(bytes(4000), rate=rate)), out)
    assert error.status == "unsupported"
    assert f"{rate} Hz, expected 4000 to 12288000 Hz" in str(error)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_non_finite_wav(value: float, channels: int, tmp_path: Path, out: np.ndarray) -> None:
    samples = synth.music(4, 44_100, channels)
    samples[100_000] = value
    path = synth.write(tmp_path / "a.wav", samples, 44_100, subtype="FLOAT")
    error = failure(path, out)
    assert error.status == "corrupt"
    assert "NaN or infinite" in str(error)
    # Outside of the excerpt it does not matter.
    assert len(Decoder().decode(path, [ExcerptSpec(0.0, 1.0)], out).segments[0].samples) == 44_100


@pytest.mark.parametrize("kind", CODECS)
@pytest.mark.parametrize("pyav", [True, False])
def test_truncated(
    kind: str, pyav: bool, made: Made, tmp_path: Path, out: np.ndarray, remove_av: Callable[[], None]
) -> None:
    """The first 60 % of a file: what is there is decoded, the excerpt lies in it, and it is said."""
    data = made(kind).read_bytes()
    full = Decoder().decode(made(kind), FULL, out).segments[0].samples.copy()
    path = put(tmp_path / f"a{kind}", data[: len(data) * 6 // 10])
    if not pyav:
        if kind in synth.AV_FORMATS:
            pytest.skip("needs PyAV whole, too")
        remove_av()
    for specs in ([ExcerptSpec(1.0, 2.0)], CENTER, [ExcerptSpec(100.0, 2.0)], FULL):
        if kind in (".m4a", ".alac.m4a"):
            # An m4a's index is at its end.
            assert failure(path, out, specs).status == "corrupt"
            continue
        decoded = Decoder().decode(path, specs, out)
        part = decoded.segments[0]
        rate = decoded.rate
        near = full[max(0, part.start - rate // 10) : part.start + len(part.samples) + rate // 10]
        # Without its tag, an mp3 keeps the encoder's delay; then it is elsewhere by that.
        at = int(np.argmax(np.correlate(near, part.samples[rate // 10 : rate // 5], "valid"))) - rate // 10
        got = part.samples[rate // 10 : -rate // 5]
        np.testing.assert_allclose(got, near[at + rate // 10 :][: len(got)], atol=1e-4)
        # What lies in front of the cut is where it was; else the excerpt is located again.
        assert decoded.total < 0.7 * len(full) or (decoded.damage is None and specs[0].start in (1.0, "center"))
        assert len(part.samples) >= (6.9 * rate if specs is FULL else 1.9 * rate)


@pytest.mark.parametrize("kind", [".flac", ".mp3"])
def test_a_file_that_was_cut_off_is_heard_and_says_so(kind: str, made: Made, tmp_path: Path, out: np.ndarray) -> None:
    """The header declares all samples; half of them are there, and the excerpt's place is in these."""
    data = made(kind).read_bytes()
    path = put(tmp_path / f"a{kind}", data[: len(data) // 2])
    for specs in (CENTER, FULL, [ExcerptSpec(11.0, 2.0)]):
        decoded = Decoder().decode(path, specs, out)
        assert decoded.total == pytest.approx(6.5 * 44_100, rel=0.05)
        start, count = segments(decoded.total, 44_100, specs)[0]
        assert decoded.segments[0].start == start
        assert len(decoded.segments[0].samples) >= count - 4410
        if kind == ".flac":
            assert decoded.damage is not None
            assert decoded.damage.declared == 13.0
            assert "ends before the 13.0 s that it declares" in str(decoded.damage)
    whole = Decoder().decode(path, [ExcerptSpec(1.0, 3.0)], out)
    assert len(whole.segments[0].samples) == 3 * 44_100


def test_truncated_m4a_with_its_index_in_front(tmp_path: Path, out: np.ndarray) -> None:
    pytest.importorskip("av")
    path = synth.write_av(
        tmp_path / "a.m4a", synth.music(13), 44_100, "aac", "ipod", "fltp", {}, {"movflags": "faststart"}
    )
    put(path, path.read_bytes()[: path.stat().st_size // 2])
    assert len(Decoder().decode(path, [ExcerptSpec(1.0, 3.0)], out).segments[0].samples) == 3 * 44_100
    for specs in (CENTER, FULL, [ExcerptSpec(11.0, 2.0)]):
        decoded = Decoder().decode(path, specs, out)
        assert decoded.damage is not None
        assert decoded.damage.declared == pytest.approx(13.0, abs=0.1)
        assert decoded.total == pytest.approx(6.5 * 44_100, rel=0.05)


def test_container_without_audio(tmp_path: Path, out: np.ndarray) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.m4a"), "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for _ in range(3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))))
        output.mux(stream.encode(None))
    error = failure(tmp_path / "a.m4a", out)
    assert error.status == "unsupported"
    assert "no audio stream" in str(error)


# First bytes suffice, so this runs where PyAV is not installed, too.
@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.m4a", b"\0\0\0\x20ftypM4A " + bytes(100)),
        ("a.aac", b"\xff\xf1\x50\x80" + bytes(100)),
        ("a.wma", bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(100)),
        ("a.mp3", b"\0\0\0\x20ftypM4A " + bytes(100)),
        ("a.alac", b"?" * 100),
    ],
)
def test_without_pyav(name: str, head: bytes, tmp_path: Path, out: np.ndarray, remove_av: Callable[[], None]) -> None:
    path = put(tmp_path / name, head)
    remove_av()
    error = failure(path, out)
    assert error.status == "unsupported"
    assert "[codecs]" in str(error)


@pytest.mark.parametrize("kind", synth.SOUNDFILE_FORMATS)
def test_without_pyav_the_rest_is_decoded(
    kind: str, made: Made, out: np.ndarray, remove_av: Callable[[], None], tmp_path: Path
) -> None:
    path = made(kind)
    remove_av()
    assert len(Decoder().decode(path, CENTER, out).segments[0].samples) > 0
    assert failure(put(tmp_path / f"a{kind}", b"text" * 1000), out).status == "corrupt"


def test_codec_that_libsndfile_lacks_without_pyav(made: Made, out: np.ndarray, remove_av: Callable[[], None]) -> None:
    path = made(".flac.ogg")
    remove_av()
    error = failure(path, out)
    assert error.status == "unsupported"
    assert "[codecs]" in str(error)


def test_memory_error_passes_through(made: Made, out: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: Any, **kwargs: Any) -> None:
        raise MemoryError

    made(".wav")
    monkeypatch.setattr(soundfile.SoundFile, "read", exhausted)
    with pytest.raises(MemoryError):
        Decoder().decode(made(".wav"), CENTER, out)


def test_caller_errors(made: Made, out: np.ndarray) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Decoder().decode(made(".wav"), [], out)
    with pytest.raises(ValueError, match="out has to be"):
        Decoder().decode(made(".wav"), CENTER, out[::2])


def test_decoder_works_on_after_a_failure(made: Made, tmp_path: Path, out: np.ndarray) -> None:
    decoder = Decoder()
    expected = decoder.decode(made(".flac"), CENTER, out).segments[0].samples.copy()
    data = made(".flac").read_bytes()
    broken = put(tmp_path / "a.flac", data[:9000] + bytes(len(data) // 2) + data[9000 + len(data) // 2 :])
    with pytest.raises(TrackError):
        decoder.decode(broken, FULL, out)
    np.testing.assert_array_equal(decoder.decode(made(".flac"), CENTER, out).segments[0].samples, expected)


def test_libmpg123_writes_nothing_to_stderr(made: Made, tmp_path: Path, out: np.ndarray, capfd: Any) -> None:
    data = bytearray(made(".mp3").read_bytes())
    for at in range(5000, len(data) - 5000, 9000):
        data[at : at + 1500] = bytes(1500)
    # A comment frame that is too small: "Invalid frame size".
    tag = b"ID3\x03\x00\x00" + bytes([0, 0, 8, 0]) + b"COMM" + bytes([0, 0, 0, 3, 0, 0]) + b"\x01ab" + bytes(1011)
    path = put(tmp_path / "a.mp3", tag + bytes(data))
    for specs in (CENTER, FULL):
        try:
            Decoder().decode(path, specs, out)
        except TrackError as error:
            assert error.status == "corrupt"
    os.write(2, b"still here\n")
    assert capfd.readouterr().err == "still here\n"


def test_the_noise_would_be_there(tmp_path: Path, made: Made, capfd: Any) -> None:
    """The premise of quiet.py; should libsndfile become quiet by itself, that module can go."""
    tag = b"ID3\x03\x00\x00" + bytes([0, 0, 8, 0]) + b"COMM" + bytes([0, 0, 0, 3, 0, 0]) + b"\x01ab" + bytes(1011)
    soundfile.info(put(tmp_path / "a.mp3", tag + made(".mp3").read_bytes()))
    assert "mpg123" in capfd.readouterr().err


@pytest.mark.parametrize("kind", [".wav", ".mp3", ".m4a"])
def test_longer_than_the_limit_is_refused_before_it_is_decoded(kind: str, made: Callable[[str], Path]) -> None:
    """However large the buffer is: capacity for 192 kHz has room for hours at 8 kHz."""
    out = np.full(14 * 48_000, 7.0, np.float32)
    with pytest.raises(TrackError, match=r"expected at most 1\.5 s") as error:
        Decoder(Limits(max_seconds=1.5)).decode(made(kind), FULL, out)
    assert error.value.status == "too_long"
    assert (out == 7.0).all()
    assert len(Decoder(Limits(max_seconds=13.1)).decode(made(kind), FULL, out).segments[0].samples) > 0
    # A part of a track has the length that was asked for, whatever the limit of full tracks is.
    assert len(Decoder(Limits(max_seconds=1.5)).decode(made(kind), CENTER, out).segments[0].samples) > 0
