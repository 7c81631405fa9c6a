"""Log-mel front ends as ONNX operators, so that every device computes the same spectrogram.

Framing is a reshape into blocks and a concatenation of shifted slices; the windowed DFT is one matrix
multiplication; squaring and summing over bands is a second one. All constants are made in float64 and
rounded once. The whole front end is to stay in float32 when an engine is built in half precision.

References: Slaney, "Auditory Toolbox" (1998), for the mel scale and the bands' unit area; these are the
defaults of ``librosa.filters.mel``, which the tests hold them against.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reclass_export.graph import GraphBuilder, Value

_HZ_PER_MEL = 200.0 / 3.0  # linear part of the Slaney scale
_LOG_START_HZ = 1000.0
_LOG_START_MEL = _LOG_START_HZ / _HZ_PER_MEL
_LOG_STEP = log(6.4) / 27.0


@dataclass(frozen=True)
class LogMel:
    """A power mel spectrogram of periodic-Hann frames inside the waveform, with Slaney bands, on a logarithmic scale.

    Attributes:
        sample_rate: in Hz.
        n_fft: samples of a frame, a multiple of ``hop``.
        hop: samples between two frames.
        bands: number of mel bands between ``low_hz`` and ``high_hz``.
        low_hz: lowest edge of a band.
        high_hz: highest edge of a band.
        log_scale: a value is ``gain · ln(log_scale · power + log_offset) + shift``.
        log_offset: see ``log_scale``.
        gain: see ``log_scale``.
        shift: see ``log_scale``.
        float16_power: the power is rounded to float16, as some training pipelines stored it.
    """

    sample_rate: int
    n_fft: int
    hop: int
    bands: int
    low_hz: float
    high_hz: float
    log_scale: float
    log_offset: float
    gain: float = 1.0
    shift: float = 0.0
    float16_power: bool = False


def hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's mel scale: linear below 1 kHz, logarithmic above."""
    safe = np.maximum(hz, _LOG_START_HZ)
    return np.where(hz < _LOG_START_HZ, hz / _HZ_PER_MEL, _LOG_START_MEL + np.log(safe / _LOG_START_HZ) / _LOG_STEP)


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of ``hz_to_mel``."""
    above = np.maximum(mel, _LOG_START_MEL) - _LOG_START_MEL
    return np.where(mel < _LOG_START_MEL, mel * _HZ_PER_MEL, _LOG_START_HZ * np.exp(_LOG_STEP * above))


def mel_filters(sample_rate: int, n_fft: int, bands: int, low_hz: float, high_hz: float) -> NDArray[np.float64]:
    """Triangular mel bands of unit area, shape ``[bands, n_fft // 2 + 1]``, float64."""
    bins = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    low_mel, high_mel = hz_to_mel(np.array([low_hz, high_hz])).tolist()
    edges = mel_to_hz(np.linspace(low_mel, high_mel, bands + 2))
    area = 2.0 / (edges[2:] - edges[:-2])
    return triangles(edges, bins) * area[:, None]


def htk_mel_filters(sample_rate: int, n_fft: int, bands: int, low_hz: float, high_hz: float) -> NDArray[np.float64]:
    """Mel bands as HTK, Kaldi and TensorFlow make them: ``[bands, n_fft // 2 + 1]``, float64.

    Triangles over the mel scale 1127 ln(1 + hz / 700), each of height 1, none of unit area.
    """
    bins, ends = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft), np.array([low_hz, high_hz])
    mels, (low_mel, high_mel) = (1127.0 * np.log1p(hz / 700.0) for hz in (bins, ends))
    return triangles(np.linspace(low_mel, high_mel, bands + 2), mels)


def triangles(edges: NDArray[np.float64], at: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Triangles of height 1 from each of ``edges`` to the next but one, ``[edges - 2, places]``."""
    widths = np.diff(edges)
    slopes = edges[:, None] - at[None, :]
    rising, falling = -slopes[:-2] / widths[:-1, None], slopes[2:] / widths[1:, None]
    filters: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    return filters


def hann(length: int) -> NDArray[np.float64]:
    """Periodic Hann window, float64."""
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)


def dft_basis(n_fft: int, bins: NDArray[np.intp]) -> NDArray[np.float64]:
    """Hann-windowed cosines, then sines, of the given bins: shape ``[n_fft, 2 · len(bins)]``, float64."""
    turns = (np.arange(n_fft)[:, None] * bins[None, :]) % n_fft  # exact argument reduction
    angles = 2.0 * np.pi * turns / n_fft
    basis: NDArray[np.float64] = hann(n_fft)[:, None] * np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return basis


def add_log_mel(graph: GraphBuilder, waveform: Value, samples: int, spec: LogMel) -> Value:
    """Adds the front end to ``graph``: ``waveform[batch, samples]`` to log mel ``[batch, frames, bands]``."""
    frames = (samples - spec.n_fft) // spec.hop + 1
    power_weights = mel_filters(spec.sample_rate, spec.n_fft, spec.bands, spec.low_hz, spec.high_hz).T
    # Bins that no band uses (at least the constant one) need no transform.
    used = np.flatnonzero(power_weights.any(axis=1))
    framed = _add_frames(graph, waveform, frames, spec)
    basis = graph.weight(dft_basis(spec.n_fft, used), "frontend/dft_basis")
    spectrum = graph.op("MatMul", framed, basis, name="frontend/dft")
    squares = graph.op("Mul", spectrum, spectrum, name="frontend/squares")
    # |X|² is the sum of the squared cosine and sine parts; the bands' sum includes that sum.
    bands = np.concatenate([power_weights[used], power_weights[used]], axis=0)
    if spec.float16_power:
        power = graph.op("MatMul", squares, graph.weight(bands, "frontend/mel_filters"), name="frontend/mel_power")
        half = graph.op("Cast", power, name="frontend/power_float16", to=10)
        power = graph.op("Cast", half, name="frontend/power_float32", to=1)
        scaled = graph.op("Mul", power, graph.weight(spec.log_scale, "frontend/log_scale"), name="frontend/scaled")
    else:
        weights = graph.weight(bands * spec.log_scale, "frontend/mel_filters")
        scaled = graph.op("MatMul", squares, weights, name="frontend/mel_power")
    positive = graph.op("Add", scaled, graph.weight(spec.log_offset, "frontend/log_offset"), name="frontend/positive")
    mel = graph.op("Log", positive, name="frontend/log")
    gained = graph.op("Mul", mel, graph.weight(spec.gain, "frontend/gain"), name="frontend/gained")
    return graph.op("Add", gained, graph.weight(spec.shift, "frontend/shift"), name="frontend/shifted")


def _add_frames(graph: GraphBuilder, waveform: Value, frames: int, spec: LogMel) -> Value:
    """Frames ``[batch, frames, n_fft]``: blocks of one hop, shifted and joined."""
    span = (frames - 1) * spec.hop + spec.n_fft
    trimmed = graph.op(
        "Slice", waveform, graph.integers(0), graph.integers(span), graph.integers(1), name="frontend/trimmed"
    )
    blocks = graph.op("Reshape", trimmed, graph.integers(-1, span // spec.hop, spec.hop), name="frontend/blocks")
    bounds = [(graph.integers(first), graph.integers(first + frames)) for first in range(spec.n_fft // spec.hop)]
    parts = [
        graph.op("Slice", blocks, *ends, graph.integers(1), graph.integers(1), name=f"frontend/part_{first}")
        for first, ends in enumerate(bounds)
    ]
    return graph.op("Concat", *parts, name="frontend/frames", axis=2)
