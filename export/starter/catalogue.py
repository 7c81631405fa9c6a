"""Which clips there are, which genre each stands for, and which belong together.

The genres are those of the clips, under the names of FMA's 16 where they mean the same. Metal is Rock, as in FMA's
tree. Disco and Reggae keep their names: FMA would file them under Soul-RnB and International, but a head that has
heard nothing else of these must not claim to know them. Emotify's "pop" is left out: it is mostly alternative rock,
and neither name would be honest.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from edge_reclass.errors import UsageError

GENRES: Final = (
    "Blues",
    "Classical",
    "Country",
    "Disco",
    "Electronic",
    "Hip-Hop",
    "Jazz",
    "Pop",
    "Reggae",
    "Rock",
    "Spoken",
)

_LABELS: Final = MappingProxyType(
    {
        ("gtzan", "blues"): "Blues",
        ("gtzan", "classical"): "Classical",
        ("gtzan", "country"): "Country",
        ("gtzan", "disco"): "Disco",
        ("gtzan", "hiphop"): "Hip-Hop",
        ("gtzan", "jazz"): "Jazz",
        ("gtzan", "metal"): "Rock",
        ("gtzan", "pop"): "Pop",
        ("gtzan", "reggae"): "Reggae",
        ("gtzan", "rock"): "Rock",
        ("emotify", "classical"): "Classical",
        ("emotify", "electronic"): "Electronic",
        ("emotify", "rock"): "Rock",
        ("speech", "spoken"): "Spoken",
    }
)
_LEFT_OUT: Final = frozenset({("emotify", "pop")})


@dataclass(frozen=True)
class Clip:
    """One clip.

    ``path`` is relative to the data's folder, ``group`` the artist or, where unknown, the clip; ``valid`` are those of
    GTZAN's artist-disjoint validation list.
    """

    path: str
    dataset: str
    genre: str
    group: str
    valid: bool = False


@dataclass(frozen=True)
class Catalogue:
    """The clips for fitting, how many were left out, and the sha256 of the index that they come from."""

    root: Path
    clips: tuple[Clip, ...]
    left_out: int
    index_sha256: str


def read_catalogue(root: Path) -> Catalogue:
    """Read ``root``/index.csv (columns path, dataset, genre, group, split, seconds).

    Raises:
        UsageError: there is no index, a column is missing, or a genre is not known.
    """
    index = root / "index.csv"
    try:
        content = index.read_bytes()
    except OSError as error:
        raise UsageError(f"{index}: cannot be read ({error.strerror}); --data is the folder with index.csv") from error
    clips, left_out = [], 0
    for row in csv.DictReader(content.decode("utf-8").splitlines()):
        try:
            key = row["dataset"], row["genre"]
            if key in _LEFT_OUT:
                left_out += 1
                continue
            clips.append(Clip(row["path"], key[0], _LABELS[key], f"{key[0]}/{row['group']}", row["split"] == "valid"))
        except KeyError as error:
            raise UsageError(f"{index}: no column or no genre {error}; got the row {dict(row)}") from error
    return Catalogue(root, tuple(clips), left_out, hashlib.sha256(content).hexdigest())
