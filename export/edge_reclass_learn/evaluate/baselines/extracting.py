"""Tracks → the features of a source. What was extracted is kept at once, so that it can be interrupted."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio import MAX_RATE, Decoder, ExcerptSpec, Limits, Resampler, level, normalise, resampled_length
from edge_reclass.errors import TrackError
from edge_reclass.run import printable
from edge_reclass_learn.evaluate.baselines.sources import Extract, Missing, Source, Vector, installed
from edge_reclass_learn.hearing.cache import Cache
from edge_reclass_learn.hearing.hear import sound_digest
from edge_reclass_learn.progress import Say

SECONDS: Final = 30.0
"""From the middle, as the stages of a bundle usually hear."""
LOUDNESS: Final = -15.0
"""In dB of full scale, as the starter's stages hear: the level of a file would give its source away."""


class Extracted(msgspec.Struct, frozen=True):
    """Little-endian float32 features of a track, and the CPU seconds that they took; or why there are none."""

    features: bytes
    seconds: float
    why: str = ""


@dataclass(frozen=True)
class Extraction:
    """Features of tracks.

    rows: float32[n, dim]; zeros for tracks without features, and in place of what is not finite
    there: which tracks have features
    milliseconds: mean CPU time per track, without decoding and resampling; None where no track has features
    note: what the source could not do
    """

    rows: NDArray[np.float32]
    there: NDArray[np.bool_]
    milliseconds: float | None
    note: str


def extract(source: Source, tracks: Sequence[Path], cache: Path, say: Say) -> Extraction:
    """The features of every track; what is in ``cache`` is not extracted again.

    Raises:
        Missing: the source cannot be used here.
        UsageError: the cache cannot be used.
    """
    how = hashlib.sha256(repr((installed(source.package), source.settings, source.rate, SECONDS, LOUDNESS)).encode())
    found, run = [], source.opened()
    with Cache(cache, f"{source.name} {how.hexdigest()}", Extracted) as kept:
        for number, track in enumerate(tracks, start=1):
            say(f"{source.name}: {number} of {len(tracks)}: {printable(track.name)}")
            try:
                sound = sound_digest(track)
            except (TrackError, OSError) as error:
                found.append(Extracted(b"", 0.0, str(getattr(error, "status", "unreadable"))))
                continue
            if (one := kept.get(sound)) is None:
                one = _extract(run, track, source.rate)
                kept.put(sound, one)
            found.append(one)
    return _together(found)


def excerpt(track: Path, rate: int) -> Vector:
    """What every source is given: the middle 30 s, mono float32[samples] at ``rate`` Hz, at LOUDNESS.

    Raises:
        TrackError: the track cannot be decoded.
    """
    raw = np.empty(math.ceil(SECONDS * MAX_RATE) + 2, np.float32)
    decoded = Decoder(Limits(MAX_RATE)).decode(track, [ExcerptSpec("center", SECONDS)], raw)
    samples = decoded.segments[0].samples
    out = np.empty(resampled_length(len(samples), decoded.rate, rate) + 2, np.float32)
    out = out[: Resampler().resample(samples, decoded.rate, rate, out)]
    normalise(out, level(out, rate), LOUDNESS)
    return out


def _extract(run: Extract, track: Path, rate: int) -> Extracted:
    try:
        samples = excerpt(track, rate)
        begun = time.process_time()  # what else the machine does has no part in it
        features = run(samples)
    except Missing:
        raise
    except TrackError as error:
        return Extracted(b"", 0.0, str(error.status))
    except Exception as error:  # each library has its own classes; a track without features is counted and named
        return Extracted(b"", 0.0, f"{type(error).__name__}: {error}")
    return Extracted(features.astype("<f4").tobytes(), time.process_time() - begun)


def _together(found: Sequence[Extracted]) -> Extraction:
    dims = [len(one.features) for one in found if one.features]
    usual = max(set(dims), key=dims.count) if dims else 0
    there = np.array([len(one.features) == usual > 0 for one in found])
    rows = np.zeros((len(found), usual // 4), np.float32)
    for row, one, good in zip(rows, found, there, strict=True):
        if good:
            row[:] = np.frombuffer(one.features, "<f4")
    odd = ~np.isfinite(rows)
    notes = []
    if not there.all():
        why = sorted(
            {one.why or "another number of features" for one, good in zip(found, there, strict=True) if not good}
        )
        notes.append(f"nothing of {(~there).sum()} tracks, which count as wrong ({'; '.join(why)})")
    if odd.any():
        notes.append(f"{odd.sum()} values of {odd.any(axis=1).sum()} tracks are not finite and count as 0")
    seconds = [one.seconds for one, good in zip(found, there, strict=True) if good]
    return Extraction(
        np.where(odd, 0.0, rows).astype(np.float32),
        there,
        1e3 * float(np.mean(seconds)) if seconds else None,
        "; ".join(notes),
    )
