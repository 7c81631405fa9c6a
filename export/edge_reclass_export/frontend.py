"""Log-mel front ends as ONNX operators, so that every device computes the same spectrogram.

Framing is a reshape into blocks and a concatenation of shifted slices; the windowed DFT is one matrix
multiplication; squaring and summing over bands is a second one. All constants are made in float64 and
rounded once. The whole front end is to stay in float32 when an engine is built in half precision.

References: Slaney, "Auditory Toolbox" (1998), for the mel scale and the bands' unit area; these are the
defaults of ``librosa.filters.mel``, which the tests hold them against.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, log

import numpy as np
from numpy.typing import NDArray

from edge_reclass_export.graph import GraphBuilder, Value

_HZ_PER_MEL = 200.0 / 3.0  # linear part of the Slaney scale
_LOG_START_HZ = 1000.0
_LOG_START_MEL = _LOG_START_HZ / _HZ_PER_MEL
_LOG_STEP = log(6.4) / 27.0


@dataclass(frozen=True)
class LogAmplitude:
    """``gain · ln(scale · power + offset) + shift``: log10, the natural log, and an affine map after it."""

    scale: float
    offset: float
    gain: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class LogMel:
    """A power mel spectrogram of periodic-Hann frames inside the waveform, with Slaney bands, on a logarithmic scale.

    With ``float16_power`` the mel power is rounded to float16, as some training pipelines stored it.
    """

    sample_rate: int
    n_fft: int
    hop: int
    bands: int
    low_hz: float
    high_hz: float
    amplitude: LogAmplitude
    float16_power: bool = False

    def frame_count(self, samples: int) -> int:
        """Number of frames of ``samples`` samples. Raises ``ValueError`` where there are too few."""
        frames = (samples - self.n_fft) // self.hop + 1
        if frames < 1:
            raise ValueError(f"{samples} samples give no frame, expected at least {self.n_fft}")
        return frames


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
    widths = np.diff(edges)
    slopes = edges[:, None] - bins[None, :]
    rising = -slopes[:-2] / widths[:-1, None]
    falling = slopes[2:] / widths[1:, None]
    area = 2.0 / (edges[2:] - edges[:-2])
    filters: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling)) * area[:, None]
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
    frames = spec.frame_count(samples)
    power_weights = mel_filters(spec.sample_rate, spec.n_fft, spec.bands, spec.low_hz, spec.high_hz).T
    # Bins that no band uses (at least the constant one) need no transform.
    used = np.flatnonzero(power_weights.any(axis=1))
    framed = _add_frames(graph, waveform, frames, spec)
    basis = graph.weight(dft_basis(spec.n_fft, used), "frontend/dft_basis")
    spectrum = graph.op("MatMul", framed, basis, name="frontend/dft")
    squares = graph.op("Mul", spectrum, spectrum, name="frontend/squares")
    # |X|² is the sum of the squared cosine and sine parts; the bands' sum includes that sum.
    bands = np.concatenate([power_weights[used], power_weights[used]], axis=0)
    amplitude = spec.amplitude
    if spec.float16_power:
        power = graph.op("MatMul", squares, graph.weight(bands, "frontend/mel_filters"), name="frontend/mel_power")
        half = graph.op("Cast", power, name="frontend/power_float16", to=10)
        power = graph.op("Cast", half, name="frontend/power_float32", to=1)
        scaled = graph.op("Mul", power, graph.weight(amplitude.scale, "frontend/log_scale"), name="frontend/scaled")
    else:
        weights = graph.weight(bands * amplitude.scale, "frontend/mel_filters")
        scaled = graph.op("MatMul", squares, weights, name="frontend/mel_power")
    positive = graph.op("Add", scaled, graph.weight(amplitude.offset, "frontend/log_offset"), name="frontend/positive")
    mel = graph.op("Log", positive, name="frontend/log")
    if amplitude.gain != 1.0:
        mel = graph.op("Mul", mel, graph.weight(amplitude.gain, "frontend/gain"), name="frontend/gained")
    if amplitude.shift != 0.0:
        mel = graph.op("Add", mel, graph.weight(amplitude.shift, "frontend/shift"), name="frontend/shifted")
    return mel


def _add_frames(graph: GraphBuilder, waveform: Value, frames: int, spec: LogMel) -> Value:
    """Frames ``[batch, frames, n_fft]``: blocks of gcd(n_fft, hop) samples, shifted and joined."""
    block = gcd(spec.n_fft, spec.hop)
    step = spec.hop // block
    span = (frames - 1) * spec.hop + spec.n_fft
    trimmed = graph.op(
        "Slice", waveform, graph.integers(0), graph.integers(span), graph.integers(1), name="frontend/trimmed"
    )
    blocks = graph.op("Reshape", trimmed, graph.integers(-1, span // block, block), name="frontend/blocks")
    parts = [
        graph.op(
            "Slice",
            blocks,
            graph.integers(first),
            graph.integers(first + (frames - 1) * step + 1),
            graph.integers(1),
            graph.integers(step),
            name=f"frontend/part_{first}",
        )
        for first in range(spec.n_fft // block)
    ]
    return graph.op("Concat", *parts, name="frontend/frames", axis=2)
