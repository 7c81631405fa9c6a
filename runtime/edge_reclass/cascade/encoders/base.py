"""What an encoder is, and what it is opened with."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_reclass.errors import EngineError
from edge_reclass.verdict import Part

_CHEAP = 1.25
"""How much dearer than one window a batch may be: about every second track goes on after its first window."""

if TYPE_CHECKING:
    from edge_reclass.backends import Backend, Graph
    from edge_reclass.cascade.plan import Plan, StagePlan
    from edge_reclass.cascade.shared_batches import SharedGraph
    from edge_reclass.cascade.sound import Sound


class Parts:
    """Sums up what the parts of one stage's work on one track take."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, Literal["host", "device"]], float] = {}

    def add(self, name: str, seconds: float, clock: Literal["host", "device"] = "host") -> None:
        """Count ``seconds`` more for the part ``name``."""
        self._seconds[name, clock] = self._seconds.get((name, clock), 0.0) + seconds

    def taken(self) -> tuple[Part, ...]:
        """The parts, in the order in which they were first met."""
        return tuple(Part(name, seconds * 1e3, clock) for (name, clock), seconds in self._seconds.items())


@dataclass(frozen=True)
class Progress:
    """How many windows an embedding is the mean of, of as many as the excerpt has; ``complete``: no more follow.

    Where ``complete`` with 0 windows heard, all of them are silent or damaged.
    """

    heard: int
    of: int
    complete: bool = True


class Encoder(Protocol):
    """Audio → one embedding for the whole excerpt (the mean over its audible windows)."""

    def encode(
        self,
        sound: Sound,
        out: NDArray[np.float32],
        parts: Parts,
        *,
        upto: Sequence[int] = (),
        anyway: bool = False,
    ) -> Iterator[Progress]:
        """Write the embedding of ``sound`` into ``out`` (float32[dim]).

        Work is done as the iterator is advanced: after each count of windows in ``upto`` (ascending) before the
        excerpt's last window, and after all of them, ``out`` holds the mean so far, and how far it has come is given.
        Silent and damaged windows are not heard. Where no window is left, ``out`` stays as it is, or, with ``anyway``,
        gets the embedding of silence. The durations of the parts are added to ``parts``.

        Raises:
            TrackError: ``too_short``: less than one window, and the encoder rejects that; ``unreadable``: the file
                cannot be read on.
            EngineError: the graph failed.
        """

    def close(self) -> None:
        """Release what the encoder holds."""


@dataclass(frozen=True)
class OpenRequest:
    """What an encoder may need to be opened.

    ``backend``: None where no encoder with a graph is opened. ``shared``: the stage's graph, where several lanes use
    one; it stays open. ``threads``: of one track's work.
    """

    plan: Plan
    stage: StagePlan
    backend: Backend | None
    threads: int
    shared: SharedGraph | None = None


def is_cheap_ahead(graph: Graph, windows: int) -> bool:
    """True if a batch of ``windows`` takes hardly longer than one window, as measured here.

    Then all of them are computed at once where the policy may stop after fewer.
    """
    if not 1 < windows <= len(graph.input):
        return False
    graph.input[:windows] = 0.0
    taken = {1: math.inf, windows: math.inf}
    for batch in (1, windows) * 4:
        began = time.perf_counter()
        graph.run(batch)
        taken[batch] = min(taken[batch], time.perf_counter() - began)
    return taken[windows] <= _CHEAP * taken[1]


def open_graph(stage: StagePlan, backend: Backend) -> Graph:
    """The graph of one stage's encoder.

    Raises:
        EngineError: the file cannot be opened, or its shapes do not fit the manifest.
    """
    entry = stage.encoder
    if stage.graph is None or entry.window_samples is None:
        raise EngineError(f"stage {stage.name}: its encoder has no graph")
    return backend.open_graph(
        stage.graph,
        input_name="waveform",
        output_name="embedding",
        width=entry.window_samples,
        output_width=entry.dim,
        max_batch=stage.max_batch,
    )
