"""How much new genres are held back, so that few tracks that the base remembers lose their genre to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass_learn.fit.heads import Array, Head
from edge_reclass_learn.fit.trees import TreesHead
from edge_reclass_learn.hearing.examples import Example

AnyHead = Head | TreesHead

TAKEN: Final = 0.005
"""Share of the remembered tracks that new genres may take from the right one, in each stage."""


def new_genres(examples: Sequence[Example], genres: Sequence[str]) -> NDArray[np.bool_]:
    """Which genres no remembered track has, bool[genres]; none where nothing is remembered."""
    known = {example.genre for example in examples if example.remembered}
    return np.array([bool(known) and genre not in known for genre in genres], np.bool_)


def held_back(logits: Array, labels: NDArray[np.intp], remembered: NDArray[np.bool_], new: NDArray[np.bool_]) -> float:
    """The least that has to be taken off the logits of new genres.

    With it, of the remembered tracks that are right among the old genres, new ones take at most TAKEN of all.

    Args:
        logits: float64[n, genres], out of fold
        labels: intp[n]
        remembered: bool[n]
        new: bool[genres]
    """
    if not new.any():
        return 0.0
    mine = logits[remembered]
    old = np.where(new, -np.inf, mine)
    right = old.argmax(axis=1) == labels[remembered]
    lead = np.sort((mine[:, new].max(axis=1) - old.max(axis=1))[right])[::-1]
    allowed = int(TAKEN * len(mine))
    return max(0.0, float(lead[allowed])) if allowed < len(lead) else 0.0


def hold_back(head: AnyHead, amount: float, new: NDArray[np.bool_]) -> Head:
    """``head`` with so much less for the new genres, which only logistic heads can add."""
    if not isinstance(head, Head):
        raise TypeError(f"expected a logistic head, got {type(head).__name__}")
    return replace(head, layer=replace(head.layer, bias=head.layer.bias - amount * new))
