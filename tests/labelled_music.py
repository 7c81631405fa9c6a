"""A small base bundle and music whose genre is a pattern of loudness, which its encoders hear."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import bundles
import synth

RATE, PARTS = 16_000, 64
GENRES = ("Drone", "Loop", "March")


def base(root: Path, *, accept: float = 0.9) -> Path:
    """Two stages of 64 values for a second each; the head of the second takes both. Policies: ladder, thorough."""
    stages = [
        bundles.waveform_stage("low", dim=PARTS),
        bundles.waveform_stage("high", dim=PARTS, head={"inputs": ["low", "high"]}),
    ]
    steps = [
        {"after": "low", "weights": {"low": 1.0}, "accept": accept, "windows": 1},
        {"after": "high", "weights": {"high": 1.0}},
    ]
    patient = [{"after": "low", "weights": {"low": 1.0}, "accept": 1.0}, {"after": "high", "weights": {"high": 1.0}}]
    policies = {"ladder": {"vote": "soft", "steps": steps}, "thorough": {"vote": "soft", "steps": patient}}
    return bundles.make_bundle(root, stages, policies=policies, default_policy="ladder")


def track(genre: int, number: int, seconds: float = 3.0) -> NDArray[np.float32]:
    """Noise whose loudness follows the genre's pattern and the track's own, every second anew: float32[n, 1]."""
    kind = np.random.default_rng(1000 + genre).normal(0, 1.0, PARTS)
    own = np.random.default_rng([genre, number]).normal(0, 0.9, PARTS)
    loud = np.exp(np.clip(kind + own, -2.5, 2.5))
    samples = round(seconds * RATE)
    envelope = np.repeat(loud, RATE // PARTS)[np.arange(samples) % (RATE // PARTS * PARTS)]
    noise = np.random.default_rng([7, genre, number]).uniform(-1, 1, samples)
    return (0.05 * envelope * noise)[:, None].astype(np.float32)


def folders(root: Path, genres: tuple[str, ...] = GENRES, artists: int = 4, each: int = 2, first: int = 0) -> Path:
    """``root``/genre/artist/number.wav."""
    for path, genre, number in named(root, genres, artists, each, first):
        path.parent.mkdir(parents=True, exist_ok=True)
        synth.write(path, track(genre, number), RATE)
    return root


def named(root: Path, genres: tuple[str, ...], artists: int, each: int, first: int) -> Iterator[tuple[Path, int, int]]:
    known = (*GENRES, "Siren")
    for genre in genres:
        for artist in range(artists):
            for i in range(each):
                number = first + artist * each + i
                yield root / genre / f"{genre} Band {artist}" / f"{number}.wav", known.index(genre), number
