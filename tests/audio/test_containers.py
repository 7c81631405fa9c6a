"""Every container and codec that the installed PyAV decodes; and what is said of them where it is not installed."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import synth
from edge_reclass.audio import (
    AUDIO_SUFFIXES,
    PYAV_SUFFIXES,
    Decoded,
    Decoder,
    ExcerptSpec,
    Limits,
    formats,
    has_audio_suffix,
    mix_excerpt,
    needs_pyav,
    resampled_length,
)
from edge_reclass.errors import TrackError
from edge_reclass.installing import install_command
from edge_reclass.run.sources import TrackSearch

FULL = [ExcerptSpec(seconds=None)]
SECONDS = 4.0

# Suffix, encoder, muxer, sample format, rate, channels.
WRITTEN = [
    (".wv", "wavpack", "wv", "s16p", 44_100, 2), (".tta", "tta", "tta", "s16", 44_100, 2),
    (".ac3", "ac3", "ac3", "fltp", 48_000, 6), (".eac3", "eac3", "eac3", "fltp", 48_000, 2),
    (".mka", "flac", "matroska", "s16", 44_100, 2), (".mka", "libopus", "matroska", "flt", 48_000, 2),
    (".webm", "libopus", "webm", "flt", 48_000, 2), (".mkv", "aac", "matroska", "fltp", 44_100, 2),
    (".mp4", "aac", "mp4", "fltp", 44_100, 2), (".mov", "pcm_s16le", "mov", "s16", 44_100, 2),
    (".3gp", "aac", "3gp", "fltp", 44_100, 1), (".flv", "aac", "flv", "fltp", 44_100, 2),
    (".avi", "mp2", "avi", "s16", 44_100, 2), (".wmv", "wmav2", "asf", "fltp", 44_100, 2),
    (".m2ts", "aac", "mpegts", "fltp", 44_100, 2), (".mpg", "mp2", "mpeg", "s16", 44_100, 2),
    (".nut", "flac", "nut", "s16", 44_100, 2), (".latm", "aac", "latm", "fltp", 44_100, 2),
    (".caf", "alac", "caf", "s16p", 44_100, 2), (".caf", "libopus", "caf", "flt", 48_000, 2),
    (".flac", "flac", "flac", "s32", 44_100, 2), (".wav", "adpcm_ima_wav", "wav", "s16p", 44_100, 2),
    (".wav", "adpcm_swf", "wav", "s16", 44_100, 2), (".wav", "g726", "wav", "s16", 8_000, 1),
    (".wav", "adpcm_yamaha", "wav", "s16", 44_100, 2), (".aiff", "adpcm_ima_qt", "aiff", "s16p", 44_100, 2),
    (".oga", "flac", "ogg", "s16", 44_100, 2), (".m4a", "alac", "ipod", "s16p", 44_100, 2),
    (".ra", "ac3", "rm", "fltp", 44_100, 2), (".au", "pcm_alaw", "au", "s16", 8_000, 1),
]  # fmt: skip


def decode(path: Path, specs: list[ExcerptSpec] = FULL, limits: Limits = Limits()) -> Decoded:  # noqa: B008
    return Decoder(limits).decode(path, specs, np.empty(10 * 192_000, np.float32))


def written(path: Path, codec: str, muxer: str, sample_format: str, rate: int, channels: int) -> np.ndarray:
    av = pytest.importorskip("av")
    if codec not in av.codecs_available or muxer not in av.formats_available:
        pytest.skip(f"this FFmpeg has no {codec} encoder or no {muxer} muxer")
    samples = synth.music(SECONDS, rate, channels)
    try:
        synth.write_av(path, samples, rate, codec, muxer, sample_format)
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"this FFmpeg does not write {codec} to {muxer}: {error}")
    return samples.mean(axis=1)


def resemblance(heard: np.ndarray, expected: np.ndarray, slack: int = 8192) -> float:
    """Largest correlation of the middle second, a few frames earlier or later."""
    n = 1 << 15
    at = len(heard) // 2
    part, near = heard[at : at + n], expected[max(0, at - slack) : at + n + slack]
    size = 1 << 17
    product = np.fft.irfft(np.fft.rfft(near, size) * np.conj(np.fft.rfft(part, size)))[: len(near) - len(part) + 1]
    return float(product.max() / np.sqrt(np.dot(part, part) * (near**2).mean() * len(part)))


@pytest.mark.parametrize(("suffix", "codec", "muxer", "form", "rate", "channels"), WRITTEN)
def test_is_decoded(suffix: str, codec: str, muxer: str, form: str, rate: int, channels: int, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    expected = written(path, codec, muxer, form, rate, channels)
    decoded = decode(path)
    assert decoded.file_rate == decoded.rate == rate
    assert decoded.channels == channels
    assert abs(decoded.total - len(expected)) < 0.15 * rate
    heard = decoded.segments[0].samples
    assert resemblance(heard, expected) > 0.9
    # An excerpt is where it is in the whole.
    part = decode(path, [ExcerptSpec(2.0, 1.0)])
    start = part.segments[0].start
    assert abs(start - 2 * rate) <= 1
    assert resemblance(part.segments[0].samples, heard[start : start + rate]) > 0.9
    # Whatever it is called, and with a tag in front.
    other = tmp_path / "b.mp3"
    other.write_bytes(path.read_bytes())
    assert decode(other).total == decoded.total
    assert suffix in AUDIO_SUFFIXES


def test_sound_of_a_video(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    samples = synth.music(2.0, 44_100, 1)
    for name, muxer in (("a.mp4", "mp4"), ("a.mkv", "matroska"), ("a.mov", "mov")):
        with av.open(str(tmp_path / name), "w", format=muxer) as output:
            video = output.add_stream("mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
            audio = output.add_stream("aac", rate=44_100, layout="mono", format="fltp")
            for i in range(20):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 10 * i, np.uint8))
                output.mux(video.encode(frame))
            for begin in range(0, len(samples) - 1023, 1024):
                frame = av.AudioFrame.from_ndarray(samples[begin : begin + 1024].T.copy(), format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 44_100, begin
                output.mux(audio.encode(frame))
            output.mux(video.encode(None))
            output.mux(audio.encode(None))
        decoded = decode(tmp_path / name)
        assert resemblance(decoded.segments[0].samples, samples[:, 0]) > 0.9


@pytest.mark.parametrize("times", [1, 2, 4])
def test_dsd_is_resampled_while_it_is_read(times: int, tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = tmp_path / "a.dsf"
    path.write_bytes(synth.dsf(1.2, 2_822_400 * times))
    decoded = decode(path, limits=Limits(max_rate=96_000))
    assert (decoded.file_rate, decoded.rate) == (352_800 * times, 96_000)
    heard = decoded.segments[0].samples
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert np.argmax(spectrum) * 96_000 / len(heard) == pytest.approx(440.0, abs=2)


@pytest.mark.parametrize("rate", [4_000, 7_350, 352_800, 384_000, 768_000])
@pytest.mark.parametrize("kind", [".wav", ".w64"])
@pytest.mark.parametrize("channels", [1, 2])
def test_rates_far_from_the_usual(rate: int, kind: str, channels: int, tmp_path: Path) -> None:
    samples = synth.music(2.0, rate, channels)
    path = synth.write(tmp_path / f"a{kind}", samples, rate)
    specs = [ExcerptSpec(0.2, 0.3), ExcerptSpec(1.5, 0.4)]
    decoded = decode(path, specs)
    assert decoded.file_rate == rate
    assert decoded.rate == min(rate, 192_000)
    assert decoded.total == resampled_length(len(samples), rate, decoded.rate)
    in_memory = mix_excerpt(samples, rate, specs, np.empty(192_000, np.float32))
    for spec in specs:
        heard, start = decoded.excerpt(spec)
        assert start == round(spec.start * decoded.rate)
        assert len(heard) == round(spec.seconds * decoded.rate)
        if rate > 192_000:
            # Inside, as if the whole had been resampled.
            import soxr

            whole = soxr.resample(samples.mean(axis=1), rate, decoded.rate)
            inner = slice(2000, len(heard) - 2000)
            np.testing.assert_allclose(heard[inner], whole[start : start + len(heard)][inner], atol=2e-3)
        np.testing.assert_allclose(heard, in_memory.excerpt(spec)[0], atol=1e-4)


def test_max_rate_bounds_buffers_not_files(tmp_path: Path) -> None:
    path = synth.write(tmp_path / "a.flac", synth.music(2.0), 44_100)
    decoded = decode(path, limits=Limits(max_rate=16_000))
    assert (decoded.file_rate, decoded.rate, decoded.total) == (44_100, 16_000, 32_000)
    assert len(decoded.segments[0].samples) == 32_000


def bitstream_wav(sync: bytes, swap: bool) -> bytes:
    """Noise with sync words every 2012 bytes, as a 16-bit stereo wav."""
    noise = np.random.default_rng(0).integers(0, 256, 2012 - len(sync), dtype=np.uint8).tobytes()
    data = (sync + noise) * 40
    return synth.wav_bytes(np.frombuffer(data, "<u2").byteswap().tobytes() if swap else data)


@pytest.mark.parametrize("sync", ["7ffe8001", "1fffe80007f0", "f8724e1f"])
@pytest.mark.parametrize("swap", [True, False])
def test_noise_of_a_bit_stream_gets_no_genre(sync: str, swap: bool, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(bitstream_wav(bytes.fromhex(sync), swap))
    with pytest.raises(TrackError) as caught:
        decode(tmp_path / "a.wav")
    assert caught.value.status in ("unsupported", "corrupt", "empty")
    noise = np.random.default_rng(1).integers(0, 256, 400_000, dtype=np.uint8).tobytes()
    (tmp_path / "b.wav").write_bytes(synth.wav_bytes(noise))
    assert decode(tmp_path / "b.wav").total == 100_000


HEADS = {
    "a.wv": b"wvpk", "a.tta": b"TTA1", "a.ape": b"MAC ", "a.mpc": b"MPCK", "b.mpc": b"MP+\x07", "a.dsf": b"DSD ",
    "a.dff": b"FRM8\0\0\0\0\0\0\0\0DSD ", "a.mka": bytes.fromhex("1a45dfa3"), "a.webm": bytes.fromhex("1a45dfa3"),
    "a.mkv": bytes.fromhex("1a45dfa3"), "a.mp4": b"\0\0\0\x18ftypisom", "a.ac3": b"\x0b\x77\0\0\0\x40\0\0",
    "a.dts": bytes.fromhex("7ffe8001"), "a.spx": b"OggS" + bytes(22) + b"\x01\x50Speex   ", "a.tak": b"tBaK",
    "a.shn": b"ajkg", "a.flv": b"FLV\x01", "a.avi": b"RIFF\0\0\0\0AVI ", "a.amr": b"#!AMR\n", "a.rm": b".RMF",
    "a.oma": b"EA3\x01", "a.latm": b"\x56\xe0\x10\0\0\0\0\0",
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_without_pyav_it_is_unsupported_and_a_track(name: str, tmp_path: Path, remove_av: Callable[[], None]) -> None:
    remove_av()
    (tmp_path / name).write_bytes(HEADS[name] + bytes(500))
    with pytest.raises(TrackError, match=re.escape(install_command("codecs"))) as caught:
        decode(tmp_path / name)
    assert caught.value.status == "unsupported"
    search = TrackSearch([tmp_path])
    assert [track.path for track in search] == [tmp_path / name]
    assert search.skipped_other == 0
    assert needs_pyav(tmp_path / name)
    assert has_audio_suffix(name.upper())


# To an AMR decoder zeros are frames, of silence.
@pytest.mark.parametrize("name", [name for name in HEADS if name != "a.amr"])
def test_what_only_begins_like_it_is_a_bad_file(name: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / name).write_bytes(HEADS[name] + bytes(500))
    with pytest.raises(TrackError) as caught:
        decode(tmp_path / name)
    assert caught.value.status in ("corrupt", "empty", "unsupported")
    assert "pip install" not in str(caught.value)


def test_pyav_that_does_not_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "av":
            raise ImportError("libavcodec.so: cannot allocate memory")
        return real(name, *args, **kwargs)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", broken)
    (tmp_path / "a.wv").write_bytes(b"wvpk" + bytes(100))
    with pytest.raises(TrackError, match=r"cannot be imported: .* cannot allocate memory"):
        decode(tmp_path / "a.wv")


def test_protected(tmp_path: Path) -> None:
    """An m4p has a track of kind drms."""
    pytest.importorskip("av")
    samples = synth.music(1.0, 44_100, 1)
    data = synth.write_av(tmp_path / "a.m4a", samples, 44_100, "aac", "ipod", "fltp").read_bytes()
    (tmp_path / "a.m4p").write_bytes(data.replace(b"mp4a", b"drms", 1))
    with pytest.raises(TrackError, match="protected") as caught:
        decode(tmp_path / "a.m4p")
    assert caught.value.status == "unsupported"


def test_demuxers_are_named_and_none_of_them_opens_other_files() -> None:
    av = pytest.importorskip("av")
    names = {name for each in av.formats_available for name in (each, *each.split(","))}
    newer = {"qoa"} if int(av.__version__.split(".")[0]) < 14 else set()
    demuxers = set(map(formats.demuxer_of, get_args(formats.Container)))
    assert demuxers - newer <= names
    assert not demuxers & {"hls", "concat", "dash", "lavfi", "image2", "sdp", "rtsp"}
    assert PYAV_SUFFIXES < AUDIO_SUFFIXES


def test_a_demuxer_that_this_ffmpeg_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    monkeypatch.setitem(formats._DEMUXERS, "qoa", "of-tomorrow")
    (tmp_path / "a.qoa").write_bytes(b"qoaf" + bytes(400))
    with pytest.raises(TrackError, match=r"cannot read of-tomorrow files .* a newer PyAV may") as caught:
        decode(tmp_path / "a.qoa")
    assert caught.value.status == "unsupported"
