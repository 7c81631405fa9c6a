"""Names and order of the 518 features: feature → statistic → row, as in ``features.py`` of the FMA data set."""

from __future__ import annotations

from typing import Final

STATISTICS: Final = ("kurtosis", "max", "mean", "median", "min", "skew", "std")
"""Statistics over the frames, in column order; :mod:`.statistics` computes them in this order."""

ROWS: Final = {
    "chroma_cens": 12,
    "chroma_cqt": 12,
    "chroma_stft": 12,
    "mfcc": 20,
    "rmse": 1,
    "spectral_bandwidth": 1,
    "spectral_centroid": 1,
    "spectral_contrast": 7,
    "spectral_rolloff": 1,
    "tonnetz": 6,
    "zcr": 1,
}
"""Rows (signals per frame) of each feature, in column order: 74 in all."""

EARLY_ROWS: Final = ("rmse", "spectral_bandwidth", "spectral_centroid", "spectral_rolloff", "zcr", "spectral_contrast")
"""Features that one pass over the spectrogram settles; the order of their rows in the workspace."""

LATE_ROWS: Final = ("chroma_cens", "chroma_cqt", "chroma_stft", "mfcc", "tonnetz")
"""Features that need the tuning or the maximum of the whole excerpt; the order of their rows in the workspace."""

FEATURE_NAMES: Final[tuple[str, ...]] = tuple(
    f"{feature}/{statistic}/{row:02d}"
    for feature, rows in ROWS.items()
    for statistic in STATISTICS
    for row in range(1, rows + 1)
)
"""The 518 column names, for example ``mfcc/kurtosis/01``; position in this tuple is position in the vector."""

FEATURE_COUNT: Final = len(FEATURE_NAMES)


def row_slices(features: tuple[str, ...]) -> dict[str, slice]:
    """Rows that each of ``features`` takes when they are laid one under the other in that order."""
    slices: dict[str, slice] = {}
    start = 0
    for feature in features:
        slices[feature] = slice(start, start + ROWS[feature])
        start += ROWS[feature]
    return slices


def column_order(features: tuple[str, ...]) -> list[int]:
    """Column of ``FEATURE_NAMES`` for each entry of a [rows, statistics] table of ``features``, row-major."""
    position = {name: column for column, name in enumerate(FEATURE_NAMES)}
    return [
        position[f"{feature}/{statistic}/{row:02d}"]
        for feature in features
        for row in range(1, ROWS[feature] + 1)
        for statistic in STATISTICS
    ]
