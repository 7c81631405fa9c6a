"""Made signals that are no music: what a range test has to refuse, at several levels, rates and noise floors.

Nothing is fitted on them. They show in the card what the range test catches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FITTED: Final = ((8_000, 4.0), (16_000, 7.0), (22_050, 10.0), (44_100, 5.0), (48_000, 3.0))
"""Rates in Hz and lengths in seconds at which the signals are played for the fit."""
MEASURED: Final = ((8_000, 5.0), (22_050, 9.0), (44_100, 4.5))
"""Others, at which the finished bundle is asked."""
_LEVELS: Final = (0.0, -20.0, -40.0, -60.0, -75.0)
"""Peaks in dB of full scale, in turn."""

Signal = NDArray[np.float64]


@dataclass(frozen=True)
class Nonsense:
    """One signal: ``samples`` are float64[n], with a peak of 1."""

    family: str
    name: str
    samples: Signal


def recordings(turns: Sequence[tuple[int, float]], seed: int) -> Iterator[tuple[Nonsense, NDArray[np.float32], int]]:
    """Every signal at every turn of rate and length, at changing levels: the signal, what is played, and its rate."""
    random = np.random.default_rng(seed)
    for turn, (rate, seconds) in enumerate(turns):
        for number, signal in enumerate(nonsense(rate, seconds, seed + turn)):
            level = _LEVELS[(number + turn + seed) % len(_LEVELS)]
            yield signal, played(signal.samples, level, random), rate


def nonsense(rate: int, seconds: float, seed: int = 0) -> Iterator[Nonsense]:
    """All signals that fit below half of ``rate``, in Hz."""
    t = np.arange(round(rate * seconds)) / rate
    random = np.random.default_rng(seed)
    for family, make in _FAMILIES.items():
        for name, samples in make(t, rate, random):
            scaled = samples / max(float(np.abs(samples).max()), 1e-12)
            yield Nonsense(family, name, np.asarray(scaled, np.float64))


def played(samples: Signal, level: float, random: np.random.Generator) -> NDArray[np.float32]:
    """``samples`` with their peak at ``level`` dB, as a recorder with 16 bits stores them: with triangular dither."""
    scaled = samples * 10.0 ** (level / 20.0) * 32_767.0 + random.uniform(-0.5, 0.5, (2, len(samples))).sum(axis=0)
    return np.asarray(np.clip(np.round(scaled), -32_768, 32_767) / 32_768.0, np.float32)


Named = Iterator[tuple[str, NDArray[np.floating]]]
_TURN: Final = 2.0 * np.pi


def _tone(frequency: float | Signal, t: Signal) -> Signal:
    """A sine whose frequency may move: its phase is the integral of the frequency."""
    if isinstance(frequency, np.ndarray):
        return np.asarray(np.sin(_TURN * np.cumsum(frequency) * (t[1] - t[0])), np.float64)
    return np.asarray(np.sin(_TURN * frequency * t), np.float64)


def _coloured(t: Signal, random: np.random.Generator, slope: float, low: float = 0.0, high: float = np.inf) -> Signal:
    """Gaussian noise whose amplitude goes with frequency^slope between ``low`` and ``high`` Hz; deviation 1."""
    spectrum = np.fft.rfft(random.standard_normal(len(t)))
    axis = np.fft.rfftfreq(len(t), t[1] - t[0])
    shaped = spectrum * np.maximum(axis, 10.0) ** slope * ((axis >= low) & (axis <= high))
    noise = np.fft.irfft(shaped, len(t))
    return np.asarray(noise / noise.std(), np.float64)


def _sines(t: Signal, rate: int, _: np.random.Generator) -> Named:
    for frequency in (50, 100, 200, 440, 1000, 2000, 3000, 4000, 6000, 8000):
        if frequency < 0.45 * rate:
            yield f"sine {frequency} Hz", _tone(frequency, t)


def _waves(t: Signal, _: int, __: np.random.Generator) -> Named:
    for frequency in (60, 110, 220, 440, 1000, 2500):
        turns = frequency * t % 1.0
        yield f"square {frequency} Hz", np.sign(turns - 0.5)
        yield f"saw {frequency} Hz", 2.0 * turns - 1.0
        yield f"triangle {frequency} Hz", 4.0 * np.abs(turns - 0.5) - 1.0
    yield "pulse 110 Hz", (110 * t % 1.0 < 0.1) - 0.1


def _sweeps(t: Signal, rate: int, _: np.random.Generator) -> Named:
    top, part = 0.45 * rate, t / t[-1]
    yield "sweep up", _tone(100 + (top - 100) * part, t)
    yield "sweep down", _tone(top - (top - 100) * part, t)
    yield "logarithmic sweep", _tone(20 * (top / 20) ** part, t)
    yield "slow sweep", _tone(50 + 40 * part, t)
    yield "sweeps of 1 s", _tone(200 + 2000 * (t % 1.0), t)
    yield "sweeps of 0.2 s", _tone(300 + 3000 * (5 * t % 1.0), t)


def _hum(t: Signal, _: int, random: np.random.Generator) -> Named:
    for mains in (50, 60):
        hum = sum((_tone(mains * k, t + k / 997) / k for k in range(1, 9)), np.zeros(len(t)))
        yield f"hum {mains} Hz", hum
        yield f"hum {mains} Hz and hiss", hum + 0.05 * random.standard_normal(len(t))
    engine = sum((_tone(27 * k, t + k * k / 997) / k**0.7 for k in range(1, 20)), np.zeros(len(t)))
    yield "engine", engine * (1 + 0.3 * _tone(13.5, t)) + 0.3 * _coloured(t, random, -0.5)
    yield "fan", _coloured(t, random, -0.5) + sum((_tone(95 * k, t) / k for k in range(1, 5)), np.zeros(len(t)))


def _clicks(t: Signal, rate: int, random: np.random.Generator) -> Named:
    for period in (0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0):
        clicks = np.zeros(len(t))
        clicks[:: round(rate * period)] = 1.0
        yield f"clicks every {period:g} s", clicks
    for often in (3, 20, 200):
        yield (
            f"crackle, {often} a second",
            np.where(random.random(len(t)) < often / rate, random.normal(0, 1, len(t)), 0),
        )
    yield "ticks every 0.5 s", _tone(1500, t) * np.exp(-(t % 0.5) * 500)


def _noise(t: Signal, _: int, random: np.random.Generator) -> Named:
    for name, slope in (("white", 0.0), ("pink", -0.5), ("brown", -1.0), ("blue", 0.5), ("violet", 1.0)):
        yield f"{name} noise", _coloured(t, random, slope)
    for low, high in ((0, 400), (300, 3400), (500, 1500), (980, 1020)):
        yield f"noise {low}–{high} Hz", _coloured(t, random, 0.0, low, high)
    for duty in (0.05, 0.2, 0.5):
        yield f"bursts of {duty} s", random.standard_normal(len(t)) * (t % 1.0 < duty)
    for beat in (0.5, 2, 4):
        yield f"noise swelling at {beat} Hz", _coloured(t, random, -0.5) * (1 + _tone(beat, t))


def _rooms(t: Signal, _: int, random: np.random.Generator) -> Named:
    yield "room", _coloured(t, random, -0.8) + 0.3 * _tone(120, t)
    yield "room with hum", _coloured(t, random, -1.0) + 0.5 * _tone(100, t) + 0.2 * random.standard_normal(len(t))
    gusts = np.abs(_coloured(t, random, 0.0, 0.0, 1.5))
    yield "wind", _coloured(t, random, -1.0) * (0.3 + gusts)
    yield "surf", _coloured(t, random, -0.5) * (0.1 + np.maximum(_tone(0.15, t), 0))
    yield "rain", _coloured(t, random, -0.2) + 3 * random.normal(0, 1, len(t)) * (random.random(len(t)) < 0.01)


def _signalling(t: Signal, rate: int, random: np.random.Generator) -> Named:
    yield "key 1 of a telephone", _tone(697, t) + _tone(1209, t)
    keys = random.integers(0, 4, len(t) // (rate // 5) + 1), random.integers(0, 3, len(t) // (rate // 5) + 1)
    low, high = (np.repeat(key, rate // 5)[: len(t)] for key in keys)
    pressed = t % 0.2 < 0.1
    dialled = _tone(np.array([697, 770, 852, 941])[low] * 1.0, t) + _tone(np.array([1209, 1336, 1477])[high] * 1.0, t)
    yield "dialling", dialled * pressed
    yield "dial tone", _tone(350, t) + _tone(440, t)
    yield "busy tone", (_tone(480, t) + _tone(620, t)) * (t % 1.0 < 0.5)
    for frequency, period in ((440, 0.5), (1000, 1.0), (2000, 0.25)):
        yield f"beeps at {frequency} Hz", _tone(frequency, t) * (t % period < period / 2)
    bits = np.repeat(random.random(len(t) // (rate // 300) + 1) < 0.5, rate // 300)[: len(t)]
    yield "fax", _tone(np.where(bits, 1200.0, 2200.0), t)
    dots = np.repeat(random.random(len(t) // (rate // 12) + 1) < 0.55, rate // 12)[: len(t)]
    yield "morse", _tone(700, t) * dots
    yield "two-tone siren", _tone(np.where(t % 1.0 < 0.5, 440.0, 585.0), t)
    yield "wailing siren", _tone(900 + 400 * _tone(0.4, t), t)
    yield "yelping siren", _tone(900 + 500 * _tone(4, t), t)


def _modulated(t: Signal, _: int, __: np.random.Generator) -> Named:
    for carrier, beat, swing in ((440, 5, 30), (1000, 100, 300), (200, 1, 100)):
        yield f"{carrier} Hz, frequency modulated", _tone(carrier + swing * _tone(beat, t), t)
    for carrier, beat in ((440, 2), (1000, 8), (200, 30)):
        yield f"{carrier} Hz, amplitude modulated", _tone(carrier, t) * (1 + 0.9 * _tone(beat, t))
    yield "beating tones", _tone(440, t) + _tone(442, t)
    chord = (220.0, 277.2, 329.6)
    yield "sine chord", sum((_tone(f, t) for f in chord), np.zeros(len(t)))
    yield "saw chord", sum((2 * (f * t % 1) - 1 for f in chord), np.zeros(len(t)))


def _almost_nothing(t: Signal, _: int, __: np.random.Generator) -> Named:
    yield "silence", np.zeros(len(t))
    yield "constant", np.full(len(t), 0.5)
    yield "step", np.where(t < t[-1] / 2, -0.5, 0.5)


_FAMILIES: Final = {
    "sines": _sines,
    "square, saw and triangle waves": _waves,
    "sweeps": _sweeps,
    "hum and engines": _hum,
    "clicks and crackle": _clicks,
    "noise": _noise,
    "rooms and weather": _rooms,
    "telephones and sirens": _signalling,
    "modulated tones and held chords": _modulated,
    "silence with dither, constants": _almost_nothing,
}
