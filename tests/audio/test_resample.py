"""The streams against soxr's one-shot call, bit by bit, and no growing memory."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_reclass.audio import Resampler, Tiles, resampled_length
from edge_reclass.audio.resample import CHUNK, MAX_STREAMS
from traced import traced

PAIRS = [
    (44_100, 24_000),
    (44_100, 16_000),
    (48_000, 44_100),
    (8_000, 192_000),
    (192_000, 8_000),
    (44_099, 44_100),
]
LENGTHS = [1, 2, 3, 50, 1001, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 17]


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


@pytest.mark.parametrize("pair", PAIRS)
def test_equals_one_shot_also_when_reused(pair: tuple[int, int]) -> None:
    resampler = Resampler()
    for n in [*LENGTHS, *reversed(LENGTHS)]:
        samples = noise(n, seed=n)
        expected = soxr.resample(samples, *pair)
        out = np.full(len(expected) + 3, 7.0, dtype=np.float32)
        written = resampler.resample(samples, *pair, out)
        assert written == len(expected) == resampled_length(n, *pair)
        np.testing.assert_array_equal(out[:written], expected)
        assert (out[written:] == 7.0).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.integers(8_000, 192_000), st.integers(8_000, 48_000))
def test_any_rates(n: int, rate_in: int, rate_out: int) -> None:
    samples = noise(n)
    expected = samples if rate_in == rate_out else soxr.resample(samples, rate_in, rate_out)
    out = np.empty(resampled_length(n, rate_in, rate_out), dtype=np.float32)
    assert Resampler().resample(samples, rate_in, rate_out, out) == len(out)
    assert len(expected) == len(out) or n * rate_out * 2 % (2 * rate_in) == rate_in, "only of a half it may give less"
    np.testing.assert_array_equal(out[: len(expected)], expected)


def test_a_half_that_soxr_rounds_down() -> None:
    for n, rate_in, rate_out in ((6000, 12_000, 11_025), (18_000, 12_000, 11_025), (24_000, 48_000, 22_050 + 1)):
        samples = noise(n)
        expected = soxr.resample(samples, rate_in, rate_out)
        out = np.full(resampled_length(n, rate_in, rate_out), np.nan, np.float32)
        assert Resampler().resample(samples, rate_in, rate_out, out) == len(out) <= len(expected) + 1
        np.testing.assert_array_equal(out[: len(expected)], expected)
        assert out[-1] == expected[-1]
        tiles = Tiles.of(rate_in, rate_out)
        last = tiles.numbers(0, len(out))[-1]
        tiled = np.full(len(out), np.nan, np.float32)
        Resampler().resample_tile(samples, tiles, last, tiled)
        at = last * tiles.count
        np.testing.assert_allclose(tiled[at:-1], out[at:-1], atol=1e-4)
        assert np.isfinite(tiled[-1])  # a part may round its own half in the other direction


@pytest.mark.parametrize("given", [98, 102])
def test_a_length_that_is_off_by_more_is_refused(given: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Off:
        def clear(self) -> None:
            pass

        def resample_chunk(self, samples: np.ndarray, last: bool) -> np.ndarray:
            return np.zeros(given, np.float32)

    monkeypatch.setattr("edge_reclass.audio.resample._stream", lambda *_: Off())
    with pytest.raises(RuntimeError, match="soxr gave"):
        Resampler().resample(noise(200), 16_000, 8_000, np.empty(100, np.float32))


def test_rounds_half_up_as_soxr_does() -> None:
    for n in range(1, 40):
        assert resampled_length(n, 16_000, 8_000) == len(soxr.resample(noise(n), 16_000, 8_000)) == (n + 1) // 2


def test_equal_rates_copy() -> None:
    samples = noise(100)
    out = np.empty(100, dtype=np.float32)
    assert Resampler().resample(samples, 44_100, 44_100, out) == 100
    np.testing.assert_array_equal(out, samples)


def test_nothing_in_nothing_out() -> None:
    assert Resampler().resample(noise(0), 44_100, 24_000, np.empty(0, dtype=np.float32)) == 0


def test_keeps_few_filters() -> None:
    resampler = Resampler()
    out = np.empty(2000, dtype=np.float32)
    for rate in range(8_000, 8_000 + 3 * MAX_STREAMS):
        resampler.resample(noise(100), rate, 16_000, out)
    assert resampler._stream.cache_info().currsize == MAX_STREAMS


def test_interrupted_call_leaves_nothing_behind() -> None:
    resampler = Resampler()
    samples = noise(CHUNK)
    out = np.empty(CHUNK, dtype=np.float32)
    resampler._stream(44_100, 24_000).resample_chunk(samples[:1000])
    written = resampler.resample(samples, 44_100, 24_000, out)
    np.testing.assert_array_equal(out[:written], soxr.resample(samples, 44_100, 24_000))


def test_refuses() -> None:
    resampler = Resampler()
    out = np.empty(100, dtype=np.float32)
    with pytest.raises(ValueError, match="become 200 at 48000 Hz, but out holds 100"):
        resampler.resample(noise(100), 24_000, 48_000, out)
    with pytest.raises(ValueError, match="rates have to be positive"):
        resampler.resample(noise(10), 0, 48_000, out)
    with pytest.raises(ValueError, match="float32 vector"):
        resampler.resample(np.zeros(10), 24_000, 48_000, out)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="out has to be"):
        resampler.resample(noise(10), 24_000, 48_000, np.empty(100)[::2])  # type: ignore[arg-type]


@pytest.mark.parametrize("pair", [(44_100, 24_000), (8_000, 192_000)])
def test_no_one_shot_and_no_large_array(pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("soxr's one-shot call")

    samples = noise(2_000_000)
    out = np.empty(resampled_length(len(samples), *pair), dtype=np.float32)
    resampler = Resampler()
    longest = 0
    real = soxr.ResampleStream.resample_chunk

    def watched(self: soxr.ResampleStream, x: np.ndarray, last: bool = False) -> np.ndarray:
        nonlocal longest
        part = real(self, x, last)
        longest = max(longest, len(x), len(part))
        return part

    monkeypatch.setattr(soxr, "resample", fail)
    monkeypatch.setattr(soxr.ResampleStream, "resample_chunk", watched)
    assert min(traced(lambda: resampler.resample(samples, *pair, out)).peaks) < 1 << 20
    # The last chunk brings what the filter held back, too.
    assert longest <= CHUNK + 4096 * max(1, pair[1] // pair[0])


@pytest.mark.parametrize("pair", [*PAIRS, (22_050, 20_000), (16_000, 16_000)])
def test_tiles_are_the_same_whatever_else_was_read(pair: tuple[int, int]) -> None:
    tiles, resampler = Tiles.of(*pair), Resampler()
    samples = 0.1 * noise(5 * pair[0] + 1234)
    whole = np.empty(resampled_length(len(samples), *pair), np.float32)
    numbers = tiles.numbers(0, len(whole))
    for number in numbers:
        resampler.resample_tile(samples, tiles, number, whole)
    expected = samples if pair[0] == pair[1] else soxr.resample(samples, *pair)
    np.testing.assert_allclose(whole, expected, atol=3e-6)
    for number in reversed(numbers):
        first, last = tiles.source(range(number, number + 1))
        known = np.full_like(samples, np.nan)
        known[first:last] = samples[first:last]
        alone = np.full_like(whole, 7.0)
        resampler.resample_tile(known, tiles, number, alone)
        tile = slice(number * tiles.count, (number + 1) * tiles.count)
        np.testing.assert_array_equal(alone[tile], whole[tile])
        alone[tile] = 7.0
        assert (alone == 7.0).all()


def test_tiles_hold_what_is_asked_for() -> None:
    tiles = Tiles.of(44_100, 16_000)
    assert (tiles.step, tiles.count) == (44_100, 16_000)
    assert list(tiles.numbers(15_999, 16_001)) == [0, 1]
    assert list(tiles.numbers(16_000, 32_000)) == [1]
    first, last = tiles.source(range(1, 2))
    assert first < 44_100 < 2 * 44_100 < last
    assert last - first < 1.1 * 44_100
    assert tiles.source(range(1))[0] == 0
