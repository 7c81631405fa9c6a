"""The sampling rate of real music is no genre: its middle 10 s, resampled up and down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_reclass import Cascade
from edge_reclass.audio import Resampler
from starter_clips import Clip, clips


def resampled(clip: Clip, rate: int) -> np.ndarray:
    samples, own = clip.middle
    out = np.empty(11 * rate, np.float32)
    return out[: Resampler().resample(samples, own, rate, out)]


def test_a_higher_rate_gives_the_same_genre_and_nearly_the_same_score(cascade: Cascade, data: Path) -> None:
    """A clip whose two best scores are within 0.1 is no test of this and is left out."""
    compared = 0
    for clip in clips(data, 1):
        before = cascade.classify_samples(*clip.middle)
        if before.top[0].score - before.top[1].score < 0.1:
            continue
        compared += 1
        for rate in (32_000, 44_100, 48_000, 96_000):
            after = cascade.classify_samples(resampled(clip, rate), rate)
            assert after.genre == before.genre, (clip.path.name, rate)
            assert after.confidence == pytest.approx(before.confidence, abs=0.05), (clip.path.name, rate)
    assert compared >= 8


def test_a_low_rate_is_no_genre(cascade: Cascade, data: Path) -> None:
    """A file at 8, 11.025 or 16 kHz lacks the upper part of the spectrum; that must not decide what it is."""
    chosen = clips(data, 2)
    for rate in (8_000, 11_025, 16_000):
        right = [cascade.classify_samples(resampled(clip, rate), rate).genre == clip.genre for clip in chosen]
        assert np.mean(right) >= 0.8, rate
