"""Labelled tracks → examples in their groups: hear them, and see which seem to be the same recording."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_reclass import Bundle
from edge_reclass_learn.data.features import Vectors
from edge_reclass_learn.data.groups import Pair, group, near_duplicates
from edge_reclass_learn.data.labelled import Labelled
from edge_reclass_learn.hearing.examples import Example
from edge_reclass_learn.hearing.hear import Clip, LeftOut, at_every_count, hear
from edge_reclass_learn.hearing.listening import Listening
from edge_reclass_learn.progress import Say


@dataclass(frozen=True)
class Gathered:
    """Tracks as the stages of a bundle heard them.

    examples: the tracks that were given, then those that were mixed in from the bundle's memory
    left_out: tracks that could not be heard
    pairs: given tracks that seem to be the same recording
    in_base: numbers of the given tracks that the bundle seems to remember: its heads have heard them
    digest: of the sounds and their labels
    """

    examples: Sequence[Example]
    left_out: Sequence[LeftOut]
    pairs: Sequence[tuple[Example, Example, Pair]]
    in_base: Sequence[int]
    digest: str


def gather(
    bundle: Bundle,
    heard: Listening,
    tracks: Sequence[Labelled],
    known: Sequence[Example],
    cache: Path,
    threads: int | None,
    say: Say,
    *,
    mixed: bool = False,
    copies: int = 0,
) -> Gathered:
    """Hear ``tracks`` with the stages of ``bundle``; what is in ``cache`` is not heard again.

    The examples are in the order of their sounds: what comes of them depends neither on where their files lie nor on
    their names.

    Args:
        known: what the bundle remembers (``memory.recall``)
        mixed: ``known`` are examples, too, and groups reach through them; but for what seems to be the same recording
            as a track of another genre: that was corrected
        copies: changed copies of each track that heads are fitted on, too

    Raises:
        UsageError: the cache cannot be used.
        BundleError, EngineError, DeviceError: see ``Cascade.open``.
    """
    clips, left_out = hear(bundle, heard, tracks, cache, threads, say, copies)
    return _gathered(clips, left_out, heard, known, mixed)


def gather_vectors(vectors: Vectors, heard: Listening) -> Gathered:
    """As :func:`gather`, of what the only stage of ``heard`` made of tracks before."""
    (stage,) = heard.inputs
    clips = []
    for track, row in zip(vectors.tracks, vectors.rows, strict=True):
        sound = hashlib.blake2b(row.astype("<f4").tobytes(), digest_size=24).digest()
        clips.append(Clip(track, sound, at_every_count({stage: row}, heard), {}, None, audio=False))
    return _gathered(clips, [], heard, [], mixed=False)


def _gathered(
    clips: Sequence[Clip], left_out: Sequence[LeftOut], heard: Listening, known: Sequence[Example], mixed: bool
) -> Gathered:
    clips = sorted(clips, key=lambda clip: (clip.sound, clip.track.genre))
    loose = [_example(clip) for clip in clips] + list(known)
    belongs = [[*clip.track.belongs, ("sound", clip.sound.hex())] for clip in clips]
    belongs += [[("remembered", example.group)] for example in known]
    fullest = {name: counts[-1] for name, counts in heard.counts.items()}
    vectors = [np.stack([one.embeddings[asked] for one in loose]) for asked in fullest.items()] if loose else []
    pairs = near_duplicates(vectors, len(known)) if loose else []
    own = [pair for pair in pairs if pair.second < len(clips)]
    found = group(belongs, [(pair.first, pair.second) for pair in (pairs if mixed else own)])
    examples = [replace(example, group=name) for example, name in zip(loose, found, strict=True)]
    doubles = [(pair.first, pair.second) for pair in pairs if pair.first < len(clips) <= pair.second]
    corrected = {old for given, old in doubles if examples[given].genre != examples[old].genre}
    return Gathered(
        [one for i, one in enumerate(examples) if i < len(clips) or (mixed and i not in corrected)],
        left_out,
        [(examples[pair.first], examples[pair.second], pair) for pair in own],
        sorted({given for given, _ in doubles}),
        _digest(clips),
    )


def _example(clip: Clip) -> Example:
    track = clip.track
    return Example(
        str(track.path),
        track.genre,
        "",
        clip.embeddings,
        clip.windows,
        clip.facts,
        track.source,
        clip.sound if clip.audio else b"",
        copies=clip.copies,
    )


def _digest(clips: Sequence[Clip]) -> str:
    """Of the sounds and their genres."""
    lines = sorted(f"{clip.sound.hex()} {clip.track.genre}" for clip in clips)
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
