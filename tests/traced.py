"""What a call allocates, as tracemalloc counts it.

What a call needs, it allocates in every run. What the interpreter does once by the way shows in one run only: CPython
keeps all interned strings in one table, and whoever puts the string into it that no longer fits pays for a larger one
(5.2 MB where the whole suite is loaded); and a thread of another test may end meanwhile. So tests look at the least
of some runs.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import NamedTuple


class Traced(NamedTuple):
    """Bytes of every run."""

    peaks: list[int]
    """Most that was allocated at a time, above what there was before."""
    kept: list[int]
    """What was still allocated afterwards."""


def traced(call: Callable[[], object], runs: int = 3) -> Traced:
    """Call ``call`` some times; what it returns lives until it has been measured."""
    found = Traced([], [])
    for _ in range(runs):
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            result = call()
            after, peak = tracemalloc.get_traced_memory()
            del result
        finally:
            tracemalloc.stop()
        found.peaks.append(peak - before)
        found.kept.append(after - before)
    return found
