#!/usr/bin/env python3
"""Classify a made tone with the installed command, as the service will: ``smoke.py COMMAND [OPTION…]``.

The tone is 12 s of a chord with a beat and some noise, made here and removed again; its genre means nothing, but there
must be one. Prints one line. Exit codes: 0 there was an answer; 1 there was none, with the reason.
"""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import tempfile
import time
import wave
from array import array
from pathlib import Path

RATE, SECONDS = 22_050, 12
_CHORD = (220.0, 277.18, 329.63)


def write_tone(path: Path) -> None:
    """Write the tone as 16-bit mono; the same bytes every time."""
    noise = random.Random(1)
    samples = array("h")
    for index in range(RATE * SECONDS):
        time_ = index / RATE
        beat = math.exp(-8.0 * (time_ % 0.5))
        chord = sum(math.sin(2.0 * math.pi * pitch * time_) for pitch in _CHORD) / len(_CHORD)
        samples.append(round(32_767 * (0.4 * chord + 0.4 * beat * noise.uniform(-1.0, 1.0))))
    if sys.byteorder == "big":
        samples.byteswap()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


def main(command: list[str]) -> int:
    """Run ``command`` on the tone and judge the one JSON line that it prints."""
    with tempfile.TemporaryDirectory(prefix="edge-reclass-smoke-") as folder:
        tone = Path(folder) / "tone.wav"
        write_tone(tone)
        began = time.monotonic()
        done = subprocess.run([*command, str(tone), "--format", "json"], capture_output=True, text=True, check=False)
        seconds = time.monotonic() - began
    try:
        (verdict,) = json.loads(done.stdout)
        good = done.returncode == 0 and verdict["status"] == "ok" and isinstance(verdict["genre"], str)
    except (ValueError, KeyError, TypeError):
        good = False
    if not good:
        print(f"no answer (exit code {done.returncode}): {done.stdout.strip()} {done.stderr.strip()}", file=sys.stderr)
        return 1
    answer = f"{verdict['genre']} ({verdict['confidence']:.2f}), by {verdict['decided_by']}"
    print(f"a made tone is {answer}, in {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
