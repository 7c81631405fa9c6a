"""The 518 hand-crafted features of the FMA data set, in numpy and soxr.

``fma518(samples, rate)`` computes one excerpt; :class:`Fma518` is what a long-running process holds.
"""

from __future__ import annotations

from edge_reclass.features.extractor import LOWEST_NATIVE_RATE, Fma518, fma518
from edge_reclass.features.framing import frame_count
from edge_reclass.features.layout import FEATURE_COUNT, FEATURE_NAMES

__all__ = ["FEATURE_COUNT", "FEATURE_NAMES", "LOWEST_NATIVE_RATE", "Fma518", "fma518", "frame_count"]
