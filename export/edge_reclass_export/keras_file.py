"""Reads the tensors of a Keras weights file (HDF5), without Keras.

h5py reads the format, because Keras wrote it in several layouts over the years. What an HDF5 file may point to
elsewhere is never followed: soft and external links, data in other files, virtual datasets.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from edge_reclass_export.errors import CheckpointError

_MOST_ENTRIES = 10_000
_MOST_DEPTH = 16
_MOST_VALUES = 1 << 24


def read_keras_weights(path: Path) -> dict[str, NDArray[np.float64]]:
    """Every dataset of floating-point numbers by its full name, e.g. ``dense/dense/kernel:0``, as float64.

    Raises:
        CheckpointError: the file is no HDF5 file, truncated or damaged, or holds something else than tensors.
    """
    try:
        with h5py.File(path, "r") as file:
            found: dict[str, NDArray[np.float64]] = {}
            for name, dataset in _datasets(path, file):
                found[name] = _values(path, name, dataset)
                if sum(values.size for values in found.values()) > _MOST_VALUES:  # several names may share one dataset
                    raise CheckpointError(f"{path}: no YAMNet: more than {_MOST_VALUES} numbers in all")
            return found
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: is truncated, damaged or no HDF5 file: {error}") from error


def _datasets(path: Path, file: Any) -> Iterator[tuple[str, Any]]:
    """Name and dataset of all that hard links lead to."""
    open_groups = [("", file)]
    seen = 0
    while open_groups:
        prefix, group = open_groups.pop()
        for key in group:
            name = f"{prefix}{key}"
            seen += 1
            if seen > _MOST_ENTRIES or name.count("/") > _MOST_DEPTH:
                raise CheckpointError(
                    f"{path}: no file of weights: more than {_MOST_ENTRIES} entries or deeper than {_MOST_DEPTH} groups"
                )
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise CheckpointError(
                    f"{path}: {name} is a link to elsewhere, which is not followed; expected a tensor"
                )
            entry = group[key]
            if isinstance(entry, h5py.Group):
                open_groups.append((name + "/", entry))
            elif isinstance(entry, h5py.Dataset):
                yield name, entry


def _values(path: Path, name: str, dataset: Any) -> NDArray[np.float64]:
    if dataset.is_virtual or dataset.external:
        raise CheckpointError(f"{path}: {name} lies in another file, which is not read; expected a tensor in this one")
    if dataset.dtype.kind != "f" or dataset.size is None or dataset.size > _MOST_VALUES:
        raise CheckpointError(
            f"{path}: {name}: expected at most {_MOST_VALUES} floating-point numbers, got {dataset.dtype}"
            f" {list(dataset.shape or ())}"
        )
    with np.errstate(invalid="ignore", over="ignore"):  # of NaN, which is refused below
        values: NDArray[np.float64] = dataset[()].astype(np.float64)
    if not (np.abs(values) <= np.finfo(np.float32).max).all():
        raise CheckpointError(f"{path}: {name} holds NaN, infinity or values that do not fit float32")
    return values
