"""Clips and made signals → embeddings, through the runtime's own cascade: what is fitted on is what a device hears."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass import Cascade
from edge_reclass.audio import Decoder, ExcerptSpec, Limits, Resampler, resampled_length
from edge_reclass.cascade import StageAnswer
from edge_reclass.errors import TrackError, UsageError
from edge_reclass_export.recipes.musicnn_model import Embedding, Variant
from edge_reclass_learn.hearing import nonsense
from edge_reclass_learn.hearing.nonsense import recordings
from starter.catalogue import Clip

LONGEST: Final = 30.0
_MAX_RATE: Final = 48_000
_SLACK: Final = 0.05
"""A clip may miss a length by this many seconds: coders drop or add a few samples."""

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """How a clip is heard: cut to ``seconds`` from its middle (None: all of it), perhaps from a copy at ``rate`` Hz."""

    name: str
    seconds: float | None = None
    rate: int | None = None


VIEWS: Final = (
    View("whole"),
    View("2 s", 2.0),
    View("3 s", 3.0),
    View("10 s", 10.0),
    View("10 s at 8 kHz", 10.0, 8_000),
)


WIDE: Final[Mapping[Variant, Embedding]] = MappingProxyType({"msd": "penultimate+pool", "mtt": "penultimate"})
"""What the musicnn of each variant gives for hearing; PARTS cuts it into the embeddings that heads may take."""
PARTS: Final = MappingProxyType({"msd": {"musicnn": slice(0, 200), "pools": slice(200, None)}})

Asked = tuple[str, int | None]
"""A stage, and after how many of its windows."""


@dataclass(frozen=True)
class Hearing:
    """What the cascade makes of one view of a clip.

    embeddings: float32[dim] by stage and count; where there are no more windows than the count, that of them all
    windows: how many windows each stage has
    """

    embeddings: Mapping[Asked, Vector]
    windows: Mapping[str, int]

    def row(self, asked: Sequence[Asked]) -> Vector:
        """The embeddings that a head takes, each after so many windows."""
        return np.concatenate([self.embeddings[one] for one in asked])


@dataclass(frozen=True)
class ClipEmbeddings:
    """One clip, and what the cascade makes of it: by view, those that it is long enough for."""

    clip: Clip
    seconds: float
    views: dict[str, Hearing] = field(default_factory=dict)


@dataclass(frozen=True)
class NonsenseEmbedding:
    """The first stage's embedding of a made signal."""

    family: str
    name: str
    row: Vector


def decoded(path: Path) -> tuple[Vector, int]:
    """The middle 30 s of a clip, mono float32[n], and their rate.

    Raises:
        TrackError: the clip cannot be decoded.
    """
    out = np.empty(int((LONGEST + 1.0) * _MAX_RATE), np.float32)
    found = Decoder(Limits(_MAX_RATE)).decode(path, [ExcerptSpec("center", LONGEST)], out)
    return found.segments[0].samples, found.rate


def hear_clips(
    cascade: Cascade, root: Path, clips: Sequence[Clip], progress: Callable[[int], None]
) -> list[ClipEmbeddings]:
    """Every clip's embeddings, after each of the policy's steps; ``progress`` gets how many are done.

    Raises:
        TrackError: a clip cannot be decoded.
        UsageError: a clip is silent.
    """
    heard = []
    for number, clip in enumerate(clips):
        samples, rate = decoded(root / clip.path)
        found = ClipEmbeddings(clip, len(samples) / rate)
        for view in VIEWS:
            if (cut := _cut(samples, rate, view)) is not None:
                found.views[view.name] = _hear(cascade, *cut, clip.path)
        heard.append(found)
        progress(number + 1)
    return heard


def hear_nonsense(cascade: Cascade) -> Iterator[NonsenseEmbedding]:
    """The embedding of every made signal that is not silent, by a ``cascade`` of the first stage alone."""
    for signal, samples, rate in recordings(nonsense.FITTED, seed=0):
        try:
            (first,) = cascade.answers(samples[:, None], rate)
        except TrackError:
            continue  # silent: the runtime refuses it by itself
        yield NonsenseEmbedding(signal.family, signal.name, first.embedding)


def _cut(samples: Vector, rate: int, view: View) -> tuple[Vector, int] | None:
    n = len(samples) if view.seconds is None else round(view.seconds * rate)
    if len(samples) < n - _SLACK * rate:
        return None
    first = max(0, (len(samples) - n) // 2)
    cut = samples[first : first + n]
    if view.rate is None:
        return cut, rate
    out = np.empty(resampled_length(len(cut), rate, view.rate), np.float32)
    return out[: Resampler().resample(cut, rate, view.rate, out)], view.rate


def _hear(cascade: Cascade, samples: Vector, rate: int, name: str) -> Hearing:
    try:
        answers = cascade.answers(samples[:, None], rate, stepwise=True)
    except TrackError as error:
        raise UsageError(f"{name}: expected sound, got {error.status}: {error}") from error
    said: dict[str, list[StageAnswer]] = {stage: [] for stage in cascade.plan.policy.stages}
    for answer in answers:
        said[answer.name].append(answer)
    if silent := [stage for stage, steps in said.items() if not steps]:
        raise UsageError(f"{name}: expected sound for every stage, got silence for {', '.join(silent)}")
    found, windows = {}, {}
    for stage, steps in said.items():
        for part, columns in PARTS.get(stage, {stage: slice(None)}).items():
            windows[part] = steps[-1].windows.of
            for count in (*cascade.plan.policy.windows(stage), None):
                answer = next((one for one in steps if one.windows.heard == count), steps[-1])
                found[part, count] = answer.embedding[columns]
    return Hearing(found, windows)
