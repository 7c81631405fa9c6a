"""What is no music gets no genre from the starter bundle."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from edge_reclass import Cascade
from starter_clips import stored


def not_music(rate: int, seconds: float) -> Iterator[tuple[str, np.ndarray]]:
    """Signals that no genre fits, float64[n]; many of them unlike those that the range test was fitted on."""
    t = np.arange(round(rate * seconds)) / rate
    random = np.random.default_rng(11)
    white = random.standard_normal(len(t))
    spectrum, axis = np.fft.rfft(white), np.maximum(np.fft.rfftfreq(len(t), 1 / rate), 20.0)

    def tone(frequency: float | np.ndarray) -> np.ndarray:
        return np.sin(2 * np.pi * np.cumsum(np.broadcast_to(frequency, t.shape)) / rate)

    def shaped(filter_: np.ndarray) -> np.ndarray:
        noise = np.fft.irfft(spectrum * filter_, len(t))
        return noise / noise.std()

    for frequency in (55, 130, 330, 700, 1500, 2600, 3300):
        yield f"sine {frequency}", tone(frequency)
    for frequency in (80, 300, 900):
        yield f"square {frequency}", np.sign(tone(frequency))
        yield f"saw {frequency}", 2 * (frequency * t % 1) - 1
    for first, last in ((30, 3000), (3000, 300), (400, 500)):
        yield f"chirp {first} {last}", tone(first + (last - first) * t / t[-1])
    for mains in (50, 60):
        yield f"hum {mains}", sum(tone(mains * k) / k**2 for k in (1, 2, 3, 5, 7)) + 0.01 * white
    for period in (0.03, 0.15, 0.4, 0.8, 1.5):
        clicks = np.zeros(len(t))
        clicks[:: round(period * rate)] = 1
        yield f"clicks {period}", clicks
    for slope in (-1.0, -0.7, -0.5, 0.0, 0.5):
        yield f"noise {slope}", shaped(axis**slope)
    yield "noise through a wall", shaped(1 / (1 + (axis / 200) ** 2))
    yield "bursts of noise", white * (t % 0.7 < 0.1)
    yield "swelling noise", shaped(axis**-0.5) * (1.2 + tone(0.8))
    yield "rattle", white * (t % 0.125 < 0.02)
    yield "room", shaped(axis**-0.9) + 0.1 * tone(100)
    yield "wind", shaped(axis**-1.0) * (0.3 + np.abs(tone(0.23)))
    yield "key 5 of a telephone", tone(770) + tone(1336)
    yield "beeps", tone(850) * (t % 0.6 < 0.3)
    yield "reversing lorry", np.sign(tone(1250)) * (t % 1.0 < 0.5)
    yield "alarm", tone(np.where(t % 0.5 < 0.25, 800.0, 1000.0))
    yield "slow siren", tone(700 + 300 * tone(0.15))
    yield "modem", tone(np.where(np.repeat(random.random(len(t) // 20 + 1) < 0.5, 20)[: len(t)], 1300.0, 2100.0))
    yield "vibrating tone", tone(600 + 20 * tone(6))
    yield "tremolo", tone(600) * (1 + 0.8 * tone(5))
    yield "two tones", tone(500) + tone(731)
    yield "idling engine", sum(tone(22 * k) / k for k in range(1, 15)) * (1 + 0.3 * tone(11))
    yield "constant", np.full(len(t), -0.4)
    yield "nothing", np.zeros(len(t))


PEAKS = (-3, -30, -55)


@pytest.mark.parametrize(("turn", "rate", "seconds"), [(0, 8_000, 6.0), (1, 22_050, 11.0), (2, 44_100, 5.0)])
def test_what_is_no_music_gets_no_genre(cascade: Cascade, turn: int, rate: int, seconds: float) -> None:
    """Every signal is heard at every rate, and over the three of them at every level."""
    found = {}
    for number, (name, signal) in enumerate(not_music(rate, seconds)):
        samples = stored(signal / max(np.abs(signal).max(), 1e-9), PEAKS[(number + turn) % 3])
        found[name] = cascade.classify_samples(samples, rate)
    sure = {name: (verdict.genre, verdict.confidence) for name, verdict in found.items() if verdict.status == "ok"}
    assert len(found) >= 45
    assert not sure
    assert found["nothing"].status == "silent"
    assert found["sine 700"].reason_code == "outside_range"
