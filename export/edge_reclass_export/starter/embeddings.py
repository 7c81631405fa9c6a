"""Clips → embeddings of equal cuts, through the runtime's own decoder, resampler, windows and encoders.

What is fitted on is therefore exactly what a device will compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio import Decoder, ExcerptSpec, Limits, Resampler, resampled_length
from edge_reclass.backends.ort import OrtBackend
from edge_reclass.bundle import Fma518Entry, WaveformEntry
from edge_reclass.features import FEATURE_COUNT, Fma518
from edge_reclass.stages import Encoder, FeatureEncoder, GraphEncoder, Parts, Windows
from edge_reclass_export.starter.catalogue import Clip

__all__ = ["CUTS", "LENGTHS", "LOW_RATES", "LOW_RATE_LENGTH", "ClipEmbeddings", "Extractor"]

CUTS = ((2.0, 4), (3.0, 3))
"""Training rows: (seconds, at most so many from one clip), one after another from the clip's beginning."""

LOW_RATES = (8_000, 11_025, 16_000)
"""Each cut is also taken from a copy of the clip at one of these rates in turn, in Hz: a head that has heard only full
bandwidth takes its absence for a genre."""

LOW_RATE_LENGTH = 10.0
"""Length in seconds at which the low rates are evaluated."""

LENGTHS = (2.0, 3.0, 10.0, 14.0, 30.0)
"""Lengths in seconds at which the cascade is evaluated, each cut from the middle of the clips that are long enough."""

_MAX_RATE = 48_000
_SLACK = 0.05
"""A clip may miss a length by this many seconds: coders drop or add a few samples."""

Vector = NDArray[np.float32]


@dataclass
class ClipEmbeddings:
    """One clip: ``cuts`` are the rows for training, ``lengths`` the evaluation's, and ``low_rates`` those of cuts of
    LOW_RATE_LENGTH from a copy at a low rate; columns are the stages' in order."""

    clip: Clip
    seconds: float
    cuts: list[Vector] = field(default_factory=list)
    lengths: dict[float, Vector] = field(default_factory=dict)
    low_rates: dict[int, Vector] = field(default_factory=dict)


class Extractor:
    """Opens both encoders once. A context manager."""

    def __init__(self, features: Fma518Entry, waveform: WaveformEntry, graph: Path, *, threads: int) -> None:
        if features.rate == "native" or features.window_samples is None or features.hop_samples is None:
            raise ValueError("the starter's features need a fixed rate and windows")
        self._resources = ExitStack()
        backend = self._resources.enter_context(OrtBackend(threads))
        plan = Fma518(features.window_samples, features.rate)
        encoders: list[tuple[int, int, Encoder]] = [
            (
                features.rate,
                FEATURE_COUNT,
                FeatureEncoder(plan, Windows(features.window_samples, features.hop_samples, features.short, None)),
            ),
            (
                waveform.rate,
                waveform.dim,
                GraphEncoder(
                    backend.open_graph(
                        graph,
                        input_name="waveform",
                        output_name="embedding",
                        width=waveform.window_samples,
                        output_width=waveform.dim,
                        max_batch=16,
                    ),
                    Windows(waveform.window_samples, waveform.hop_samples, waveform.short, None),
                    waveform.dim,
                ),
            ),
        ]
        self._encoders = encoders
        for _, _, encoder in encoders:
            self._resources.callback(encoder.close)
        longest = max(LENGTHS) + 1.0
        self._decoder, self._resampler = Decoder(Limits(_MAX_RATE)), Resampler()
        self._decoded = np.empty(int(longest * _MAX_RATE), np.float32)
        self._spec = ExcerptSpec("center", max(LENGTHS))

    @property
    def widths(self) -> tuple[int, ...]:
        """Columns of each stage's embedding."""
        return tuple(dim for _, dim, _ in self._encoders)

    def extract(self, root: Path, clip: Clip) -> ClipEmbeddings:
        """All cuts and lengths of one clip (of its middle 30 s).

        Raises:
            TrackError: the clip cannot be decoded.
        """
        decoded = self._decoder.decode(root / clip.path, [self._spec], self._decoded)
        seconds = len(decoded.segments[0].samples) / decoded.rate
        whole = self._at_stage_rates(decoded.segments[0].samples, decoded.rate)
        low = {
            rate: self._at_stage_rates(self._resampled(decoded.segments[0].samples, decoded.rate, rate), rate)
            for rate in LOW_RATES
        }
        found = ClipEmbeddings(clip, seconds)
        for length, most in CUTS:
            for i in range(min(most, int((seconds + _SLACK) // length))):
                found.cuts.append(self._encode(whole, i * length, length))
                found.cuts.append(self._encode(low[LOW_RATES[i % len(LOW_RATES)]], i * length, length))
        for length in LENGTHS:
            if seconds >= length - _SLACK:
                found.lengths[length] = self._encode(whole, max(0.0, (seconds - length) / 2), length)
        if LOW_RATE_LENGTH in found.lengths:
            start = max(0.0, (seconds - LOW_RATE_LENGTH) / 2)
            found.low_rates = {rate: self._encode(signals, start, LOW_RATE_LENGTH) for rate, signals in low.items()}
        return found

    def _at_stage_rates(self, samples: Vector, rate: int) -> list[Vector]:
        return [self._resampled(samples, rate, stage_rate) for stage_rate, _, _ in self._encoders]

    def _resampled(self, samples: Vector, rate: int, wanted: int) -> Vector:
        out = np.empty(resampled_length(len(samples), rate, wanted), np.float32)
        self._resampler.resample(samples, rate, wanted, out)
        return out

    def extract_all(self, root: Path, clips: Sequence[Clip], progress: Callable[[int], None]) -> list[ClipEmbeddings]:
        """:meth:`extract` for every clip; ``progress`` is told how many are done."""
        found = []
        for number, clip in enumerate(clips):
            found.append(self.extract(root, clip))
            progress(number + 1)
        return found

    def _encode(self, whole: Sequence[Vector], start: float, length: float) -> Vector:
        row = np.empty(sum(self.widths), np.float32)
        position = 0
        for (rate, dim, encoder), samples in zip(self._encoders, whole, strict=True):
            first = round(start * rate)
            encoder.encode(samples[first : first + round(length * rate)], rate, row[position : position + dim], Parts())
            position += dim
        return row

    def close(self) -> None:
        """Release the encoders."""
        self._resources.close()

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
