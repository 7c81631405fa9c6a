"""Downmix of samples in memory: against plain numpy, for every type and shape."""

from __future__ import annotations

import numpy as np
import pytest

import synth
from edge_reclass.audio import ExcerptSpec, mix_excerpt
from edge_reclass.audio.mono import BLOCK_VALUES
from edge_reclass.errors import TrackError
from traced import traced

FULL = [ExcerptSpec(seconds=None)]


def out_for(n: int) -> np.ndarray:
    return np.full(n, np.nan, dtype=np.float32)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 100, 1024])
def test_is_the_mean_of_the_channels(channels: int) -> None:
    n = 3 * BLOCK_VALUES // channels + 5
    samples = np.random.default_rng(channels).uniform(-1, 1, (n, channels)).astype(np.float32)
    out = out_for(n)
    decoded = mix_excerpt(samples, 44_100, FULL, out)
    expected = samples.mean(axis=1, dtype=np.float64)
    np.testing.assert_allclose(decoded.segments[0].samples, expected, atol=1e-6)
    assert np.shares_memory(decoded.segments[0].samples, out)
    assert (decoded.rate, decoded.channels, decoded.segments[0].start, decoded.total) == (44_100, channels, 0, n)
    assert (decoded.channel, decoded.damage) == (None, None)


def test_segments_and_positions() -> None:
    rate = 8_000
    samples = synth.music(20, rate, 2)
    out = out_for(len(samples))
    decoded = mix_excerpt(samples, rate, [ExcerptSpec("center", 2), ExcerptSpec(4.0, 1)], out)
    assert [(part.start, len(part.samples)) for part in decoded.segments] == [(4 * rate, rate), (9 * rate, 2 * rate)]
    assert decoded.total == 20 * rate
    for part in decoded.segments:
        expected = samples[part.start : part.start + len(part.samples)].mean(axis=1)
        np.testing.assert_allclose(part.samples, expected, atol=1e-7)
    assert np.isnan(out[3 * rate :]).all()


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", "uint8", "float64"])
@pytest.mark.parametrize("channels", [1, 2])
def test_other_types_are_scaled_by_full_scale(dtype: str, channels: int) -> None:
    rng = np.random.default_rng(1)
    n = BLOCK_VALUES + 3
    if dtype == "float64":
        samples = rng.uniform(-1, 1, (n, channels))
        exact = samples
    else:
        info = np.iinfo(dtype)
        samples = rng.integers(info.min, info.max, (n, channels), dtype=dtype, endpoint=True)
        samples[0], samples[1] = info.min, info.max
        exact = (samples - 128.0) / 128.0 if dtype == "uint8" else samples / -float(info.min)
    decoded = mix_excerpt(samples, 44_100, FULL, out_for(n))
    np.testing.assert_allclose(decoded.segments[0].samples, exact.mean(axis=1), atol=1e-7)
    assert decoded.segments[0].samples[0] == pytest.approx(exact[0].mean())


def test_strided_input() -> None:
    samples = synth.music(2, 8_000, 2)
    expected = samples.mean(axis=1)
    for view in (
        np.asfortranarray(samples),
        np.repeat(samples, 2, axis=0)[::2],
        np.repeat(samples, 2, axis=1)[:, ::2],
    ):
        decoded = mix_excerpt(view, 8_000, FULL, out_for(len(samples)))
        np.testing.assert_allclose(decoded.segments[0].samples, expected, atol=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("at", [0, 70_000, -1])
def test_non_finite_is_corrupt(value: float, dtype: str, at: int) -> None:
    samples = synth.music(3).astype(dtype)
    samples[at, 1] = value
    with pytest.raises(TrackError, match="NaN or infinite") as caught:
        mix_excerpt(samples, 44_100, FULL, out_for(len(samples)))
    assert caught.value.status == "corrupt"


def test_infinities_that_cancel_and_float64_beyond_float32_are_corrupt() -> None:
    for samples in (np.array([[np.inf, -np.inf]], dtype=np.float32), np.array([[1e300, 0.0]])):
        with pytest.raises(TrackError, match="NaN or infinite"):
            mix_excerpt(samples, 44_100, FULL, out_for(1))


def test_non_finite_outside_of_the_excerpt_does_not_matter() -> None:
    samples = synth.music(3)
    samples[0] = np.nan
    decoded = mix_excerpt(samples, 44_100, [ExcerptSpec("center", 1)], out_for(44_100))
    assert np.isfinite(decoded.segments[0].samples).all()


def test_statuses() -> None:
    samples = synth.music(1, 8_000)
    cases = [
        ("empty", samples[:0], 8_000, 8_000),
        ("unsupported", samples, 3_999, 8_000),
        ("unsupported", samples, 20_000_000, 8_000),
        ("too_long", samples, 8_000, 7_999),
    ]
    for status, part, rate, capacity in cases:
        with pytest.raises(TrackError) as caught:
            mix_excerpt(part, rate, FULL, out_for(capacity))
        assert caught.value.status == status
    assert "8000 samples" in str(caught.value)
    assert "7999" in str(caught.value)


def test_refuses_what_the_caller_got_wrong() -> None:
    good = synth.music(1, 8_000)
    with pytest.raises(ValueError, match="float16"):
        mix_excerpt(good.astype(np.float16), 8_000, FULL, out_for(8_000))
    with pytest.raises(ValueError, match="native"):
        mix_excerpt(good.astype(">f4"), 8_000, FULL, out_for(8_000))
    with pytest.raises(ValueError, match="channels"):
        mix_excerpt(good.T, 8_000, FULL, out_for(8_000))
    with pytest.raises(ValueError, match="out has to be"):
        mix_excerpt(good, 8_000, FULL, np.empty(8_000))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "int16", "int32", "float64"])
def test_allocates_one_block(dtype: str) -> None:
    samples = np.zeros((2_000_000, 2), dtype=dtype)
    out = out_for(len(samples))
    assert min(traced(lambda: mix_excerpt(samples, 44_100, FULL, out)).peaks) < 2 * 4 * BLOCK_VALUES
