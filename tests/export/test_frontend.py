"""The front end's pieces against librosa, with the parameters of musicnn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_reclass.bundle.reference import synthesise
from edge_reclass_export.frontend import LogMel, add_log_mel, hann, mel_filters
from edge_reclass_export.graph import GraphBuilder
from edge_reclass_export.onnx_writer import BATCH, GraphInterface, TensorSpec, model_bytes
from edge_reclass_export.parity import run_graph

librosa = pytest.importorskip("librosa")

MUSICNN = LogMel(16_000, 512, 256, 96, 0.0, 8_000.0, 10_000.0, 1.0, 1.0 / np.log(10.0))


def run(spec: LogMel, audio: NDArray[np.float32]) -> NDArray[np.float32]:
    graph = GraphBuilder("front_end")
    samples = audio.shape[1]
    mel = add_log_mel(graph, graph.input("waveform", (BATCH, samples)), samples, spec)
    frames = (samples - spec.n_fft) // spec.hop + 1
    graph.output(mel, "mel", (BATCH, frames, spec.bands))
    expect = GraphInterface((TensorSpec("waveform", (samples,)),), (TensorSpec("mel", (frames, spec.bands)),))
    return run_graph(model_bytes(graph.model(), expect=expect), audio)[0]


def power(audio: NDArray[np.float32], spec: LogMel) -> NDArray[np.float64]:
    return np.stack(
        [
            librosa.feature.melspectrogram(
                y=row.astype(np.float64),
                sr=spec.sample_rate,
                n_fft=spec.n_fft,
                hop_length=spec.hop,
                n_mels=spec.bands,
                fmin=spec.low_hz,
                fmax=spec.high_hz,
                center=False,
            ).T
            for row in audio
        ]
    )


@pytest.mark.parametrize(
    ("rate", "n_fft", "bands", "low", "high"),
    [(16_000, 512, 96, 0.0, 8_000.0), (16_000, 400, 80, 50.0, 8_000.0), (22_050, 2048, 128, 0.0, 11_025.0)],
)
def test_mel_bands_are_librosas(rate: int, n_fft: int, bands: int, low: float, high: float) -> None:
    expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=bands, fmin=low, fmax=high, dtype=np.float64)
    np.testing.assert_allclose(mel_filters(rate, n_fft, bands, low, high), expected, rtol=1e-12, atol=1e-15)


def test_hann_is_periodic() -> None:
    np.testing.assert_allclose(hann(8), librosa.filters.get_window("hann", 8, fftbins=True), atol=1e-15)


def test_log10_front_end() -> None:
    audio = synthesise(16_000, 512 + 256 * 40, 3)
    got = run(MUSICNN, audio)
    assert got.shape == (len(audio), 41, 96)
    # Beside a loud transient, the quiet bands of a frame show float32 rounding of the transform.
    np.testing.assert_allclose(got, np.log10(10_000.0 * power(audio, MUSICNN) + 1.0), rtol=0, atol=2e-4)


def test_gain_and_shift() -> None:
    audio = synthesise(16_000, 512 + 256 * 40, 3)
    changed = run(replace(MUSICNN, gain=0.5, shift=2.0), audio)
    np.testing.assert_allclose(changed, 0.5 * np.log(10.0) * run(MUSICNN, audio) + 2.0, atol=1e-5)


def test_float16_power_is_numpys_cast() -> None:
    audio = synthesise(16_000, 512 + 256 * 40, 3)
    spec = LogMel(16_000, 512, 256, 96, 0.0, 8_000.0, 10_000.0, 1.0, float16_power=True)
    got = run(spec, audio)
    rounded = power(audio, spec).astype(np.float16).astype(np.float64)
    expected = np.log(10_000.0 * rounded + 1.0)
    # A power at the middle between two float16 numbers may round either way: one step is 2^-10 of it, or 2^-24.
    assert np.abs(got - expected).max() < 1.1e-3
    assert np.mean(np.abs(got - expected) > 1e-5) < 1e-3
    plain = run(MUSICNN, audio) * np.log(10.0)
    assert np.abs(got - plain).max() > 1e-4
