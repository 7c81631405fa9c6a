"""Labelled vectors that somebody computed before: FMA's published tables, or an array with its labels.

There is no audio to hear then: the vectors are what one encoder made of the tracks. Columns are found by their names.
"""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass.errors import UsageError
from edge_reclass.features import FEATURE_NAMES
from edge_reclass.run import printable
from edge_reclass_export.recipes.fma_mlp_model import RMSE_COLUMNS, RMSE_RATIO
from edge_reclass_learn.data.labelled import Labelled, belonging, check_genres

_RMSE_MEAN: Final = FEATURE_NAMES.index("rmse/mean/01")
_TABLES: Final = ("features.csv", "tracks.csv")
_GENRE: Final = ("track", "genre_top")
_GROUPS: Final = {"artist": ("artist", "id"), "album": ("album", "id")}


@dataclass(frozen=True)
class Vectors:
    """What one encoder made of labelled tracks.

    tracks: their names (no files), genres, and what they have in common
    rows: float32[n, width], finite
    stage: of the base bundle whose encoder made them; None: it is not said
    published: they are FMA's published features: of whole tracks at 44.1 kHz, by librosa 0.5
    """

    tracks: Sequence[Labelled]
    rows: NDArray[np.float32]
    stage: str | None
    published: bool
    notes: tuple[str, ...]

    @property
    def unscaled(self) -> bool:
        """Whether their rmse columns, if they are the 518 features, can only be those of FMA's published table."""
        return self.rows.shape[1] == len(FEATURE_NAMES) and float(np.median(self.rows[:, _RMSE_MEAN])) > 1.0


def is_vectors(path: Path) -> bool:
    """Whether DATA is vectors: a folder with FMA's two tables, its features.csv, an .npy or an .npz."""
    try:
        if path.is_dir():
            return all((path / name).is_file() for name in _TABLES)
    except OSError:  # a folder that may not be searched
        return False
    return path.name == _TABLES[0] or path.suffix in (".npy", ".npz")


def read_vectors(path: Path) -> Vectors:
    """The vectors at ``path`` (see is_vectors).

    Raises:
        UsageError: they cannot be read, or are not as they have to be; the message says what is expected.
    """
    if path.suffix in (".npy", ".npz"):
        found = _arrays(path)
    else:
        folder = path if path.is_dir() else path.parent
        found = _fma(folder / _TABLES[0], folder / _TABLES[1])
    check_genres(path, (track.genre for track in found.tracks))
    return found


def _fma(features: Path, tracks: Path) -> Vectors:
    """FMA's tables: features.csv has three header rows, tracks.csv two; in both a row ``track_id`` may follow."""
    labels = _fma_labels(tracks)
    found: list[Labelled] = []
    rows: list[NDArray[np.float32]] = []
    seen: set[str] = set()
    unknown = 0
    with _table(features) as lines, np.errstate(over="ignore"):  # what float32 cannot hold is refused below
        columns = ["/".join(names) for names in _header(lines, 3)[1:]]
        order = _order(columns, features)
        for number, line in enumerate(lines, start=4):
            if _is_index(line):
                continue
            if (label := labels.get(line[0])) is None:
                unknown += 1
                continue
            if line[0] in seen:
                raise UsageError(f"{features}: row {number}: track {printable(line[0])} stands there twice")
            seen.add(line[0])
            if len(line) != len(columns) + 1:
                raise UsageError(f"{features}: row {number}: expected {len(columns) + 1} cells, got {len(line)}")
            try:
                rows.append(np.array(line[1:], np.float32)[order])
            except ValueError as error:
                raise UsageError(f"{features}: row {number}: expected numbers ({error})") from error
            found.append(label)
    if not rows:
        raise UsageError(f"{features}: none of its tracks has a genre_top in {tracks.name}")
    values = np.stack(rows)
    _require_finite(values, features, [str(track.path) for track in found], FEATURE_NAMES)
    scale = float(np.median(values[:, _RMSE_MEAN]))
    if scale <= 1.0:
        raise UsageError(
            f"{features}: expected FMA's published table, whose rmse/mean is above 1; its median is {scale:.3g}, so"
            " somebody computed it anew, and nothing says of which excerpt and at which rate; give the audio, or an"
            " .npz with the features of a stage of the base"
        )
    values[:, RMSE_COLUMNS] /= np.float32(RMSE_RATIO)
    notes = [f"left out: {unknown} tracks without a genre_top"] if unknown else []
    notes.append(
        f"warning: FMA's published features (the median of rmse/mean is {scale:.3g}): their rmse columns are"
        f" {RMSE_RATIO:.2f} times what this program computes, and were divided. They are of whole tracks at 44.1 kHz,"
        " and so the new bundle hears whole tracks. They come from librosa 0.5, whose chroma differs a little"
    )
    return Vectors(found, values, None, True, tuple(notes))


def _fma_labels(tracks: Path) -> dict[str, Labelled]:
    """By track id, those that have a genre_top."""
    with _table(tracks) as lines:
        columns = {names: i for i, names in enumerate(_header(lines, 2)) if i}
        missing = [name for name in (_GENRE, *_GROUPS.values()) if name not in columns]
        if _GENRE in missing or _GROUPS["artist"] in missing:
            raise UsageError(
                f"{tracks}: expected two header rows with the columns"
                f" {', '.join(map('/'.join, (_GENRE, *_GROUPS.values())))}; there is no {'/'.join(missing[0])}"
            )
        found = {}
        last = max(columns[name] for name in (_GENRE, *_GROUPS.values()) if name in columns)
        for number, line in enumerate(lines, start=3):
            if _is_index(line):
                continue
            if len(line) <= last:
                raise UsageError(f"{tracks}: row {number}: expected at least {last + 1} cells, got {len(line)}")
            if not line[columns[_GENRE]].strip():
                continue
            said = {key: line[columns[name]] for key, name in _GROUPS.items() if name in columns}
            belongs = belonging({key: value for key, value in said.items() if value not in ("-1", "-1.0")})
            found[line[0]] = Labelled(Path(line[0]), line[columns[_GENRE]].strip(), belongs)
    return found


def _header(lines: Iterator[list[str]], rows: int) -> list[tuple[str, ...]]:
    """The names of each column, from as many header rows."""
    heads = [next(lines, []) for _ in range(rows)]
    return list(zip(*heads, strict=False))


def _is_index(line: Sequence[str]) -> bool:
    """Empty, or the row that pandas writes below several header rows with the name of the index."""
    return not line or line[0] == "track_id"


def _order(columns: Sequence[str], path: Path) -> NDArray[np.intp]:
    """Where each of the runtime's features stands among ``columns``."""
    place = {name: i for i, name in enumerate(columns)}
    missing = [name for name in FEATURE_NAMES if name not in place]
    if missing or len(place) != len(columns):
        twice = [name for name in place if list(columns).count(name) > 1][:3]
        wrong = f"no {', '.join(missing[:3])}" if missing else f"twice {', '.join(twice)}"
        raise UsageError(
            f"{path}: expected the {len(FEATURE_NAMES)} features by name, such as {FEATURE_NAMES[0]}, each once; got"
            f" {len(columns)} columns, {printable(wrong)}"
        )
    return np.array([place[name] for name in FEATURE_NAMES], np.intp)


_UNREADABLE: Final = (
    OSError,
    ValueError,
    EOFError,
    AttributeError,
    MemoryError,
    OverflowError,
    RuntimeError,  # encrypted; NotImplementedError: an unknown compression
    zipfile.BadZipFile,
    zlib.error,
)


def _arrays(path: Path) -> Vectors:
    """An .npz with ``embeddings`` [n, k] and ``genre`` [n], or an .npy with a CSV of the same name beside it.

    The .npz may also have ``group``, ``artist``, ``album``, ``name`` [n], ``columns`` [k] and ``stage``.
    """
    archive = path.suffix == ".npz"
    try:
        # From memory: numpy leaves the file open where it is no archive. No pickle: an array may not bring code.
        with io.BytesIO(path.read_bytes()) as content:
            loaded: Any = np.load(content, allow_pickle=False)
            read = {name: np.asarray(loaded[name]) for name in loaded.files} if archive else {}
            rows = read["embeddings"] if archive else np.asarray(loaded)
    except KeyError as error:
        raise UsageError(f"{path}: expected the arrays embeddings [n, k] and genre [n], there is no {error}") from error
    except _UNREADABLE as error:
        raise UsageError(f"{path}: cannot be read as arrays without pickled objects ({error})") from error
    said = read if archive else _beside(path.with_suffix(".csv"))
    if rows.ndim != 2 or rows.dtype.kind not in "fiu" or not rows.size:
        raise UsageError(f"{path}: expected numbers [tracks, width], got {rows.dtype} {list(rows.shape)}")
    texts = {name: _texts(said[name], len(rows), name, path) for name in _TEXTS if name in said}
    if "genre" not in texts:
        raise UsageError(f"{path}: expected a genre of each track, there is none")
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
        values = rows.astype(np.float32)
    names = texts.get("name") or [f"row {i}" for i in range(len(rows))]
    columns = [f"column {i}" for i in range(rows.shape[1])]
    if "columns" in read:
        values = values[:, _order(_texts(read["columns"], rows.shape[1], "columns", path), path)]
        columns = list(FEATURE_NAMES)
    _require_finite(values, path, names, columns)
    tracks = [
        Labelled(
            Path(name), genre, belonging({key: texts[key][i] for key in ("group", "artist", "album") if key in texts})
        )
        for i, (name, genre) in enumerate(zip(names, texts["genre"], strict=True))
    ]
    if empty := [track for track in tracks if not track.genre]:
        raise UsageError(f"{path}: expected a genre of each track, {printable(str(empty[0].path))} has none")
    stage = str(read["stage"]) if "stage" in read and np.ndim(read["stage"]) == 0 else None
    return Vectors(tracks, values, stage, False, ())


_TEXTS: Final = ("genre", "group", "artist", "album", "name")


def _beside(table: Path) -> Mapping[str, NDArray[np.str_]]:
    """The columns of the labels beside an .npy, one row for each of its rows."""
    with _table(table) as lines:
        header = next(lines, [])
        rows = [line for line in lines if line]
    wrong = [number for number, line in enumerate(rows, start=2) if len(line) != len(header)]
    if wrong:
        raise UsageError(f"{table}: row {wrong[0]}: expected {len(header)} cells, as in the header")
    return {name: np.array([line[i] for line in rows], np.str_) for i, name in enumerate(header)}


def _texts(array: NDArray[Any], count: int, name: str, path: Path) -> list[str]:
    if array.ndim != 1 or len(array) != count or array.dtype.kind not in "Uiu":
        raise UsageError(f"{path}: {name}: expected texts [{count}], got {array.dtype} {list(array.shape)}")
    return [str(one).strip() for one in array.tolist()]


def _require_finite(rows: NDArray[np.float32], path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0].tolist()
        raise UsageError(
            f"{path}: {printable(names[row])}: {columns[column]} is not finite; mend the row, or leave it out"
        )


@contextmanager
def _table(path: Path) -> Iterator[Iterator[list[str]]]:
    """The rows of a CSV."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield csv.reader(stream)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as a CSV ({getattr(error, 'strerror', None) or error})") from error
