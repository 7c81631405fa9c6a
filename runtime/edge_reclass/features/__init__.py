"""The 518 hand-crafted features of the FMA data set, in numpy and soxr.

``fma518(samples, rate)`` computes one excerpt; :class:`Fma518` is the plan that a long-running process holds.
"""

from __future__ import annotations

from .extractor import LOWEST_NATIVE_RATE, Fma518, fma518
from .layout import FEATURE_COUNT, FEATURE_NAMES

__all__ = ["FEATURE_COUNT", "FEATURE_NAMES", "LOWEST_NATIVE_RATE", "Fma518", "fma518"]
