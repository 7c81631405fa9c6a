"""Twelve seconds of made sound, a chord with a beat and some noise: what a trial classifies."""

from __future__ import annotations

import math
import random
import sys
import wave
from array import array
from pathlib import Path

RATE, SECONDS = 22_050, 12
_CHORD = (220.0, 277.18, 329.63)


def write(path: Path) -> None:
    """Write it as 16-bit mono WAV; the same bytes every time."""
    noise = random.Random(1)
    samples = array("h")
    for index in range(RATE * SECONDS):
        time = index / RATE
        beat = math.exp(-8.0 * (time % 0.5))
        chord = sum(math.sin(2.0 * math.pi * pitch * time) for pitch in _CHORD) / len(_CHORD)
        samples.append(round(32_767 * (0.4 * chord + 0.4 * beat * noise.uniform(-1.0, 1.0))))
    if sys.byteorder == "big":
        samples.byteswap()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
