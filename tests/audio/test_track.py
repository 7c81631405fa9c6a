"""Tracks that stay open: parts are read when they are asked for, and are what they are when all is read at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import synth
from edge_reclass.audio import Choose, Decoder, ExcerptSpec, OpenTrack, Run, open_samples
from edge_reclass.audio.runs import length, union, within, without
from edge_reclass.errors import Status, TrackError

RATE = 44_100
SPEC = ExcerptSpec("center", 10.0)


def out_for(seconds: float = 14.0) -> NDArray[np.float32]:
    return np.full(round(seconds * 48_000), 7.0, np.float32)


def middle(seconds: float) -> Choose:
    """The middle of a track of 13 s."""

    def choose(total: int, rate: int) -> Sequence[Run]:
        half = round(seconds * rate / 2)
        return [(total // 2 - half, total // 2 + half)]

    return choose


def samples(track: OpenTrack) -> NDArray[np.float32]:
    return track.decoded.excerpt(SPEC)[0]


@pytest.mark.parametrize("kind", [*synth.SOUNDFILE_FORMATS, *synth.AV_FORMATS])
def test_what_is_read_in_parts_is_bit_by_bit_what_is_read_at_once(made: Callable[[str], Path], kind: str) -> None:
    decoder = Decoder()
    whole = decoder.decode(made(kind), [SPEC], out_for())
    expected, start = whole.excerpt(SPEC)
    with decoder.open(made(kind), [SPEC], out_for(), middle(2.5)) as track:
        assert [stop - first for first, stop in track.decoded.read] == [2 * round(1.25 * whole.rate)]
        assert (track.decoded.total, track.decoded.excerpt(SPEC)[1]) == (whole.total, start)
        (run,) = track.decoded.read
        low, high = run[0] - start, run[1] - start
        np.testing.assert_array_equal(samples(track)[low:high], expected[low:high])
        assert (samples(track)[: low - 1] == 7.0).all()
        assert (samples(track)[high + 1 :] == 7.0).all()
        assert not track.need(SPEC, low, high), "it is there"
        assert track.need(SPEC, low - 1, low)
        np.testing.assert_array_equal(samples(track), expected)
        assert not track.need(SPEC, 0, len(expected))
        assert track.decoded.read == ((start, start + round(10 * whole.rate)),)
        assert track.decoded.damage is None


def test_at_a_low_bit_rate_the_reservoir_reaches_back(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "low.mp3"
    with av.open(str(path), "w", format="mp3") as container:
        stream = container.add_stream("mp3", rate=RATE, layout="stereo")
        stream.bit_rate = 32_000
        samples = (synth.music(13.0, RATE) * 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "s16", "stereo")
        frame.sample_rate = RATE
        for part in (*av.AudioResampler("s16p", "stereo", RATE, stream.frame_size or 1152).resample(frame), None):
            container.mux(stream.encode(part))
    assert path.stat().st_size < 13 * 5_000
    expected = Decoder().decode(path, [ExcerptSpec(seconds=None)], out_for()).segments[0].samples.copy()
    for start in (1.0, 2.5, 7.77):
        excerpt = Decoder().decode(path, [ExcerptSpec(start, 2.0)], out_for()).segments[0]
        np.testing.assert_array_equal(excerpt.samples, expected[excerpt.start :][: len(excerpt.samples)])


def test_a_codec_that_cannot_be_sought_is_read_from_the_beginning_again(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "a.wav"
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("g722", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            (synth.music(13.0, 16_000, 1).T * 32_767).astype(np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 16_000
        for part in (frame, None):
            container.mux(stream.encode(part))
    expected = Decoder().decode(path, [SPEC], out_for()).excerpt(SPEC)[0].copy()
    with Decoder().open(path, [SPEC], out_for(), middle(2.0)) as track:
        track.need(SPEC, 0, 1)
        np.testing.assert_array_equal(samples(track), expected)


def test_two_parts_of_a_chained_file(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    for seed in (1, 2):
        part = synth.write(tmp_path / f"{seed}.ogg", synth.music(6.5, RATE, seed=seed), RATE)
        with path.open("ab") as file:
            file.write(part.read_bytes())
    expected = Decoder().decode(path, [SPEC], out_for()).excerpt(SPEC)[0].copy()
    with Decoder().open(path, [SPEC], out_for(), middle(1.0)) as track:
        track.need(SPEC, 0, 1)
        np.testing.assert_array_equal(samples(track), expected)


def spoil(path: Path, begin: float, end: float) -> Path:
    """Overwrite a part of a file, in shares of its size."""
    data = bytearray(path.read_bytes())
    low, high = round(begin * len(data)), round(end * len(data))
    data[low:high] = np.random.default_rng(0).integers(0, 256, high - low, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("without_av", [False, True])
def test_damage_is_met_where_it_is_read(
    copied: Callable[[str, str], Path], remove_av: Callable[[], None], without_av: bool
) -> None:
    path = spoil(copied(".flac", "a.flac"), 0.2, 0.21)
    if without_av:
        remove_av()
    with Decoder().open(path, [SPEC], out_for(), middle(3.0)) as track:
        assert (track.decoded.damage, track.decoded.lost) == (None, ())
        track.need(SPEC, 0, 1)
        found = track.decoded
        assert found.damage is not None
        assert 0 < found.damage.missing < 0.05
        assert length(found.lost) >= found.damage.missing * length(found.read) - 1
        assert all(first / RATE > 0.15 * 13 and stop / RATE < 0.3 * 13 for first, stop in found.lost)
        expected = Decoder().decode(path, [SPEC], out_for())
        assert expected.damage is not None
        assert found.damage.missing == pytest.approx(expected.damage.missing, abs=0.01)
        assert track.lost(SPEC, 0, round(10 * RATE)) == length(found.lost)
        assert not track.lost(SPEC, round(5 * RATE), round(10 * RATE))
        track.check()


def test_a_file_that_ends_early_behind_what_was_read(copied: Callable[[str, str], Path]) -> None:
    path = copied(".flac", "a.flac")
    path.write_bytes(path.read_bytes()[: round(0.75 * path.stat().st_size)])
    with Decoder().open(path, [SPEC], out_for(), middle(3.0)) as track:
        assert track.decoded.excerpt(SPEC)[1] == round(1.5 * RATE), "located as the file declares it"
        track.need(SPEC, 0, 1)
        ((first, stop),) = track.decoded.lost
        assert 0.7 * 13 < first / RATE < 0.8 * 13
        assert stop == round(11.5 * RATE)
        with pytest.raises(TrackError, match="of the excerpt can be decoded"):
            track.check()
    with Decoder().open(path, [SPEC], out_for(), lambda total, rate: [(total - 4 * rate, total - 2 * rate)]) as track:
        assert track.decoded.total < 0.8 * 13 * RATE, "what is read first says where the track ends"
        assert track.decoded.damage is not None


def with_nan(*seconds: float) -> NDArray[np.float32]:
    made = synth.music(13.0, RATE)
    made[[round(at * RATE) for at in seconds]] = np.nan
    return made


def test_samples_that_are_none() -> None:
    with pytest.raises(TrackError, match="NaN"):
        open_samples(with_nan(2.0), RATE, [SPEC], out_for())
    first = open_samples(with_nan(6.5), RATE, [SPEC], out_for(), choose=middle(3.0))
    assert length(first.decoded.lost) == 3 * RATE
    assert not samples(first)[round(3.6 * RATE) : round(6.4 * RATE)].any()
    assert first.decoded.damage is not None
    assert first.decoded.damage.missing == pytest.approx(0.3)
    later = open_samples(with_nan(2.0), RATE, [SPEC], out_for(), choose=middle(3.0))
    assert later.decoded.damage is None
    assert later.need(SPEC, 0, 1)
    assert length(later.decoded.lost) == 7 * RATE
    assert np.isfinite(samples(later)).all()
    for bad in [(2.0, 6.5), (6.5, 11.0)]:
        with pytest.raises(TrackError, match="NaN"):
            open_samples(with_nan(*bad), RATE, [SPEC], out_for(), choose=middle(3.0))


def test_the_channel_heard_alone_is_that_of_what_was_read_first() -> None:
    made = synth.antiphase(13.0, RATE)
    made[:, 0] *= 0.9
    track = open_samples(made, RATE, [SPEC], out_for(), choose=middle(2.0))
    assert track.decoded.channel == 1
    track.need(SPEC, 0, 1)
    np.testing.assert_array_equal(samples(track), made[round(1.5 * RATE) : round(11.5 * RATE), 1])
    # Where the middle does not cancel, the rest is judged by itself.
    heard = slice(round(5.4 * RATE), round(7.6 * RATE))
    made[heard, 0] = made[heard, 1]
    track = open_samples(made, RATE, [SPEC], out_for(), choose=middle(2.0))
    assert track.decoded.channel is None
    track.need(SPEC, 0, 1)
    assert track.decoded.channel == 1
    assert samples(track).std() > 0.05


def test_a_file_that_is_lost_while_it_is_open(
    copied: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Decoder().open(path := copied(".wav", "a.wav"), [SPEC], out_for(), middle(2.0)) as track:
        path.unlink()
        assert track.need(SPEC, 0, 1), "it is open"
    with Decoder().open(path := copied(".mp3", "a.mp3"), [SPEC], out_for(), middle(2.0)) as track:
        os.truncate(path, 1000)
        track.need(SPEC, 0, 1)
        assert length(track.decoded.lost) > 3 * RATE
    with Decoder().open(copied(".ogg", "a.ogg"), [SPEC], out_for(), middle(2.0)) as track:

        def fail(*_: object) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr("edge_reclass.audio.decode.read_on", fail)
        with pytest.raises(TrackError, match="cannot be read: Input/output error") as caught:
            track.need(SPEC, 0, 1)
        assert caught.value.status == Status.UNREADABLE


def test_errors_are_those_of_decode(tmp_path: Path) -> None:
    (tmp_path / "text.mp3").write_text("no audio" * 100)
    (tmp_path / "empty.wav").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.wav")
    for name in ("text.mp3", "empty.wav", "pipe.wav", "absent.wav"):
        with pytest.raises(TrackError) as expected:
            Decoder().decode(tmp_path / name, [SPEC], out_for())
        with pytest.raises(TrackError) as got, Decoder().open(tmp_path / name, [SPEC], out_for(), middle(2.0)):
            pass
        assert (got.value.status, str(got.value)) == (expected.value.status, str(expected.value))


RUNS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=5)


@given(RUNS, RUNS)
def test_runs_are_sets_of_samples(a: list[Run], b: list[Run]) -> None:
    def held(runs: Sequence[Run]) -> set[int]:
        return {at for first, stop in runs for at in range(first, stop)}

    for got, expected in (
        (union(a), held(a)),
        (without(a, b), held(a) - held(b)),
        (within(a, b), held(a) & held(b)),
    ):
        assert held(got) == expected
        assert length(got) == len(expected)
        assert all(first < stop for first, stop in got)
        assert got == sorted(got)
