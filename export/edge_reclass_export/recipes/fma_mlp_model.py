"""Stage 1: an MLP on the 518 FMA features, from the checkpoints that exist, on the scale of our own features.

Where a checkpoint was trained on FMA's published ``features.csv``, its rmse columns are on another scale: librosa
0.5.0, which made that table, took sqrt(mean of |S|² over the 1025 bins); librosa 0.11, and this package, take
sqrt(2 · Σ|S|² / 2048²). The ratio is 2048 / sqrt(2050) = 45.23 (both sources read). A head has to see what it was
trained on, so the ratio goes into the scaler: (ratio · x - mean) / scale = (x - mean / ratio) / (scale / ratio).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Literal, get_args

import numpy as np
import onnx

from edge_reclass.errors import UsageError
from edge_reclass.features import FEATURE_COUNT, FEATURE_NAMES
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.head_files import TrainedHead
from edge_reclass_export.heads import Scaler, head_graph

Features = Literal["auto", "fma-csv", "librosa-0.11"]
FEATURES: tuple[Features, ...] = get_args(Features)

RMSE_RATIO = 2048.0 / sqrt(2050.0)
"""rmse of librosa 0.5.0 over rms of librosa 0.11, for the same spectrogram: 45.23."""

RMSE_COLUMNS = tuple(
    FEATURE_NAMES.index(f"rmse/{statistic}/01") for statistic in ("max", "mean", "median", "min", "std")
)
"""393 to 396, and 398; kurtosis and skew have no scale."""

_RMSE_MEAN = FEATURE_NAMES.index("rmse/mean/01")


@dataclass(frozen=True)
class FeatureScale:
    """On which features a head was trained, and ``why`` that is believed: a sentence."""

    features: Literal["fma-csv", "librosa-0.11"]
    why: str


def choose_scale(head: TrainedHead, features: Features = "auto") -> FeatureScale:
    """The scale of the head's rmse columns; ``auto`` looks at the mean that the scaler has for rmse/mean.

    Full-scale audio has an rms of at most 1, so a greater mean can only come from the published table.

    Raises:
        CheckpointError: the head does not take the 518 features.
        UsageError: ``auto``, and there is no scaler to look at.
    """
    if head.inputs != FEATURE_COUNT:
        raise CheckpointError(
            f"{head.path}: the head takes {head.inputs} values, expected the {FEATURE_COUNT} FMA features; the head of"
            " another encoder belongs to that encoder's export, as --head"
        )
    if features != "auto":
        return FeatureScale(features, f"--features {features}")
    if head.scaler is None:
        raise UsageError(
            f"{head.path} has no scaler, so nothing says on which scale its rmse columns are: give --features fma-csv"
            " (FMA's published features.csv) or --features librosa-0.11 (features computed as this package does)"
        )
    mean = float(head.scaler.mean[_RMSE_MEAN])
    if mean > 1.0:
        return FeatureScale("fma-csv", f"scaler_mean[{_RMSE_MEAN}] (rmse/mean) is {mean:.4g}, above 1")
    return FeatureScale("librosa-0.11", f"scaler_mean[{_RMSE_MEAN}] (rmse/mean) is {mean:.4g}, not above 1")


def runtime_scaler(scaler: Scaler | None, scale: FeatureScale) -> Scaler | None:
    """The scaler for the features that the runtime computes; None where nothing has to be scaled."""
    if scale.features == "librosa-0.11":
        return scaler
    ratio = np.ones(FEATURE_COUNT)
    ratio[list(RMSE_COLUMNS)] = RMSE_RATIO
    if scaler is None:
        return Scaler(np.zeros(FEATURE_COUNT), 1.0 / ratio)
    return Scaler(scaler.mean / ratio, scaler.scale / ratio, scaler.clip)


def build(head: TrainedHead, scale: FeatureScale) -> onnx.ModelProto:
    """``features[batch, 518] → logits[batch, classes]`` on the features that the runtime computes."""
    return head_graph(head.steps, runtime_scaler(head.scaler, scale))
