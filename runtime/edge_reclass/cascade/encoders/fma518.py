"""Encoders of kind ``fma518``: the hand-crafted features, of windows or of the whole excerpt at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio.loudness import level, normalise
from edge_reclass.bundle.encoders import Fma518Entry
from edge_reclass.cascade.encoders.base import Encoder, OpenRequest, Parts, Progress
from edge_reclass.cascade.encoders.windowed import AddEmbeddings, WindowedEncoder, Windows
from edge_reclass.cascade.shared_batches import AddRows, Fill
from edge_reclass.cascade.sound import Sound
from edge_reclass.features import FEATURE_COUNT, Fma518, frame_count

Entry = Fma518Entry

_TOGETHER = 2048
"""Frames of the windows whose features are computed at a time: 2.5 MB of workspace, and 8 MB of power spectra."""


def open_encoder(request: OpenRequest) -> Encoder:
    """See ``cascade.encoders``."""
    plan, stage = request.plan, request.stage
    rule = Windows.of(stage.encoder, stage.loudness)
    max_rate = plan.max_rate if stage.signal.rate is None else stage.signal.rate
    capacity = plan.decode_samples if stage.signal.rate is None else plan.signals[stage.signal]
    workers = min(request.threads, 2)  # more threads find nothing to do
    if rule is None:
        return ExcerptEncoder(Fma518(capacity, max_rate, workers=workers), stage.loudness)
    most = max(1, min(stage.max_batch, _TOGETHER // frame_count(rule.window)))
    features = Fma518(rule.window, max_rate, workers=workers, most=most)
    return WindowedEncoder(rule, FEATURE_COUNT, _of_windows(features, rule, max_rate), features.close, "features")


def _of_windows(features: Fma518, rule: Windows, rate: int) -> AddEmbeddings:
    windows = np.empty((features.most, rule.window), np.float32)
    vectors = np.empty((features.most, FEATURE_COUNT), np.float32)

    def add(fills: Sequence[Fill], rows: AddRows, parts: Parts) -> None:
        began = time.perf_counter()
        for first in range(0, len(fills), features.most):
            together = fills[first : first + features.most]
            for row, fill in zip(windows, together, strict=False):
                fill(row)
            count = len(together)
            rows(features.compute(windows[:count], rate, vectors[:count]))
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
        sound: Sound,
        out: NDArray[np.float32],
        parts: Parts,
        *,
        upto: Sequence[int] = (),
        anyway: bool = False,
    ) -> Iterator[Progress]:
        """See :meth:`Encoder.encode`; the whole excerpt counts as one window."""
        del upto
        samples = sound.take(0, len(sound))
        began = time.perf_counter()
        found = level(samples, sound.rate)
        heard = not found.silent and sound.intact(0, len(sound))
        if not heard and not anyway:
            yield Progress(0, 1)
            return
        if self._loudness is not None:
            copy = self._copy[: len(samples)]
            copy[:] = samples
            normalise(copy, found, self._loudness)
            samples = copy
        self._features.compute(samples, sound.rate, out)
        parts.add("features", time.perf_counter() - began)
        yield Progress(int(heard), 1)

    def close(self) -> None:
        """See :meth:`Encoder.close`."""
        self._features.close()
