"""Accuracy by what files are: length, sampling rate, bit rate, loudness, type, source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import Final

import numpy as np

from edge_reclass_learn.evaluate.intervals import Flags, share_of
from edge_reclass_learn.evaluate.record import Breakdown, Slice
from edge_reclass_learn.hearing.examples import Example, Facts

_NUMBERS: Final[tuple[tuple[str, str, Callable[[Facts], float], tuple[float, ...]], ...]] = (
    ("length", "s", lambda facts: facts.seconds, (5, 10, 20, 30, 60, 300)),
    ("loudness", "dBFS", lambda facts: facts.level, (-35, -30, -25, -20, -15, -10)),
    ("bit rate", "kbit/s", lambda facts: facts.kilobits, (64, 128, 192, 320)),
)
"""Name, unit, what it is of a file, and the edges of its bins: a value on an edge is in the bin above."""


def breakdowns(examples: Sequence[Example], right: Flags) -> list[Breakdown]:
    """Accuracy by each of these that is known of a track. ``right``: whether each is found, bool[n].

    Length, loudness (of the middle 10 s) and rates are of the file; the type is the end of its name.
    """
    found = []
    for name, unit, value, edges in _NUMBERS:
        own = [None if one.facts is None else int(np.digitize(value(one.facts), edges)) for one in examples]
        found.append(_breakdown(name, own, _bin_names(edges, unit), right))
    rates = [None if one.facts is None else one.facts.rate for one in examples]
    every = sorted({rate for rate in rates if rate is not None})
    found.append(
        _breakdown(
            "sampling rate",
            [None if rate is None else every.index(rate) for rate in rates],
            [f"{rate:g} Hz" for rate in every],
            right,
        )
    )
    for name, texts in (
        ("file type", [PurePath(one.name).suffix[1:].lower() or None for one in examples]),
        ("source", [one.source for one in examples]),
    ):
        names = sorted({text for text in texts if text is not None})
        found.append(_breakdown(name, [None if text is None else names.index(text) for text in texts], names, right))
    return [one for one in found if one.slices]


def _bin_names(edges: Sequence[float], unit: str) -> list[str]:
    middle = [f"{low:g} to {high:g} {unit}" for low, high in pairwise(edges)]
    return [f"below {edges[0]:g} {unit}", *middle, f"{edges[-1]:g} {unit} and more"]


def _breakdown(name: str, places: Sequence[int | None], names: Sequence[str], right: Flags) -> Breakdown:
    """``places``: the number of each track's slice; None where it is not known."""

    def slices() -> Iterator[Slice]:
        for number, text in enumerate(names):
            own = np.array([place == number for place in places])
            if own.any():
                yield Slice(value=text, tracks=int(own.sum()), accuracy=share_of(right[own]))

    return Breakdown(name=name, slices=list(slices()), unknown=sum(place is None for place in places))
