"""Level of a window: what is silence, and that volume, offset and drift do not matter."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_reclass.audio.loudness import level, normalise

RATE = 16_000


def noise(seconds: float = 3.0, rate: int = RATE, rms: float = 0.1) -> NDArray[np.float32]:
    return (rms * np.random.default_rng(1).standard_normal(round(seconds * rate))).astype(np.float32)


def clicks(*positions: float, rate: int = RATE, height: float = 0.9) -> NDArray[np.float32]:
    samples = np.zeros(3 * rate, np.float32)
    samples[[round(position * rate) for position in positions]] = height
    return samples


def dither(rate: int = RATE) -> NDArray[np.float32]:
    """Triangular dither of ±1 step of 16 bits, rounded to steps."""
    random = np.random.default_rng(2)
    steps = np.round(random.uniform(-0.5, 0.5, 3 * rate) + random.uniform(-0.5, 0.5, 3 * rate))
    return (steps * 2.0**-15).astype(np.float32)


LINE = np.linspace(-1, 1, 3 * RATE, dtype=np.float32)


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("zeros", np.zeros(3 * RATE, np.float32)),
        ("constant", np.full(3 * RATE, 0.5, np.float32)),
        ("negative constant", np.full(3 * RATE, -1.0, np.float32)),
        ("drift", LINE),
        ("step", np.where(LINE < 0, np.float32(-0.7), np.float32(0.7))),
        ("constant with dither", dither() + np.float32(0.3)),
        ("dither", dither()),
        ("last bit toggling", np.float32(2**-15) * (np.arange(3 * RATE) % 2).astype(np.float32)),
        ("one click", clicks(1.5)),
        ("two clicks", clicks(0.5, 2.5, height=-1.0)),
        ("noise at -95 dBFS", noise(rms=10 ** (-95 / 20))),
        ("one sample", np.ones(1, np.float32)),
        ("denormals", np.full(RATE, 1e-40, np.float32)),
    ],
)
def test_silence(name: str, samples: NDArray[np.float32]) -> None:
    assert level(samples, RATE).silent
    assert level(samples, RATE).gain(-15) == 1.0


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 192_000])
@pytest.mark.parametrize("decibels", [-88, -70, -20, 0])
def test_sound_is_not_silence_and_its_loudness_is_its_rms(rate: int, decibels: float) -> None:
    found = level(noise(rate=rate, rms=10 ** (decibels / 20)), rate)
    assert 20 * np.log10(found.rms) == pytest.approx(decibels, abs=0.1)


def test_an_offset_hides_nothing_and_adds_nothing() -> None:
    quiet = noise(rms=1e-4)
    for offset in (0.0, 0.5, -1.0):
        found = level(quiet + np.float32(offset), RATE)
        assert found.mean == pytest.approx(offset, abs=1e-5)
        assert found.rms == pytest.approx(1e-4, rel=0.02)


def test_pauses_do_not_count() -> None:
    music = noise()
    with_pause = np.concatenate([music, np.zeros_like(music), noise(rms=1e-4)])
    assert level(with_pause, RATE).rms == pytest.approx(level(music, RATE).rms, rel=0.01)


@pytest.mark.parametrize("gain", [2e-3, 0.01, 1.0, 3.0])
@pytest.mark.parametrize("offset", [0.0, 0.2])
def test_normalised_windows_are_equal_whatever_the_volume(gain: float, offset: float) -> None:
    envelope = (0.5 + 0.5 * np.sin(np.linspace(0, 40, 3 * RATE))).astype(np.float32) ** 4
    music = noise() * envelope
    reference, window = music.copy(), np.float32(gain) * music + np.float32(offset)
    normalise(reference, level(reference, RATE), -15)
    normalise(window, level(window, RATE), -15)
    np.testing.assert_allclose(window, reference, atol=2e-3 if offset else 2e-4)
    assert level(window, RATE).rms == pytest.approx(10 ** (-15 / 20), rel=1e-3)


def test_a_window_shorter_than_a_frame() -> None:
    assert not level(noise(0.01), RATE).silent
    assert level(np.zeros(20, np.float32), RATE).silent
