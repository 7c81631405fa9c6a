"""The window rule: one pure function for every encoder, and the copy that follows it.

A graph never sees padding. Windows start at 0, hop, 2·hop, …; the last one is moved back so that it ends with the
excerpt. An excerpt shorter than one window is repeated until the window is full, because zeros would be taken for
silence by encoders that normalise over time.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

ShortRule = Literal["repeat", "repeat_centered", "reject"]


def count_windows(n: int, window: int, hop: int) -> int:
    """Number of windows that :func:`windows` gives for an excerpt of ``n`` samples (1 when it is shorter than one)."""
    return 1 if n <= window else 1 + -(-(n - window) // hop)


def windows(n: int, window: int, hop: int, short: ShortRule = "repeat") -> tuple[int, ...]:
    """Start of each window, in samples, for an excerpt of ``n`` samples.

    The last window ends with the excerpt. A start of 0 for an excerpt shorter than ``window`` means that the window
    is filled by :func:`fill_window` according to ``short``; ``()`` means that the excerpt is rejected.

    Raises:
        ValueError: ``n``, ``window`` or ``hop`` is below 1, or ``hop`` exceeds ``window`` (samples would be lost).
    """
    if n < 1 or window < 1 or not 1 <= hop <= window:
        raise ValueError(f"expected n ≥ 1, window ≥ 1 and 1 ≤ hop ≤ window, got n={n}, window={window}, hop={hop}")
    if n < window and short == "reject":
        return ()
    last = max(0, n - window)
    count = count_windows(n, window, hop)
    return (*(i * hop for i in range(count - 1)), last)


def listening_order(count: int) -> tuple[int, ...]:
    """The order in which ``count`` windows are heard, so that the first few tell most: from the middle outwards."""
    middle = (count - 1) / 2
    return tuple(sorted(range(count), key=lambda i: (abs(i - middle), i)))


def fill_window(samples: NDArray[np.float32], start: int, short: ShortRule, out: NDArray[np.float32]) -> None:
    """Copy one window of ``samples`` (float32[n]) that begins at ``start`` into ``out`` (float32[window]).

    An excerpt shorter than the window is repeated: ``repeat`` begins with its first sample, ``repeat_centered`` puts
    one whole copy in the middle. Nothing is allocated.
    """
    n, window = len(samples), len(out)
    if n >= window:
        out[:] = samples[start : start + window]
        return
    phase = (-((window - n) // 2)) % n if short == "repeat_centered" else 0
    position = 0
    while position < window:
        piece = min(n - phase, window - position)
        out[position : position + piece] = samples[phase : phase + piece]
        position += piece
        phase = 0
