"""What a bundle keeps of the tracks that its heads were fitted on: some embeddings of each genre, no audio.

With it, a genre can be added or corrected without the audio of the others. ``memory/embeddings.npz`` holds an array
``stage.NAME`` float16[n, dim] per stage, ``genre`` int16[n] (numbers of the bundle's genres) and ``group`` int32[n].
``sounds`` uint64[m] are short digests of the audio that the heads were fitted on, so that nobody judges the heads by
these tracks; it may be missing. Tracks whose audio was not there are counted by ``unknown_sounds``.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass import Bundle
from edge_reclass.bundle import read_arrays
from edge_reclass.errors import BundleError
from edge_reclass_learn.hearing.examples import Example
from edge_reclass_learn.hearing.hear import at_every_count
from edge_reclass_learn.hearing.listening import Listening

FILE: Final = "memory/embeddings.npz"
MOST: Final = 40
"""Tracks that are kept of each genre."""
_LARGEST: Final = float(np.finfo(np.float16).max)


def chosen(genres: Sequence[str], groups: Sequence[str]) -> list[int]:
    """Numbers of the tracks to keep: MOST of each genre, from as many groups as there are."""
    random = np.random.default_rng(0)
    found = []
    for genre in sorted(set(genres)):
        own = [i for i, one in enumerate(genres) if one == genre]
        turn: dict[str, int] = {}
        ranked = []
        for i in random.permutation(own).tolist():
            turn[groups[i]] = turn.get(groups[i], 0) + 1
            ranked.append((turn[groups[i]], i))
        found += [i for _, i in sorted(ranked, key=lambda one: one[0])[:MOST]]
    return sorted(found)


def packed(
    vectors: Mapping[str, NDArray[np.floating]],
    genres: Sequence[str],
    groups: Sequence[str],
    names: Sequence[str],
    sounds: Collection[int] | None = None,
) -> bytes:
    """The file of some tracks.

    Args:
        vectors: float[n, dim] by stage
        genres, groups: of the tracks
        names: the bundle's genres
        sounds: digests (``short``) of all tracks that the heads were fitted on; None where they are not known
    """
    arrays: dict[str, NDArray[Any]] = {
        f"stage.{stage}": np.clip(found, -_LARGEST, _LARGEST).astype("<f2") for stage, found in vectors.items()
    }
    arrays["genre"] = np.array([names.index(genre) for genre in genres], "<i2")
    arrays["group"] = np.unique(np.asarray(groups), return_inverse=True)[1].astype("<i4")
    if sounds is not None:
        arrays["sounds"] = np.array(sorted(sounds), "<u8")
    with io.BytesIO() as out:
        np.savez_compressed(out, **arrays)  # type: ignore[arg-type]  # no name is one of its options
        return out.getvalue()


def short(sound: bytes) -> int:
    """The digest of a sound that a bundle keeps: 64 bits."""
    return int.from_bytes(hashlib.blake2b(sound, digest_size=8).digest(), "little")


def remember(
    examples: Sequence[Example], heard: Listening, names: Sequence[str], before: Collection[int] = ()
) -> bytes:
    """The file of some of the examples, as each stage hears them under the default policy at last.

    ``before``: digests of the tracks that remembered examples stand for.
    """
    sounds = {short(one.sound) for one in examples if one.sound} | set(before)
    some = [examples[i] for i in chosen([one.genre for one in examples], [one.group for one in examples])]
    vectors = {stage: np.stack([one.embeddings[stage, count] for one in some]) for stage, count in heard.usual.items()}
    return packed(vectors, [one.genre for one in some], [one.group for one in some], names, sounds)


def recall(bundle: Bundle, heard: Listening) -> list[Example]:
    """The tracks that ``bundle`` remembers; none where it has no such file, or one that lacks a stage.

    Raises:
        BundleError: the file is not as it has to be.
    """
    if FILE not in bundle.manifest.files:
        return []
    arrays = _read(bundle)
    genres = bundle.manifest.genres
    if any(f"stage.{stage}" not in arrays for stage in heard.inputs):
        return []
    try:
        genre, group = arrays["genre"], arrays["group"]
        vectors = {stage: arrays[f"stage.{stage}"] for stage in heard.inputs}
    except KeyError as error:
        raise BundleError(f"{bundle.root / FILE}: expected an array {error}; fit or export the bundle again") from error
    dims = {stage: bundle.manifest.stage(stage).encoder.dim for stage in heard.inputs}
    for name, array in {"genre": genre, "group": group}.items():
        if array.ndim != 1 or array.dtype.kind != "i" or len(array) != len(genre):
            raise BundleError(f"{bundle.root / FILE}: {name}: expected whole numbers [{len(genre)}]")
    for stage, array in vectors.items():
        if array.shape != (len(genre), dims[stage]) or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise BundleError(
                f"{bundle.root / FILE}: {stage}: expected finite numbers [{len(genre)}, {dims[stage]}], got"
                f" {array.dtype} {list(array.shape)}"
            )
    if len(genre) and not (genre.min() >= 0 and genre.max() < len(genres)):
        raise BundleError(f"{bundle.root / FILE}: expected genres from 0 to {len(genres) - 1}")
    return [
        Example(
            f"remembered {i}",
            genres[int(genre[i])],
            f"remembered {int(group[i])}",
            at_every_count({stage: array[i].astype(np.float32) for stage, array in vectors.items()}, heard),
            {},
            remembered=True,
        )
        for i in range(len(genre))
    ]


def fitted_sounds(bundle: Bundle) -> frozenset[int]:
    """Digests of the tracks that the bundle says it was fitted on; none where it does not say.

    Raises:
        BundleError: the file is not as it has to be.
    """
    if FILE not in bundle.manifest.files:
        return frozenset()
    found = _read(bundle).get("sounds", np.empty(0, "<u8"))
    if found.ndim != 1 or found.dtype.kind != "u":
        raise BundleError(f"{bundle.root / FILE}: sounds: expected whole numbers [n], got {found.dtype}")
    return frozenset(found.tolist())


def unknown_sounds(bundle: Bundle) -> int:
    """How many tracks ``edge-reclass fit`` had no audio of: ``fitted_sounds`` says nothing of them."""
    told = bundle.manifest.provenance.get("fit")
    count = told.get("sounds_unknown", 0) if isinstance(told, dict) else 0
    return count if isinstance(count, int) else 0


def _read(bundle: Bundle) -> dict[str, NDArray[Any]]:
    path = bundle.root / FILE
    try:
        return read_arrays(bundle.path(FILE).read_bytes(), path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error
    except BundleError as error:
        raise BundleError(f"{path}: expected the arrays of a memory; fit or export the bundle again") from error
