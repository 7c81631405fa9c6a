"""Volume, channels, offset and clipping of real music are no genre."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_reclass import Cascade
from starter_clips import clips, stored


def softer(samples: np.ndarray) -> Iterator[np.ndarray]:
    """A file of 16 bits, and others at lower volumes."""
    for gain in (0, -6, -12, -20, -30, -40):
        yield stored(samples, gain)


def mixed(samples: np.ndarray) -> Iterator[np.ndarray]:
    """One channel, then several, with an offset, and as loud as can be without clipping."""
    one, nothing = samples[:, None], np.zeros((len(samples), 1), np.float32)
    yield one
    yield np.repeat(one, 2, axis=1)
    yield np.concatenate([one, nothing], axis=1)
    yield np.concatenate([nothing, one], axis=1)
    yield np.concatenate([one, 0.5 * one, 0.7 * one, nothing, 0.3 * one, 0.3 * one], axis=1)
    yield one * np.float32(0.5) + np.float32(0.25)
    yield stored(samples, -20 * np.log10(np.abs(samples).max()))


@pytest.mark.parametrize("change", [softer, mixed])
def test_the_answer_stays(cascade: Cascade, data: Path, change: Callable[[np.ndarray], Iterator[np.ndarray]]) -> None:
    same = []
    for clip in clips(data, 1):
        samples, rate = clip.middle
        first, *others = (cascade.classify_samples(np.ascontiguousarray(one), rate) for one in change(samples))
        same += [(other.status, other.genre) == (first.status, first.genre) for other in others]
    assert len(same) >= 50
    assert np.mean(same) >= 0.97
