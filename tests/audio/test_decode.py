"""Good files: every format, the right samples at the right place, nothing that grows."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import synth
from edge_reclass.audio import Decoded, Decoder, ExcerptSpec, segments
from edge_reclass.audio.mono import BLOCK_VALUES
from edge_reclass.errors import TrackError
from traced import traced

FULL = [ExcerptSpec(seconds=None)]
ALL_FORMATS = [*synth.SOUNDFILE_FORMATS, *synth.AV_FORMATS, ".mp2", ".flac.ogg", ".aiff", ".caf", ".w64", ".au"]
# Opus converges after a seek, to within one unit in the last place.
TOLERANCE = {".opus": 2e-7}
Made = Callable[[str], Path]


def out_for(seconds: float = 14.0, rate: int = 48_000) -> np.ndarray:
    return np.full(round(seconds * rate), np.nan, dtype=np.float32)


def where(decoded: Decoded) -> slice:
    """The place of the only segment in the track."""
    (part,) = decoded.segments
    return slice(part.start, part.start + len(part.samples))


def lag(reference: np.ndarray, samples: np.ndarray) -> int:
    """By how many samples ``samples`` comes late, by cross-correlation; the first 4 s of both."""
    n = 1 << 18
    spectrum = np.fft.rfft(samples[: n // 2], n) * np.conj(np.fft.rfft(reference[: n // 2], n))
    at = int(np.argmax(np.fft.irfft(spectrum, n)))
    return at if at < n // 2 else at - n


@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_excerpt_is_the_slice_of_a_full_decode(kind: str, made: Made) -> None:
    decoder = Decoder()
    full = decoder.decode(made(kind), FULL, out_for())
    # A position is ambiguous by a millisecond where the container's clock is no finer.
    assert abs(full.total - len(full.segments[0].samples)) <= (0.1 * full.rate if kind == ".wma" else 0)
    out = out_for()
    for start in (0.0, 0.0003, 0.2, 0.49, 0.51, 1.3, 7.77777, "center", 100.0):
        for seconds in (0.001, 2.0):
            if seconds < 1 and start == 100.0 and kind in (".ogg", ".wma"):
                continue  # not exact in a vorbis stream's last page; FFmpeg keeps back wma's last frame
            decoded = decoder.decode(made(kind), [ExcerptSpec(start, seconds)], out)
            expected = full.segments[0].samples[where(decoded)]
            assert len(decoded.segments[0].samples) == round(seconds * full.rate) or (kind, start) == (".wma", 100.0)
            np.testing.assert_allclose(decoded.segments[0].samples, expected, rtol=0, atol=TOLERANCE.get(kind, 0))
            assert len(decoded.segments) == 1
            assert (decoded.channel, decoded.damage) == (None, None)
            assert (decoded.rate, decoded.channels, decoded.total) == (full.rate, full.channels, full.total)
            assert np.shares_memory(decoded.segments[0].samples, out)


@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_full_track_is_what_was_written(kind: str, made: Made) -> None:
    decoded = Decoder().decode(made(kind), FULL, out_for())
    written = synth.music(13.0, decoded.rate).mean(axis=1)
    assert decoded.channels == 2
    if kind in (*synth.LOSSLESS, ".aiff", ".caf", ".w64", ".au", ".flac.ogg"):
        assert decoded.total == len(written)
        np.testing.assert_allclose(decoded.segments[0].samples, written, atol=1.01 / 2**15)
    else:
        late = lag(written, decoded.segments[0].samples)
        # adts and mp2 declare no priming, so it stays in: up to a frame or two.
        # Of wma, FFmpeg drops the first frame.
        assert {".wma": -2048}.get(kind, 0) <= late <= (4096 if kind in (".aac", ".mp2") else 1)
        n = min(len(written), len(decoded.segments[0].samples)) - abs(late)
        left, right = written[max(0, -late) :][:n], decoded.segments[0].samples[max(0, late) :][:n]
        assert np.dot(left, right) / np.sqrt(np.dot(left, left) * np.dot(right, right)) > 0.95


@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_far_excerpts_are_segments_and_near_ones_share_one(kind: str, made: Made) -> None:
    decoder = Decoder()
    full = decoder.decode(made(kind), FULL, out_for())
    specs = [ExcerptSpec("center", 1.0), ExcerptSpec(0.5, 1.0), ExcerptSpec(4.0, 1.5), ExcerptSpec(11.0, 1.0)]
    # Just what is needed: 1 s, 3 s up to the end of the centre, 1 s.
    out = out_for(5.0 + 0.03, full.rate)
    decoded = decoder.decode(made(kind), specs, out)
    assert [(part.start, len(part.samples)) for part in decoded.segments] == segments(full.total, full.rate, specs)
    assert len(decoded.segments) == 3
    tolerance = TOLERANCE.get(kind, 0)
    for part in decoded.segments:
        expected = full.segments[0].samples[part.start : part.start + len(part.samples)]
        np.testing.assert_allclose(part.samples, expected, rtol=0, atol=tolerance)
        assert np.shares_memory(part.samples, out)
    for spec in specs:
        samples, start = decoded.excerpt(spec)
        alone = decoder.decode(made(kind), [spec], out_for()).segments[0]
        assert start == alone.start
        np.testing.assert_allclose(samples, alone.samples, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", synth.SOUNDFILE_FORMATS)
def test_agrees_with_soundfile(kind: str, made: Made) -> None:
    ours = Decoder().decode(made(kind), FULL, out_for()).segments[0].samples
    theirs, _ = soundfile.read(made(kind), dtype="float32")
    np.testing.assert_array_equal(ours, theirs @ np.array([0.5, 0.5], dtype=np.float32))


@pytest.mark.parametrize("kind", [".wav", ".flac", ".ogg", ".mp3", ".m4a", ".alac.m4a", ".wma"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channel_counts(kind: str, channels: int, tmp_path: Path) -> None:
    if kind in synth.AV_FORMATS:
        pytest.importorskip("av")
    if channels > 2 and kind in (".mp3", ".wma"):
        pytest.skip("the format has two channels at most")
    samples = synth.music(3, 44_100, channels, seed=channels)
    path = synth.write(tmp_path / f"a{kind}", samples, 44_100)
    decoded = Decoder().decode(path, [ExcerptSpec("center", 1)], out_for())
    assert decoded.channels == channels
    assert len(decoded.segments[0].samples) == 44_100
    if kind in (".wav", ".flac", ".alac.m4a"):
        part = samples[decoded.segments[0].start : decoded.segments[0].start + 44_100]
        np.testing.assert_allclose(decoded.segments[0].samples, part.mean(axis=1), atol=1e-4)


@pytest.mark.parametrize("channels", [3, 8, 13, 100, 1024])
def test_many_channels_wav(channels: int, tmp_path: Path) -> None:
    samples = synth.music(1, 8_000, channels)
    path = synth.write(tmp_path / "a.wav", samples, 8_000, subtype="FLOAT")
    decoded = Decoder().decode(path, FULL, out_for())
    assert decoded.channels == channels
    np.testing.assert_allclose(decoded.segments[0].samples, samples.mean(axis=1, dtype=np.float64), atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 96_000, 192_000])
@pytest.mark.parametrize("kind", [".wav", ".flac"])
def test_rates(rate: int, kind: str, tmp_path: Path) -> None:
    path = synth.write(tmp_path / f"a{kind}", synth.music(2, rate, 1), rate)
    decoded = Decoder().decode(path, [ExcerptSpec("center", 1)], out_for(2, 192_000))
    assert (decoded.rate, decoded.segments[0].start, len(decoded.segments[0].samples)) == (rate, rate // 2, rate)


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000])
def test_opus_and_mp3_at_low_rates(rate: int, tmp_path: Path) -> None:
    for kind in (".opus", ".mp3"):
        path = synth.write(tmp_path / f"a{rate}{kind}", synth.music(4, rate), rate)
        decoded = Decoder().decode(path, [ExcerptSpec("center", 1)], out_for())
        assert len(decoded.segments[0].samples) == decoded.rate


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_wav_sample_types(subtype: str, tmp_path: Path) -> None:
    samples = synth.music(1)
    path = synth.write(tmp_path / "a.wav", samples, 44_100, subtype=subtype)
    decoded = Decoder().decode(path, FULL, out_for())
    np.testing.assert_allclose(
        decoded.segments[0].samples, samples.mean(axis=1), atol=2**-7 if subtype == "PCM_U8" else 2**-15
    )


@pytest.mark.parametrize(
    "name",
    ["with spaces.wav", "émoji 🎵🎷.wav", "中文 音乐.wav", "new\nline.wav", "-dash.wav", "CAPITALS.WAV", "a%20b#?.wav"],
)
def test_path_names(name: str, copied: Callable[[str, str], Path]) -> None:
    decoded = Decoder().decode(copied(".wav", name), [ExcerptSpec("center", 1)], out_for())
    assert len(decoded.segments[0].samples) == 44_100


def test_undecodable_and_bytes_path(made: Made, tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xff\xfe.wav"
    Path(os.fsdecode(raw)).write_bytes(made(".wav").read_bytes())
    for path in (raw, os.fsdecode(raw), Path(os.fsdecode(raw))):
        assert Decoder().decode(path, FULL, out_for()).total == 13 * 44_100


@pytest.mark.parametrize("kind", [".m4a", ".wma"])
def test_av_path_names(kind: str, copied: Callable[[str, str], Path]) -> None:
    # A name that FFmpeg would take for a protocol, were it given the name.
    for name in (f"中文 🎵{kind}", f"concat:a|b{kind}", f"%d{kind}"):
        assert Decoder().decode(copied(kind, name), [ExcerptSpec("center", 1)], out_for()).rate == 44_100


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (".wav", "a.mp3"), (".flac", "a.mp3"), (".mp3", "a.wav"), (".ogg", "a.flac"), (".m4a", "a.mp3"),
        (".mp3", "a.m4a"), (".wma", "a.mp3"), (".aac", "a.mp3"), (".aac", "a.m4a"), (".wav", "a.wma"),
        (".wav", "no_suffix"), (".m4a", "a.bin"),
    ],
)  # fmt: skip
def test_content_decides(kind: str, name: str, made: Made, copied: Callable[[str, str], Path]) -> None:
    decoder = Decoder()
    expected = decoder.decode(made(kind), FULL, out_for())
    decoded = decoder.decode(copied(kind, name), FULL, out_for())
    np.testing.assert_array_equal(decoded.segments[0].samples, expected.segments[0].samples)


def test_id3_before_mp3_aac_and_flac(made: Made, tmp_path: Path) -> None:
    tag = b"ID3\x04\x00\x00" + bytes([0, 1, 0, 0]) + bytes(1 << 14)
    for kind in (".mp3", ".aac", ".flac"):
        path = tmp_path / f"a{kind}"
        path.write_bytes(tag + tag + made(kind).read_bytes())
        if kind == ".flac" and soundfile.__libsndfile_version__ < "1.2":
            continue
        expected = Decoder().decode(made(kind), FULL, out_for())
        np.testing.assert_array_equal(
            Decoder().decode(path, FULL, out_for()).segments[0].samples, expected.segments[0].samples
        )


def test_silence_is_decoded(tmp_path: Path) -> None:
    decoded = Decoder().decode(synth.write(tmp_path / "a.flac", synth.silence(2), 44_100), FULL, out_for())
    np.testing.assert_array_equal(decoded.segments[0].samples, np.zeros(88_200))
    assert decoded.channel is None


@pytest.mark.parametrize("kind", [".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".alac.m4a", ".aac", ".wma"])
@pytest.mark.parametrize("seconds", [0.05, 1 / 48_000])
def test_very_short(kind: str, seconds: float, tmp_path: Path) -> None:
    """50 ms and one sample: decoded, or empty where FFmpeg gives nothing for so little."""
    if kind in synth.AV_FORMATS:
        pytest.importorskip("av")
    path = synth.write(tmp_path / f"a{kind}", synth.music(seconds, 48_000), 48_000)
    try:
        decoded = Decoder().decode(path, [ExcerptSpec()], out_for())
    except TrackError as error:
        assert kind == ".wma" or (kind == ".m4a" and seconds < 0.05)
        assert error.status in ("corrupt", "empty")
    else:
        assert 1 <= len(decoded.segments[0].samples) <= decoded.total < 12_000
        if kind in synth.LOSSLESS:
            assert decoded.total == round(seconds * 48_000)


def test_fits_exactly_and_too_long(made: Made) -> None:
    out = np.empty(44_100, dtype=np.float32)
    assert len(Decoder().decode(made(".flac"), [ExcerptSpec("center", 1.0)], out).segments[0].samples) == 44_100
    for kind in (".flac", ".m4a"):
        with pytest.raises(TrackError, match=r"has 44101 samples .* holds 44100") as caught:
            Decoder().decode(made(kind), [ExcerptSpec("center", 44_101 / 44_100)], out)
        assert caught.value.status == "too_long"


def test_mp3_without_length_tag(tmp_path: Path) -> None:
    """libmpg123 estimates 0.2 % too much; the frames are counted instead, so the full track is not 'short'."""
    pytest.importorskip("av")
    samples = synth.music(30)
    for name, options in (("cbr.mp3", {"b": "128000"}), ("vbr.mp3", {"q": "4", "b": "0"})):
        path = synth.write_av(
            tmp_path / name,
            samples,
            44_100,
            "libmp3lame",
            "mp3",
            "fltp",
            options,
            {"write_xing": "0", "id3v2_version": "0"},
        )
        decoded = Decoder().decode(path, FULL, out_for(31))
        assert decoded.total % 1152 == 0
        assert abs(decoded.total - len(decoded.segments[0].samples)) <= 1152
        assert abs(decoded.total - len(samples)) < 3 * 1152
        # A tag at the end is no audio.
        path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
        assert Decoder().decode(path, FULL, out_for(31)).total == decoded.total


def test_mp3_behind_junk(made: Made, tmp_path: Path) -> None:
    """libsndfile gives up on such a file; FFmpeg finds the frames."""
    pytest.importorskip("av")
    path = tmp_path / "a.mp3"
    path.write_bytes(bytes(1000) + b"junk" * 100 + made(".mp3").read_bytes())
    decoded = Decoder().decode(path, [ExcerptSpec("center", 2)], out_for())
    reference = Decoder().decode(made(".mp3"), FULL, out_for())
    start = decoded.segments[0].start
    # The length is counted in whole frames there, so the center differs by less than one or two.
    near = reference.segments[0].samples[start - 4000 : start - 4000 + 100_000]
    at = lag(decoded.segments[0].samples, near)
    np.testing.assert_allclose(near[at : at + 80_000], decoded.segments[0].samples[:80_000], atol=1e-4)


def test_flac_of_unknown_length(made: Made, tmp_path: Path) -> None:
    """As written to a pipe: 36 bits of total samples in STREAMINFO are 0."""
    data = bytearray(made(".flac").read_bytes())
    data[8 + 13] &= 0xF0
    data[8 + 14 : 8 + 18] = bytes(4)
    path = tmp_path / "a.flac"
    path.write_bytes(data)
    full = Decoder().decode(made(".flac"), FULL, out_for())
    decoded = Decoder().decode(path, FULL, out_for())
    assert decoded.total == full.total
    np.testing.assert_array_equal(decoded.segments[0].samples, full.segments[0].samples)
    excerpt = Decoder().decode(path, [ExcerptSpec(3.0, 2.0)], out_for())
    np.testing.assert_array_equal(excerpt.segments[0].samples, full.segments[0].samples[3 * 44_100 : 5 * 44_100])


def test_fragmented_mp4(tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = synth.write_av(
        tmp_path / "a.m4a", synth.music(13), 44_100, "aac", "mp4", "fltp", {"aac_pns": "0"},
        {"movflags": "frag_keyframe+empty_moov", "frag_duration": "1000000"},
    )  # fmt: skip
    full = Decoder().decode(path, FULL, out_for())
    assert abs(full.total - 13 * 44_100) < 3 * 1024
    for start in (0.2, 1.0, 6.0, 100.0):
        decoded = Decoder().decode(path, [ExcerptSpec(start, 2.0)], out_for())
        expected = full.segments[0].samples[where(decoded)]
        np.testing.assert_array_equal(decoded.segments[0].samples[: len(expected)], expected)


def test_seek_that_arrives_late_is_made_good(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    from edge_reclass.audio import decode_av

    expected = Decoder().decode(made(".m4a"), [ExcerptSpec(5.0, 1.0)], out_for()).segments[0].samples.copy()
    monkeypatch.setattr(decode_av, "PREROLL_SECONDS", -0.5)
    decoded = Decoder().decode(made(".m4a"), [ExcerptSpec(5.0, 1.0)], out_for())
    np.testing.assert_array_equal(decoded.segments[0].samples, expected)


@pytest.mark.parametrize("kind", [".wav", ".flac", ".mp3", ".ogg", ".m4a", ".wma"])
def test_seeks_and_does_not_decode_the_whole_track(kind: str, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(kind)
    read = 0
    if kind in synth.AV_FORMATS:
        from edge_reclass.audio import decode_av

        real_frames = decode_av.AvSource._frames

        def watched_frames(*args: Any) -> Iterator[Any]:
            nonlocal read
            for packet, frame in real_frames(*args):
                read += frame.samples
                yield packet, frame

        monkeypatch.setattr(decode_av.AvSource, "_frames", watched_frames)
    else:
        real_read = soundfile.SoundFile.read

        def watched_read(self: soundfile.SoundFile, *args: Any, **kwargs: Any) -> Any:
            nonlocal read
            result = real_read(self, *args, **kwargs)
            read += len(result)
            return result

        monkeypatch.setattr(soundfile.SoundFile, "read", watched_read)
    decoded = Decoder().decode(path, [ExcerptSpec("center", 1.0)], out_for())
    assert len(decoded.segments[0].samples) == 44_100
    assert 44_100 <= read <= 2 * 44_100


@pytest.fixture(scope="module")
def forty_seconds() -> synth.Signal:
    return synth.music(40)


@pytest.mark.parametrize("kind", [".wav", ".flac", ".mp3", ".m4a", ".alac.m4a", ".wma"])
def test_allocates_nothing_that_grows(kind: str, forty_seconds: synth.Signal, tmp_path: Path) -> None:
    if kind in synth.AV_FORMATS:
        pytest.importorskip("av")
    path = synth.write(tmp_path / f"a{kind}", forty_seconds, 44_100)
    out = np.empty(40 * 44_100, dtype=np.float32)
    decoder = Decoder()
    decoder.decode(path, [ExcerptSpec("center", 1.0)], out)  # imports
    short, long = (
        min(traced(partial(decoder.decode, path, [ExcerptSpec("center", seconds)], out)).peaks)
        for seconds in (3.0, 38.0)
    )
    assert max(short, long) < 1 << 20
    assert long <= short + (1 << 16)
    assert decoder._writer.block.nbytes == 4 * BLOCK_VALUES == 1 << 19


def test_no_descriptor_is_left_open(made: Made, tmp_path: Path) -> None:
    bad = tmp_path / "bad.m4a"
    bad.write_bytes(made(".m4a").read_bytes()[:2000])
    worse = tmp_path / "worse.flac"
    worse.write_bytes(b"fLaC" + bytes(100))
    decoder, out = Decoder(), out_for()

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    decoder.decode(made(".mp3"), FULL, out)  # opens /dev/null once
    gc.collect()  # what other tests left open must not be closed meanwhile
    before = descriptors()
    for _ in range(5):
        for kind in (".wav", ".mp3", ".m4a"):
            decoder.decode(made(kind), FULL, out)
        for path in (bad, worse):
            with pytest.raises(TrackError):
                decoder.decode(path, FULL, out)
    assert descriptors() == before


def test_threads_with_a_decoder_each(made: Made) -> None:
    kinds = [".mp3", ".flac", ".ogg", ".m4a"]
    expected = {kind: Decoder().decode(made(kind), FULL, out_for()).segments[0].samples.copy() for kind in kinds}
    wrong: list[str] = []

    def work(kind: str) -> None:
        decoder, out = Decoder(), out_for()
        for _ in range(4):
            if not np.array_equal(decoder.decode(made(kind), FULL, out).segments[0].samples, expected[kind]):
                wrong.append(kind)

    threads = [threading.Thread(target=work, args=(kind,)) for kind in kinds * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_real_files(data: Path) -> None:
    paths = sorted((data / "audio").rglob("*.mp3")) + sorted((data / "audio").rglob("*.ogg"))
    assert len(paths) >= 10
    out = out_for(1200)
    for path in paths:
        reference, rate = soundfile.read(path, dtype="float32", always_2d=True)
        decoded = Decoder().decode(path, [ExcerptSpec("center", 10.0)], out)
        part = reference[where(decoded)].mean(axis=1)
        assert decoded.rate == rate
        np.testing.assert_allclose(decoded.segments[0].samples, part, atol=1e-6)
