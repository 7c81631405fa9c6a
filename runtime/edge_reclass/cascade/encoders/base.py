"""What an encoder is, and what it is opened with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_reclass.errors import EngineError
from edge_reclass.verdict import Part

if TYPE_CHECKING:
    from edge_reclass.backends import Backend, Graph
    from edge_reclass.cascade.plan import Plan, StagePlan
    from edge_reclass.cascade.shared_batches import SharedGraph


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


class Encoder(Protocol):
    """Audio → one embedding for the whole excerpt (the mean over its audible windows)."""

    def encode(
        self,
        samples: NDArray[np.float32],
        rate: int,
        out: NDArray[np.float32],
        parts: Parts,
        *,
        upto: Sequence[int] = (),
        anyway: bool = False,
    ) -> Iterator[int]:
        """Write the embedding of ``samples`` (float32[n], mono, at ``rate`` Hz) into ``out`` (float32[dim]).

        Work is done as the iterator is advanced: after each count of windows in ``upto`` that is less than all, and
        after all of them, ``out`` holds the mean so far and the number of windows is given. Where no window holds any
        sound, nothing is given and ``out`` stays as it is; or, with ``anyway``, it gets the embedding of silence, and 0
        is given. The durations of the parts are added to ``parts``.

        Raises:
            TrackError: ``too_short``: less than one window, and the encoder rejects that.
            EngineError: the graph failed.
        """

    def close(self) -> None:
        """Release what the encoder holds."""


@dataclass(frozen=True)
class OpenRequest:
    """What an encoder may need to be opened.

    ``shared``: the stage's graph, where several lanes use one; it stays open. ``threads``: of one track's work.
    """

    plan: Plan
    stage: StagePlan
    backend: Backend
    threads: int
    shared: SharedGraph | None = None


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
