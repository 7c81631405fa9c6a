"""What is kept of a clustering: ``record.json``, and ``clusters.csv`` with a row for each track."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from edge_reclass.errors import UsageError
from edge_reclass_learn.cluster.stability import Stability

RECORD: Final = "record.json"
TRACKS: Final = "clusters.csv"
PAGE: Final = "clusters.html"
FORMAT: Final = 1
KIND: Final = "edge-reclass-clusters"
_COLUMNS: Final = ("path", "cluster", "distance", "far", "next_cluster", "between", "nearest_genre", "group")

Count = Annotated[int, Meta(ge=0)]


class Group(Struct, frozen=True, kw_only=True):
    """What is known of one cluster.

    genres: what the bundle says of its tracks, the most frequent first
    near: the bundle's genres by how near their remembered tracks lie, the nearest first
    apart: what sets it apart from the other tracks, in words
    warnings: why it may be no genre, in words
    far, between: tracks that are left out when it is named
    """

    number: Annotated[int, Meta(ge=1)]
    tracks: Count
    genres: dict[str, Count]
    near: list[str]
    apart: list[str]
    warnings: list[str]
    far: Count
    between: Count


class Record(Struct, frozen=True, kw_only=True):
    """A clustering.

    data, data_sha256: what was clustered, and the digest of what was heard of it
    stages: whose embeddings were used; ``dimensions`` of them, with the share ``explained`` of their variance
    loose: tracks without a cluster
    asked: of K-Means, how many clusters; copies of a track may leave fewer
    curve: how stable each number of clusters is; empty where it was not asked
    follows: adjusted mutual information of the clusters with what is no genre
    tracks_sha256: of clusters.csv
    """

    kind: Literal["edge-reclass-clusters"] = KIND
    format: Literal[1] = FORMAT
    version: str
    data: str
    data_sha256: str
    bundle: str
    bundle_digest: str
    stages: list[str]
    dimensions: Count
    explained: float
    method: Literal["kmeans", "hdbscan"]
    seed: Count
    smallest: Count | None
    tracks: Count
    loose: Count
    left_out: dict[str, Count]
    chosen: Literal["given", "stability", "density"]
    asked: Count | None = None
    curve: list[Stability]
    follows: dict[str, float]
    clusters: list[Group]
    tracks_sha256: str

    @property
    def name(self) -> str:
        """By which names of clusters say which clustering they are of."""
        return self.tracks_sha256[:12]


@dataclass(frozen=True)
class Row:
    """A track in clusters.csv.

    cluster, following: its cluster and the next one, from 1; 0: none
    far, between: why it is left out when clusters are named
    """

    path: str
    cluster: int
    distance: float
    far: bool
    following: int
    between: bool
    genre: str
    group: str


def table(rows: Sequence[Row]) -> bytes:
    """clusters.csv; names that are not UTF-8 are kept as their own bytes."""
    with io.StringIO(newline="") as text:
        writer = csv.writer(text)
        writer.writerow(_COLUMNS)
        for row in rows:
            number = row.cluster or ""
            flags = ("yes" if row.far else "", row.following or "", "yes" if row.between else "")
            writer.writerow(
                [row.path, number, f"{row.distance:.4f}", flags[0], flags[1], flags[2], row.genre, row.group]
            )
        return text.getvalue().encode(errors="surrogateescape")


def read(folder: Path) -> tuple[Record, list[Row]]:
    """What an earlier run wrote into ``folder``.

    Raises:
        UsageError: there is nothing, or not what was written.
    """
    again = f"edge-reclass cluster DATA -o {folder} makes it anew"
    try:
        record = msgspec.json.decode((folder / RECORD).read_bytes(), type=Record)
        content = (folder / TRACKS).read_bytes()
    except OSError as error:
        raise UsageError(
            f"{folder}: expected clusters to name, {os.fspath(error.filename)} cannot be read ({error.strerror});"
            f" edge-reclass cluster DATA -o {folder} makes them"
        ) from error
    except msgspec.DecodeError as error:
        raise UsageError(f"{folder / RECORD}: expected a record of edge-reclass cluster ({error}); {again}") from error
    if hashlib.sha256(content).hexdigest() != record.tracks_sha256:
        raise UsageError(f"{folder / TRACKS}: was changed after it was written; {again}")
    with io.StringIO(content.decode(errors="surrogateescape"), newline="") as text:
        return record, [_row(row) for row in csv.DictReader(text)]


def _row(row: dict[str, str]) -> Row:
    return Row(
        row["path"],
        int(row["cluster"] or 0),
        float(row["distance"]),
        bool(row["far"]),
        int(row["next_cluster"] or 0),
        bool(row["between"]),
        row["nearest_genre"],
        row["group"],
    )


def check_place(folder: Path) -> None:
    """Refuse a folder that holds something else than an earlier clustering.

    Raises:
        UsageError: it does.
    """
    if folder.is_dir() and (not any(folder.iterdir()) or _is_record(folder / RECORD)):
        return
    if folder.exists():
        raise UsageError(
            f"{folder}: expected no folder, an empty one or one that edge-reclass cluster made; got something else"
        )


def _is_record(path: Path) -> bool:
    try:
        msgspec.json.decode(path.read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return False
    return True
