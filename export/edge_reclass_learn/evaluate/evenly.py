"""Some of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Value = TypeVar("Value")


def evenly(values: Sequence[Value], most: int) -> list[Value]:
    """At most ``most`` of the values, evenly apart, with the first and the last of them."""
    places = np.unique(np.linspace(0, len(values) - 1, min(len(values), most)).round().astype(np.intp))
    return [values[place] for place in places.tolist()]
