"""The clips that the starter bundle was fitted on, as its tests hear them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from edge_reclass.audio import Decoder, ExcerptSpec

_GENRES = {"hiphop": "Hip-Hop", "metal": "Rock"}
_SECONDS = 10.0
"""The longest that every genre has clips of; temperatures were fitted on this length."""


@dataclass(frozen=True)
class Clip:
    """One clip, and the genre that the bundle is to give it."""

    path: Path
    genre: str

    @cached_property
    def middle(self) -> tuple[np.ndarray, int]:
        """The middle 10 s, mono float32[n], and their rate in Hz."""
        decoded = Decoder().decode(self.path, [ExcerptSpec("center", _SECONDS)], np.empty(11 * 192_000, np.float32))
        return decoded.segments[0].samples.copy(), decoded.rate


def clips(data: Path, wanted: int) -> list[Clip]:
    """The first ``wanted`` clips of each label that are at least 10 s long."""
    found: dict[str, list[Clip]] = {}
    with (data / "index.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if float(row["seconds"]) >= _SECONDS and row["dataset"] != "emotify":
                genre = _GENRES.get(row["genre"], row["genre"].capitalize())
                found.setdefault(row["genre"], []).append(Clip(data / row["path"], genre))
    return [clip for label in found.values() for clip in label[:wanted]]


def stored(samples: np.ndarray, gain: float) -> np.ndarray:
    """``samples`` as a file of 16 bits has them, float32[n, 1]: dithered, and cut off at full scale.

    Args:
        samples: float[n].
        gain: in dB.
    """
    dither = np.random.default_rng(0).uniform(-0.5, 0.5, (2, len(samples))).sum(axis=0)
    steps = np.round(samples.astype(np.float64) * 10 ** (gain / 20) * 32_767 + dither)
    return (np.clip(steps, -32_768, 32_767) / 32_768).astype(np.float32)[:, None]
