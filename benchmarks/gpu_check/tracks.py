"""Made audio: a library of tracks in several formats, the same for the same seed."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

__all__ = ["FORMATS", "RATE", "library", "music"]

RATE = 44_100

FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".mp3": ("MP3", "MPEG_LAYER_III")}
"""Suffix → libsndfile's container and codec; a library has them by turns."""

_BLOCK = 65_536


def music(seconds: float, rate: int, seed: int) -> NDArray[np.float32]:
    """Chords with overtones that change twice a second over noise: float32[n, 2], peak below 1."""
    random = np.random.default_rng(seed)
    count = round(seconds * rate)
    signal = np.empty((count, 2), np.float32)
    loudness, noise = random.uniform(0.03, 0.1), random.uniform(0.002, 0.05)
    for begin in range(0, count, rate // 2):
        time = np.arange(begin, min(begin + rate // 2, count)) / rate
        chord = np.zeros_like(time)
        for note in 110.0 * 2 ** (random.integers(0, 36, size=3) / 12):
            for overtone in range(1, 6):
                if note * overtone < rate / 2:
                    chord += np.sin(2 * np.pi * note * overtone * time) / overtone
        pan = random.uniform(0.5, 1.0, size=2)
        signal[begin : begin + len(time)] = loudness * chord[:, None] * pan
        signal[begin : begin + len(time)] += noise * random.uniform(-1.0, 1.0, (len(time), 2)).astype(np.float32)
    return signal


def library(folder: Path, tracks: int, seconds: float, workers: int) -> list[Path]:
    """Paths of ``tracks`` files of ``seconds`` each below ``folder``; those that are there are taken as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    suffixes = list(FORMATS)
    paths = [folder / f"{number:04d}-{seconds:g}s{suffixes[number % len(suffixes)]}" for number in range(tracks)]
    missing = [(path, seconds, 1000 + number) for number, path in enumerate(paths) if not path.is_file()]
    if len(missing) > 1 and workers > 1:
        # Spawned: a fork of a process with threads of numpy's would be a gamble.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            list(pool.map(_write, missing))
    else:
        list(map(_write, missing))
    return paths


def _write(job: tuple[Path, float, int]) -> None:
    path, seconds, seed = job
    container, codec = FORMATS[path.suffix]
    samples = music(seconds, RATE, seed)
    unfinished = path.with_name(path.name + ".part")
    with soundfile.SoundFile(unfinished, "w", RATE, 2, format=container, subtype=codec) as file:
        for begin in range(0, len(samples), _BLOCK):
            file.write(samples[begin : begin + _BLOCK])
    unfinished.replace(path)
