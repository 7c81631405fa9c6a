"""When two answers are the same: one sentence on what is wrong, or None."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_reclass.bundle import agreement

__all__ = ["close_features", "close_values", "same_direction"]

Answer = NDArray[np.floating]


def same_direction(least: float) -> Callable[[Answer, Answer], str | None]:
    """Embeddings float[dim] whose cosine similarity is at least ``least``."""

    def check(ours: Answer, theirs: Answer) -> str | None:
        cosine = agreement(np.atleast_2d(ours), np.atleast_2d(theirs)).cosine
        return None if cosine >= least else f"expected a cosine of at least {least}, got {cosine:.6f}"

    return check


def close_values(most: float) -> Callable[[Answer, Answer], str | None]:
    """Numbers that differ by at most ``most``."""

    def check(ours: Answer, theirs: Answer) -> str | None:
        if ours.shape != theirs.shape:
            return f"expected {list(ours.shape)} values, got {list(theirs.shape)}"
        difference = float(np.abs(ours - theirs).max())
        return None if difference <= most else f"expected differences up to {most}, got {difference:.4g}"

    return check


def close_features(ours: Answer, theirs: Answer) -> str | None:
    """Feature vectors of which at most 1 % is off by more than 0.1 % (and 0.001): a tuning estimate may tip over."""
    if ours.shape != theirs.shape:
        return f"expected {len(ours)} features, got {len(theirs)}"
    # A row that does not vary has no skew: librosa says nan, we say 0.
    theirs = np.nan_to_num(theirs)
    off = int((np.abs(ours - theirs) > 1e-3 + 1e-3 * np.abs(theirs)).sum())
    return None if off <= 0.01 * len(ours) else f"{off} of {len(ours)} features are off by more than 0.1 %"
