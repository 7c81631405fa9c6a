"""From unlabelled music to clusters on the disk: read, place, cluster, describe, write."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from edge_reclass import __version__
from edge_reclass.bundle import load, starter_path
from edge_reclass.errors import UsageError
from edge_reclass_export.bundle_files import write_together
from edge_reclass_export.engine.report import json_text
from edge_reclass_learn.cluster.clustering import (
    SAMPLE,
    Clusters,
    arranged,
    hdbscan,
    k_means,
    reproducible,
    sampled,
)
from edge_reclass_learn.cluster.describing import follows, groups, near_genres
from edge_reclass_learn.cluster.page import page
from edge_reclass_learn.cluster.reading import Music, read_music
from edge_reclass_learn.cluster.record import PAGE, RECORD, TRACKS, Record, Row, check_place, table
from edge_reclass_learn.cluster.space import Points, make_space
from edge_reclass_learn.cluster.stability import Stability, choose, stability_curve, tried
from edge_reclass_learn.hearing.listening import Listening, listening
from edge_reclass_learn.hearing.memory import recall
from edge_reclass_learn.pages.text import readable
from edge_reclass_learn.progress import Say

LEAST: Final = 20
"""Tracks that are needed."""
MOST: Final = 200
"""Clusters that a person may be asked to name."""
LEAD: Final = 0.1
"""By how much clusters have to be more stable than those of shuffled points; a smaller lead is warned of."""

Method = Literal["kmeans", "hdbscan"]


@dataclass(frozen=True)
class Options:
    """How to cluster.

    cache: file that keeps what was heard
    bundle: whose encoders hear; None: the starter
    stages: whose embeddings are used; none: the last of the bundle
    method: K-Means, or HDBSCAN
    clusters: of K-Means; None: as stability advises
    smallest: of HDBSCAN, the least tracks of a cluster; None: a hundredth of all, at least 5
    threads: of the encoders; None: all CPUs
    """

    cache: Path
    bundle: Path | None = None
    stages: Sequence[str] = ()
    method: Method = "kmeans"
    clusters: int | None = None
    smallest: int | None = None
    seed: int = 0
    threads: int | None = None


@dataclass(frozen=True)
class Outcome:
    """A clustering, and what a user should know of it."""

    record: Record
    notes: Sequence[str]


def cluster_music(data: Path, output: Path, options: Options, say: Say) -> Outcome:
    """Cluster the music of ``data``, and write page, table and record into the folder ``output``, all at the end.

    Raises:
        UsageError: the data, the options or the folder cannot be used, or there are too few tracks.
        BundleError, EngineError, DeviceError: the bundle cannot be used.
    """
    check_place(output)
    bundle = load(options.bundle or starter_path())
    heard = listening(bundle)
    stages = _stages(heard, options.stages)
    music = read_music(data, bundle, heard, stages, options.cache, options.threads, say)
    total = len(music.tracks)
    if total < max(LEAST, 2 * (options.clusters or 0)):
        lost = "".join(f"; {count} left out, {why}" for why, count in music.left_out.items())
        few = f"at least {LEAST} tracks" if total < LEAST else f"at least 2 for each of {options.clusters} clusters"
        raise UsageError(f"{data}: expected {few}, got {total}{lost}: add music")
    space = make_space(music.vectors, stages, sampled(total, SAMPLE, options.seed))
    points = space.place(music.vectors)
    if len(np.unique(points, axis=0)) < max(LEAST // 2, options.clusters or 0):
        raise UsageError(
            f"{data}: nearly all tracks sound the same to {' and '.join(stages)}: there is nothing to sort"
        )
    smallest = None
    if options.method == "hdbscan":
        smallest = options.smallest or max(5, round(total / 100))
    with reproducible():
        found, curve, asked = _found(points, music, options, smallest, say)
    say("describing the clusters")
    rows = _rows(music, found)
    content = table(sorted(rows, key=lambda row: row.path))
    record = Record(
        version=__version__,
        data=readable(str(data.resolve())),
        data_sha256=music.digest,
        bundle=bundle.name,
        bundle_digest=bundle.digest,
        stages=list(stages),
        dimensions=points.shape[1],
        explained=round(space.explained, 4),
        method=options.method,
        seed=options.seed,
        smallest=smallest,
        tracks=total,
        loose=int((found.labels < 0).sum()),
        left_out=dict(music.left_out),
        chosen="density" if options.method == "hdbscan" else "given" if options.clusters else "stability",
        asked=asked,
        curve=curve,
        follows=follows(music, found.labels),
        clusters=groups(music, found, near_genres(recall(bundle, heard), space, found)),
        tracks_sha256=hashlib.sha256(content).hexdigest(),
    )
    say("writing the page")
    notes = [*music.notes, *_doubts(record)]
    text = page(record, music, found, bundle.manifest.genres, notes)
    written = {TRACKS: content, PAGE: text.encode(), RECORD: f"{json_text(record)}\n".encode()}
    write_together(output, written)
    return Outcome(record, notes)


def _stages(heard: Listening, asked: Sequence[str]) -> list[str]:
    """The stages asked for in running order; the last one where none are."""
    known = list(heard.inputs)
    if unknown := [one for one in asked if one not in known]:
        raise UsageError(f"--stage: expected one of {', '.join(known)}, got {unknown[0]!r}")
    return [one for one in known if one in asked] or known[-1:]


def _found(
    points: Points, music: Music, options: Options, smallest: int | None, say: Say
) -> tuple[Clusters, list[Stability], int | None]:
    """Clusters, how stable each number of them is, and how many K-Means was asked for."""
    if smallest is not None:
        say("clustering")
        labels = hdbscan(points, smallest, options.seed)
        if not (labels >= 0).any():
            raise UsageError(
                f"HDBSCAN finds no dense group of {smallest} tracks; try --smallest {max(2, smallest // 2)}, or"
                " --method kmeans"
            )
        return arranged(points, labels), [], None
    numbers = [options.clusters] if options.clusters else tried(len(points))
    curve = stability_curve(points, music.groups, numbers, options.seed, say)
    say("clustering")
    asked = choose(curve)
    return arranged(points, k_means(points, asked, options.seed)), curve, asked


def _rows(music: Music, found: Clusters) -> list[Row]:
    far, between = found.far.tolist(), found.between.tolist()
    following = found.following.tolist() if len(found) > 1 else [-1] * len(far)
    own = zip(music.tracks, found.labels.tolist(), found.distances.tolist(), music.genres, music.groups, strict=True)
    return [
        Row(str(track.path), label + 1, distance, far[i], following[i] + 1, between[i], genre or "", group)
        for i, (track, label, distance, genre, group) in enumerate(own)
    ]


def _doubts(record: Record) -> list[str]:
    """What speaks against believing the clusters."""
    said = []
    if record.curve and max(one.lead for one in record.curve) < LEAD:
        said.append(
            "warning: no number of clusters is more stable than with shuffled points: this music may have no groups"
        )
    for what, share in record.follows.items():
        if share >= 0.2:
            said.append(f"warning: the clusters follow the {what} of the tracks ({share:.2f} of 1): listen for that")
    if record.asked is not None and len(record.clusters) < record.asked:
        said.append(
            f"warning: K-Means left {len(record.clusters)} of {record.asked} clusters: many tracks sound the same"
        )
    if record.loose > record.tracks / 2:
        said.append(f"{record.loose} of {record.tracks} tracks are in no cluster: HDBSCAN takes dense groups only")
    return said
