"""Parity with librosa 0.11: on synthesised music at many rates, on some real clips, and on a full-length track."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from edge_reclass.features import FEATURE_NAMES, Fma518, extractor, fma518, spectral
from edge_reclass.features.tuning import PeakStore
from fma518_oracle import CENS_DERIVED, librosa_fma518, numbers_off, statistics_of, synthetic_music

REAL = (
    "audio/fma/000002.mp3",
    "audio/fma/000255.mp3",
    "gtzan/metal/metal.00003.ogg",
    "gtzan/classical/classical.00050.ogg",
    "emotify/electronic/003.ogg",
    "speech/austria.ogg",
)


@pytest.fixture
def tunings(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The tuning estimates that our extractor makes, in order: for the constant-Q transform, for chroma_stft."""
    seen: list[float] = []
    estimate = PeakStore.tuning

    def remember(store: PeakStore) -> float:
        seen.append(estimate(store))
        return seen[-1]

    monkeypatch.setattr(PeakStore, "tuning", remember)
    return seen


def assert_parity(samples: np.ndarray, rate: int, tunings: list[float]) -> None:
    values = fma518(samples, rate)
    reference = librosa_fma518(samples, rate)
    assert tunings == pytest.approx([reference.tuning_cqt, reference.tuning_stft], abs=1e-9)
    off = numbers_off(values, reference.values)
    # A draw at a CENS threshold goes either way with the last bit, for librosa itself too; nothing else may.
    columns = np.flatnonzero(off & ~CENS_DERIVED)
    assert not len(columns), [(FEATURE_NAMES[c], float(values[c]), float(reference.values[c])) for c in columns[:8]]
    np.testing.assert_allclose(values[CENS_DERIVED], reference.values[CENS_DERIVED], atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    "rate", [8500, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000, 768000]
)
def test_synthesised_music_at_every_rate(rate: int, tunings: list[float]) -> None:
    assert_parity(synthetic_music(rate, 2.5 if rate < 500000 else 0.5, seed=rate, cents=17), rate, tunings)


@pytest.mark.parametrize("cents", [-43, -8, 0, 31])
def test_tunings(cents: float, tunings: list[float]) -> None:
    assert_parity(synthetic_music(22050, 4.0, seed=5, cents=cents), 22050, tunings)


@pytest.mark.parametrize("extra", [0, 1, 255, 256, 510, 511])
def test_lengths_around_the_hop(extra: int, tunings: list[float]) -> None:
    # With 511 samples over, librosa's constant-Q transform has one frame more than its spectrogram.
    assert_parity(synthetic_music(44100, 3.0, seed=2)[: 512 * 250 + extra], 44100, tunings)


def test_narrow_spectra_keep_their_bandwidth() -> None:
    # One high sinusoid: float32 sums alone would lose the bandwidth in E[f²] − E[f]².
    rate = 44100
    tone = (0.5 * np.sin(2 * np.pi * 15000 * np.arange(2 * rate) / rate)).astype(np.float32)
    off = numbers_off(fma518(tone, rate), librosa_fma518(tone, rate).values)
    columns = [i for i, name in enumerate(FEATURE_NAMES) if name.startswith("spectral_bandwidth/m")]
    assert len(columns) == 4
    assert not off[columns].any()


def test_below_8500_hz_the_excerpt_is_resampled_to_16_khz() -> None:
    samples = synthetic_music(8000, 3.0, seed=8)
    expected = fma518(soxr.resample(samples, 8000, 16000, "HQ"), 16000)
    np.testing.assert_allclose(fma518(samples, 8000), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", REAL)
def test_real_clips(data: Path, clip: str) -> None:
    samples, rate = soundfile.read(data / clip, dtype="float32", always_2d=True)
    mono = np.ascontiguousarray(samples.mean(axis=1)[: 16 * rate])
    values, reference = fma518(mono, rate), librosa_fma518(mono, rate).values
    off = numbers_off(values, reference) & ~CENS_DERIVED
    assert not off.any(), [FEATURE_NAMES[c] for c in np.flatnonzero(off)]


def test_full_length_track(tunings: list[float]) -> None:
    # Four minutes: more frames than the power spectra that are kept, so chroma_stft comes from a second pass.
    rate = 44100
    music = synthetic_music(rate, 20.0, seed=6, cents=12)
    samples = np.concatenate([music * np.float32(gain) for gain in np.linspace(0.2, 1.0, 9)])
    assert 1 + len(samples) // 512 > 3 * extractor._KEPT_FRAMES
    values = fma518(samples, rate)
    reference = librosa_fma518(samples, rate)
    assert tunings == pytest.approx([reference.tuning_cqt, reference.tuning_stft], abs=1e-9)
    # Over 15 000 frames scipy's float32 moments are off by more than the tolerance; librosa's rows are not.
    off = numbers_off(values, statistics_of(reference.rows, np.float64)) & ~CENS_DERIVED
    assert not off.any(), [FEATURE_NAMES[c] for c in np.flatnonzero(off)]


def test_both_fourier_transforms_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    if not spectral._TRANSFORM_INTO:
        pytest.skip("numpy before 2.0 cannot transform into a given array: there it is always scipy.fft")
    samples = synthetic_music(44100, 3.0)
    values = fma518(samples, 44100)
    monkeypatch.setattr(spectral, "_TRANSFORM_INTO", False)
    np.testing.assert_allclose(fma518(samples, 44100), values, rtol=1e-4, atol=1e-6)


def test_kept_and_recomputed_spectra_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = synthetic_music(22050, 6.0)
    kept = fma518(samples, 22050)
    monkeypatch.setattr(extractor, "_KEPT_FRAMES", 16)
    with Fma518(len(samples), 22050) as plan:
        np.testing.assert_allclose(plan.compute(samples, 22050), kept, rtol=2e-5, atol=1e-6)
