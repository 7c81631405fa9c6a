"""Encoders of kind ``fma518``: the hand-crafted features, of windows or of the whole excerpt at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio.loudness import level, normalise
from edge_reclass.bundle.encoders import Fma518Entry
from edge_reclass.cascade.encoders.base import Encoder, OpenRequest, Parts
from edge_reclass.cascade.encoders.windowed import AddEmbeddings, WindowedEncoder, Windows
from edge_reclass.cascade.shared_batches import Fill
from edge_reclass.features import FEATURE_COUNT, Fma518

Entry = Fma518Entry


def open_encoder(request: OpenRequest) -> Encoder:
    """See ``cascade.encoders``."""
    plan, stage = request.plan, request.stage
    rule = Windows.of(stage.encoder, stage.loudness)
    max_rate = plan.max_rate if stage.signal.rate is None else stage.signal.rate
    capacity = plan.decode_samples if stage.signal.rate is None else plan.signals[stage.signal]
    # More than two threads find nothing to do in one excerpt.
    features = Fma518(capacity if rule is None else rule.window, max_rate, workers=min(request.threads, 2))
    if rule is None:
        return ExcerptEncoder(features, stage.loudness)
    return WindowedEncoder(rule, FEATURE_COUNT, _of_windows(features, rule, max_rate), features.close, "features")


def _of_windows(features: Fma518, rule: Windows, rate: int) -> AddEmbeddings:
    row = np.empty(rule.window, np.float32)
    vector = np.empty(FEATURE_COUNT, np.float32)

    def add(fills: Sequence[Fill], total: NDArray[np.float64], parts: Parts) -> None:
        began = time.perf_counter()
        for fill in fills:
            fill(row)
            total += features.compute(row, rate, vector)
        parts.add("features", time.perf_counter() - began)

    return add


class ExcerptEncoder:
    """The features of the whole excerpt at once."""

    def __init__(self, features: Fma518, loudness: float | None) -> None:
        self._features = features
        self._loudness = loudness
        # Pages of an empty array are only handed out where they are used.
        self._copy = np.empty(0 if loudness is None else features.max_samples, np.float32)

    def encode(
        self,
        samples: NDArray[np.float32],
        rate: int,
        out: NDArray[np.float32],
        parts: Parts,
        *,
        upto: Sequence[int] = (),
        anyway: bool = False,
    ) -> Iterator[int]:
        """See :meth:`Encoder.encode`; the whole excerpt counts as one window."""
        del upto
        began = time.perf_counter()
        found = level(samples, rate)
        if found.silent and not anyway:
            return
        if self._loudness is not None:
            copy = self._copy[: len(samples)]
            copy[:] = samples
            normalise(copy, found, self._loudness)
            samples = copy
        self._features.compute(samples, rate, out)
        parts.add("features", time.perf_counter() - began)
        yield 0 if found.silent else 1

    def close(self) -> None:
        """See :meth:`Encoder.close`."""
        self._features.close()
