"""Parity with librosa 0.11: on synthesised music at many rates, on some real clips, and on a full-length track."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from edge_reclass.features import extractor, spectral
from fma518_oracle import faults, librosa_fma518, row_faults, synthetic_music, traced_fma518

REAL = (
    "audio/fma/000002.mp3",
    "audio/fma/000255.mp3",
    "gtzan/metal/metal.00003.ogg",
    "gtzan/classical/classical.00050.ogg",
    "emotify/electronic/003.ogg",
    "speech/austria.ogg",
)


def assert_parity(samples: np.ndarray, rate: int) -> None:
    assert faults(traced_fma518(samples, rate), librosa_fma518(samples, rate), samples) == []


@pytest.mark.parametrize(
    "rate", [8500, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000, 768000]
)
def test_synthesised_music_at_every_rate(rate: int) -> None:
    assert_parity(synthetic_music(rate, 2.5 if rate < 500000 else 0.5, seed=rate, cents=17), rate)


@pytest.mark.parametrize("cents", [-43, -8, 0, 31])
def test_tunings(cents: float) -> None:
    assert_parity(synthetic_music(22050, 4.0, seed=5, cents=cents), 22050)


@pytest.mark.parametrize("extra", [0, 1, 255, 256, 510, 511])
def test_lengths_around_the_hop(extra: int) -> None:
    # With 511 samples over, librosa's constant-Q transform has one frame more than its spectrogram.
    assert_parity(synthetic_music(44100, 3.0, seed=2)[: 512 * 250 + extra], 44100)


def test_narrow_spectra_keep_their_bandwidth() -> None:
    # One high sinusoid: float32 sums alone would lose the bandwidth in E[f²] − E[f]².
    rate = 44100
    tone = (0.5 * np.sin(2 * np.pi * 15000 * np.arange(2 * rate) / rate)).astype(np.float32)
    ours, theirs = (
        result.rows["spectral_bandwidth"] for result in (traced_fma518(tone, rate), librosa_fma518(tone, rate))
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)


def test_below_8500_hz_the_excerpt_is_resampled_to_16_khz() -> None:
    pytest.importorskip("librosa", reason="rows are compared with librosa's own")
    samples = synthetic_music(8000, 3.0, seed=8)
    resampled = soxr.resample(samples, 8000, 16000, "HQ")
    assert row_faults(traced_fma518(samples, 8000).rows, traced_fma518(resampled, 16000).rows, resampled) == []


@pytest.mark.parametrize("clip", REAL)
def test_real_clips(data: Path, clip: str) -> None:
    samples, rate = soundfile.read(data / clip, dtype="float32", always_2d=True)
    assert_parity(np.ascontiguousarray(samples.mean(axis=1)[: 16 * rate]), rate)


def test_full_length_track() -> None:
    # Four minutes: more frames than the power spectra that are kept, so chroma_stft comes from a second pass.
    rate = 44100
    music = synthetic_music(rate, 20.0, seed=6, cents=12)
    samples = np.concatenate([music * np.float32(gain) for gain in np.linspace(0.2, 1.0, 9)])
    assert 1 + len(samples) // 512 > 3 * extractor._KEPT_FRAMES
    assert_parity(samples, rate)


def test_both_fourier_transforms_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("librosa", reason="rows are compared with librosa's own")
    if not spectral._TRANSFORM_INTO:
        pytest.skip("numpy before 2.0 cannot transform into a given array: there it always allocates")
    samples = synthetic_music(44100, 3.0)
    rows = traced_fma518(samples, 44100).rows
    monkeypatch.setattr(spectral, "_TRANSFORM_INTO", False)
    assert row_faults(traced_fma518(samples, 44100).rows, rows, samples) == []


def test_kept_and_recomputed_spectra_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("librosa", reason="rows are compared with librosa's own")
    samples = synthetic_music(22050, 6.0)
    kept = traced_fma518(samples, 22050).rows
    monkeypatch.setattr(extractor, "_KEPT_FRAMES", 16)
    assert row_faults(traced_fma518(samples, 22050).rows, kept, samples) == []
