"""Tracks on which a synthetic bundle is set: the user's own, or synthesised ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_reclass import Cascade, Verdict
from edge_reclass.errors import UsageError
from edge_reclass.features import FEATURE_COUNT, Fma518
from edge_reclass_bench.peers.clips import Clip, at_rate, decoded
from edge_reclass_bench.synthetic.tracks import RATE as TRACK_RATE
from edge_reclass_bench.synthetic.tracks import synthesised

__all__ = ["CalibrationTracks"]

_SECONDS = 30.0
_NUMBER = 16


class CalibrationTracks:
    """At most ``number`` tracks, spread evenly over ``files``; synthesised ones where there are no files."""

    def __init__(self, files: Sequence[Path] = (), number: int = _NUMBER) -> None:
        """Raises ``ValueError`` for fewer than 2 tracks: nothing can be learnt from one."""
        if number < 2:
            raise ValueError(f"number: expected at least 2, got {number}")
        step = max(1.0, len(files) / number)
        self._files = [files[int(i * step)] for i in range(min(number, len(files)))]
        self._number = number

    @property
    def description(self) -> str:
        """What they are, for the provenance."""
        return f"{len(self._files)} tracks of the user's" if self._files else f"{self._number} synthesised tracks"

    def features(self, rate: int) -> NDArray[np.float64]:
        """The 518 features of the middle 30 s of every track at ``rate`` Hz: float64[tracks, 518].

        Raises ``UsageError`` where fewer than two of the files can be decoded.
        """
        rows = []
        with Fma518(int((_SECONDS + 1.0) * rate), rate) as plan:
            for clip in self._clips():
                rows.append(plan.compute(at_rate(clip, rate), rate).astype(np.float64))
        if len(rows) < 2:
            raise UsageError(f"expected at least two tracks that can be decoded, got {len(rows)} of {len(self._files)}")
        return np.stack(rows).reshape(-1, FEATURE_COUNT)

    def verdicts(self, cascade: Cascade) -> list[Verdict]:
        """What ``cascade`` says of every track; tracks without an answer are left out.

        Raises ``UsageError`` where fewer than two have one; the message has the first reason.
        """
        if self._files:
            verdicts = [cascade.classify(file) for file in self._files]
        else:
            verdicts = [cascade.classify_samples(synthesised(i), TRACK_RATE) for i in range(self._number)]
        answered = [verdict for verdict in verdicts if verdict.status == "ok"]
        if len(answered) < 2:
            other = next(verdict for verdict in verdicts if verdict.status != "ok")
            raise UsageError(
                f"expected at least two tracks that can be classified, got {len(answered)} of {len(verdicts)};"
                f" {other.path}: {other.status}: {other.error}"
            )
        return answered

    def _clips(self) -> Iterator[Clip]:
        if self._files:
            return decoded(self._files, _SECONDS)
        return (Clip(i, Path(str(i)), synthesised(i), TRACK_RATE) for i in range(self._number))
