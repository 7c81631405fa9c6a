"""The folded power spectrum against numpy's FFT, and batch norms that join the layer before them."""

# ruff: noqa: E402 - torch is optional, and what follows needs it
from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the export needs torch")

from edge_reclass_export.batch_norm import fold_batch_norms
from edge_reclass_export.errors import GraphError
from edge_reclass_export.frontend import hann, htk_mel_filters
from edge_reclass_export.torch_frontend import PowerSpectrum
from export.numpy_layers import stft_power


@pytest.mark.parametrize(
    ("window", "n_fft", "hop"),
    [
        (np.hanning(800), 1024, 320),  # even length, symmetric
        (np.hanning(401), 512, 160),  # odd length
        (hann(512), 512, 256),  # periodic: the first sample is a zero
        (hann(400), 512, 160),
        (np.ones(64), 64, 48),
    ],
)
def test_power_is_that_of_the_fft(window: np.ndarray, n_fft: int, hop: int) -> None:
    audio = np.random.default_rng(1).standard_normal((3, 5 * n_fft + 7)).astype(np.float32)
    bins = np.array([0, 1, 7, n_fft // 2])
    got = PowerSpectrum(window, n_fft, hop, bins)(torch.from_numpy(audio)).numpy()
    expected = np.stack([stft_power(row, window, n_fft, hop)[:, bins] for row in audio])
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * expected.max())


@pytest.mark.parametrize("window", [np.arange(64.0), np.r_[1.0, np.hanning(63)]])
def test_a_window_that_is_not_symmetric(window: np.ndarray) -> None:
    with pytest.raises(GraphError, match="not symmetric"):
        PowerSpectrum(window, 64, 32, np.arange(33))


def test_htk_bands_are_librosas() -> None:
    librosa = pytest.importorskip("librosa", reason="the oracle takes librosa's mel scale")
    filters = htk_mel_filters(16_000, 512, 64, 125.0, 7500.0)
    assert filters.shape == (64, 257) and filters.max() <= 1.0
    peaks = filters.argmax(axis=1) * 16_000 / 512
    middles = librosa.mel_frequencies(n_mels=66, fmin=125, fmax=7500, htk=True)[1:-1]
    assert np.abs(peaks - middles).max() < 16_000 / 512
    assert (filters[:, 0] == 0).all() and (filters[:, -1] == 0).all()


def test_folded_norms_change_no_number() -> None:
    torch.manual_seed(3)
    module = torch.nn.Sequential(
        torch.nn.Sequential(torch.nn.Conv1d(2, 8, 3), torch.nn.BatchNorm1d(8), torch.nn.ReLU()),
        torch.nn.Sequential(torch.nn.Conv1d(8, 4, 3, bias=False), torch.nn.BatchNorm1d(4)),
        torch.nn.Flatten(),
        torch.nn.Sequential(torch.nn.Linear(24, 5), torch.nn.BatchNorm1d(5)),
    )
    for _ in range(5):
        module(3 + torch.randn(16, 2, 10))
    module.eval()
    audio = torch.randn(4, 2, 10)
    with torch.inference_mode():
        expected = module(audio).numpy()
    folded = fold_batch_norms(module)
    assert not any(isinstance(part, torch.nn.BatchNorm1d) for part in folded.modules())
    assert {parameter.dtype for parameter in folded.parameters()} == {torch.float32}
    with torch.inference_mode():
        np.testing.assert_allclose(folded(audio).numpy(), expected, rtol=1e-5, atol=1e-6)
