"""Twelve seconds of made sound, a chord with a beat and some noise: what a trial classifies."""

from __future__ import annotations

import math
import random
import sys
import wave
from array import array
from pathlib import Path

RATE, SECONDS, BEAT_MILLISECONDS = 22_050, 12, 500
_CHORD = (220.0, 277.18, 329.63)


def write(path: Path) -> None:
    """Write it as 16-bit mono WAV; the same bytes every time."""
    noise = random.Random(1)
    beat = array("h")
    for index in range(RATE * BEAT_MILLISECONDS // 1000):
        time = index / RATE
        chord = sum(math.sin(2.0 * math.pi * pitch * time) for pitch in _CHORD) / len(_CHORD)
        sound = 0.4 * chord + 0.4 * math.exp(-8.0 * time) * noise.uniform(-1.0, 1.0)
        beat.append(round(32_767 * sound))
    if sys.byteorder == "big":
        beat.byteswap()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(beat.tobytes() * (SECONDS * 1000 // BEAT_MILLISECONDS))
