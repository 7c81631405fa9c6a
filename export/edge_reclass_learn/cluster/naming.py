"""Names of clusters → labelled tracks that ``edge-reclass fit`` takes."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_reclass.errors import UsageError
from edge_reclass.run import printable
from edge_reclass_learn.cluster.record import Record, Row
from edge_reclass_learn.data.labelled import check_genres, read_table

LABELLED: Final = "labelled.csv"
_DIGITS: Final = 40
"""Characters of a number; Python refuses to read very long ones."""
_EXPECTED: Final = "expected the columns cluster and genre, as the page of the clusters saves them"


@dataclass(frozen=True)
class Named:
    """Tracks with the genre that their cluster was given: path, genre, group; and why others are left out."""

    rows: Sequence[tuple[str, str, str]]
    left_out: Mapping[str, int]

    @property
    def genres(self) -> Counter[str]:
        """How many tracks each genre has."""
        return Counter(genre for _, genre, _ in self.rows)

    def csv(self) -> bytes:
        """As a table for ``edge-reclass fit``."""
        with io.StringIO(newline="") as text:
            writer = csv.writer(text)
            writer.writerow(["path", "genre", "group"])
            writer.writerows(self.rows)
            return text.getvalue().encode(errors="surrogateescape")


def read_names(path: Path, record: Record) -> dict[int, str]:
    """The genre of each cluster that has a name.

    Raises:
        UsageError: the table is not as it has to be, names a cluster that is not there or twice, is of another
            clustering, or names none.
    """
    rows, _, header = read_table(path, _EXPECTED)
    if not {"cluster", "genre"} <= set(header):
        raise UsageError(f"{path}: {_EXPECTED}; got {printable(', '.join(map(str, header))) or 'nothing'}")
    names: dict[int, str] = {}
    most = len(record.clusters)
    for number, row in enumerate(rows, start=2):
        of = (row.get("clustering") or "").strip()
        if of and of != record.name:
            raise UsageError(
                f"{path}: row {number}: expected names of the clustering {record.name}, got those of"
                f" {printable(of)}: the clusters were made anew since; name them again on the page"
            )
        text, genre = (row["cluster"] or "").strip(), " ".join((row["genre"] or "").split())
        if not (len(text) < _DIGITS and text.isascii() and text.isdigit() and 1 <= int(text) <= most):
            raise UsageError(
                f"{path}: row {number}: expected a cluster from 1 to {most}, got {printable(text[:_DIGITS])!r}"
            )
        if names.setdefault(int(text), genre) != genre:
            raise UsageError(
                f"{path}: row {number}: cluster {text} stands there as {printable(names[int(text)])!r} and as"
                f" {printable(genre)!r}"
            )
    named = {cluster: genre for cluster, genre in names.items() if genre}
    check_genres(path, named.values())
    if not named:
        raise UsageError(f"{path}: no cluster has a name; write a genre beside those that are one")
    return named


def name(rows: Sequence[Row], names: Mapping[int, str]) -> Named:
    """The tracks of named clusters.

    Left out are those without a cluster, of clusters without a name, far from their centre, or between it and the
    centre of a cluster that has not the same name.
    """
    found, left_out = [], Counter[str]()
    for row in rows:
        genre = names.get(row.cluster)
        if not row.cluster:
            left_out["in no cluster"] += 1
        elif genre is None:
            left_out["in a cluster without a name"] += 1
        elif row.far:
            left_out["far from every centre"] += 1
        elif row.between and names.get(row.following) != genre:
            left_out["between two clusters"] += 1
        elif not _fits(row.path):
            left_out["with a name that a CSV cannot hold"] += 1
        else:
            found.append((row.path, genre, row.group))
    return Named(found, left_out)


def _fits(path: str) -> bool:
    """Whether ``fit`` reads the same path back: UTF-8, no space at its ends."""
    return path == path.strip() and not any("\ud800" <= one <= "\udfff" for one in path)
