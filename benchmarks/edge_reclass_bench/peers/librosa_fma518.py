"""FMA's 518 features computed by librosa 0.11 and scipy.stats: the oracle of the parity tests, and the speed baseline.

The calls are those of ``features.py`` of the FMA data set (mdeff/fma), with what librosa 0.11 asks for: ``rms`` was
``rmse`` there, and ``chroma_cens`` and ``chroma_cqt`` take ``bins_per_octave=12``, since their default became 36.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import librosa
import numpy as np
import numpy.typing as npt
import scipy.stats

__all__ = ["OracleResult", "librosa_fma518", "statistics_of"]

_ORDER = (
    "chroma_cens",
    "chroma_cqt",
    "chroma_stft",
    "mfcc",
    "rmse",
    "spectral_bandwidth",
    "spectral_centroid",
    "spectral_contrast",
    "spectral_rolloff",
    "tonnetz",
    "zcr",
)


@dataclass(frozen=True)
class OracleResult:
    """librosa's features and what decides parity: ``values`` float64[518], both tuning estimates, frame counts."""

    values: npt.NDArray[np.float64]
    tuning_cqt: float
    tuning_stft: float
    rows: dict[str, npt.NDArray[np.floating]]


def _statistics(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    with warnings.catch_warnings():
        # scipy warns of constant rows, whose skew and kurtosis are nan.
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.stack(
            [
                scipy.stats.kurtosis(rows, axis=1),
                rows.max(axis=1),
                rows.mean(axis=1),
                np.median(rows, axis=1),
                rows.min(axis=1),
                scipy.stats.skew(rows, axis=1),
                rows.std(axis=1),
            ]
        ).astype(np.float64)


def statistics_of(
    rows: dict[str, npt.NDArray[np.floating]], dtype: type[np.floating] | None = None
) -> npt.NDArray[np.float64]:
    """The 518 statistics of the rows, in column order; ``dtype`` float64 makes scipy take moments in float64."""
    return np.concatenate([_statistics(rows[name].astype(dtype or rows[name].dtype)).ravel() for name in _ORDER])


def librosa_fma518(samples: npt.NDArray[np.floating], rate: float) -> OracleResult:
    """The 518 features of mono ``samples`` at ``rate`` Hz; float64 samples make librosa compute in float64."""
    rows: dict[str, npt.NDArray[np.floating]] = {}
    with warnings.catch_warnings():
        # Short or silent excerpts: librosa says that n_fft is too large and that there is no pitch to tune to.
        warnings.simplefilter("ignore", UserWarning)
        rows["zcr"] = librosa.feature.zero_crossing_rate(samples, frame_length=2048, hop_length=512)
        tuning_cqt = librosa.estimate_tuning(y=samples, sr=rate, bins_per_octave=12)
        constant_q = np.abs(
            librosa.cqt(samples, sr=rate, hop_length=512, bins_per_octave=12, n_bins=84, tuning=tuning_cqt)
        )
        rows["chroma_cqt"] = librosa.feature.chroma_cqt(C=constant_q, n_chroma=12, n_octaves=7, bins_per_octave=12)
        rows["chroma_cens"] = librosa.feature.chroma_cens(C=constant_q, n_chroma=12, n_octaves=7, bins_per_octave=12)
        rows["tonnetz"] = librosa.feature.tonnetz(chroma=rows["chroma_cens"])
        magnitude = np.abs(librosa.stft(samples, n_fft=2048, hop_length=512))
        power = magnitude**2
        # No sr= from here on: FMA's script leaves it at librosa's 22 050 Hz. Only mel gets the true rate.
        tuning_stft = librosa.estimate_tuning(S=power, sr=22050, bins_per_octave=12)
        rows["chroma_stft"] = librosa.feature.chroma_stft(S=power, n_chroma=12, tuning=tuning_stft)
        rows["rmse"] = librosa.feature.rms(S=magnitude)
        rows["spectral_centroid"] = librosa.feature.spectral_centroid(S=magnitude)
        rows["spectral_bandwidth"] = librosa.feature.spectral_bandwidth(S=magnitude)
        rows["spectral_contrast"] = librosa.feature.spectral_contrast(S=magnitude, n_bands=6)
        rows["spectral_rolloff"] = librosa.feature.spectral_rolloff(S=magnitude)
        mel = librosa.feature.melspectrogram(sr=rate, S=power)
        rows["mfcc"] = librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=20)
    return OracleResult(statistics_of(rows), float(tuning_cqt), float(tuning_stft), rows)
