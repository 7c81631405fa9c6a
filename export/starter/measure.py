"""What a finished bundle answers to nonsense, to softer copies of the clips, and to clips from elsewhere."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soundfile as sf

from edge_reclass import Cascade
from edge_reclass.cascade import Policy
from edge_reclass.errors import UsageError
from edge_reclass.verdict import Verdict
from edge_reclass_learn.hearing import nonsense
from edge_reclass_learn.hearing.nonsense import played, recordings
from starter.catalogue import GENRES, Catalogue, Clip
from starter.embeddings import LONGEST, Asked, decoded
from starter.policies import THOROUGH, stops_at

SOFTER: Final = (-6.0, -12.0, -20.0, -30.0, -40.0)
"""In dB."""
_CLIPS_PER_GENRE: Final = 3
_COSTED: Final = 24
"""Tracks that costs are measured on."""


@dataclass(frozen=True)
class Answered:
    """How many signals of a family got which answer; ``sure`` got a genre."""

    sure: int = 0
    unsure: int = 0
    silent: int = 0


@dataclass(frozen=True)
class Elsewhere:
    """A labelled track that the bundle was not made from."""

    track: str
    label: str
    verdict: Verdict


def costs(bundle: Path, policies: Mapping[str, Policy], catalogue: Catalogue) -> dict[Asked, float]:
    """What tracks of 30 s cost under ``thorough``, and that stop after each step of the default, in ms; medians.

    One thread, the tracks in turn.

    Raises:
        UsageError: no clip is so long.
    """
    paths = [catalogue.root / clip.path for clip in catalogue.clips]
    long = [path for path in paths if sf.info(path).duration > LONGEST - 0.1][:_COSTED]
    if not long:
        raise UsageError(f"{catalogue.root}: expected a clip of {LONGEST:g} s to measure costs on, found none")
    default = policies["progressive"]
    tried = {(step.after, step.windows): stops_at(default, i) for i, step in enumerate(default.steps)}
    tried[THOROUGH] = policies["thorough"]
    found = {}
    for asked, policy in tried.items():
        spent = []
        with Cascade.open(bundle, policy=policy, threads=1, min_confidence=0.0) as cascade:
            for path in long:
                began = time.process_time()
                verdict = cascade.classify(path)
                if asked == THOROUGH or verdict.decided_by == asked[0]:  # not where the range test let it go on
                    spent.append((time.process_time() - began) * 1_000)
        found[asked] = float(np.median(spent))
    return found


def nonsense_answered(cascade: Cascade, seed: int) -> dict[str, Answered]:
    """Every made signal at another rate, length and level than it was fitted at, through the whole cascade."""
    found: dict[str, Answered] = {}
    for signal, samples, rate in recordings(nonsense.MEASURED, seed):
        verdict = cascade.classify_samples(samples[:, None], rate)
        so_far = found.get(signal.family, Answered())
        found[signal.family] = Answered(
            so_far.sure + (verdict.status == "ok"),
            so_far.unsure + (verdict.status == "unsure"),
            so_far.silent + (verdict.status == "silent"),
        )
    return found


def levels_kept(cascade: Cascade, root: Path, clips: Sequence[Clip]) -> tuple[int, dict[float, int]]:
    """Of the first clips of each genre: how many there are, and how many keep their answer at each level of SOFTER.

    Softer copies are stored with 16 bits, with dither.
    """
    random = np.random.default_rng(0)
    chosen = [clip for genre in GENRES for clip in [one for one in clips if one.genre == genre][:_CLIPS_PER_GENRE]]
    kept = dict.fromkeys(SOFTER, 0)
    for clip in chosen:
        samples, rate = decoded(root / clip.path)
        before = cascade.classify_samples(samples[:, None], rate)
        for level in SOFTER:
            after = cascade.classify_samples(played(samples.astype(np.float64), level, random)[:, None], rate)
            kept[level] += (after.status, after.genre) == (before.status, before.genre)
    return len(chosen), kept


def elsewhere(cascade: Cascade, data: Path) -> list[Elsewhere]:
    """What the bundle says of the labelled FMA clips; none if they are not there.

    Raises:
        UsageError: one of them gets no answer.
    """
    index = data / "audio" / "fma" / "labels.csv"
    if not index.is_file():
        return []
    found = []
    with index.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            verdict = cascade.classify(index.parent / row["file"])
            if verdict.failed or not verdict.top:
                raise UsageError(f"{index.parent / row['file']}: {verdict.status}: {verdict.error}")
            found.append(Elsewhere(f"fma/{row['file']}", row["top_genre"], verdict))
    return found
