"""A stage: encoder + head. Samples of one excerpt in, calibrated probabilities over the genres out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends import Backend, Graph
from edge_reclass.bundle import Fma518Entry, WaveformEntry
from edge_reclass.errors import EngineError, TrackError
from edge_reclass.features import FEATURE_COUNT, Fma518
from edge_reclass.plan import Plan, StagePlan
from edge_reclass.shared_batches import SharedGraph, add_rows
from edge_reclass.verdict import Part
from edge_reclass.windows import ShortRule, fill_window, windows

__all__ = [
    "Encoder",
    "FeatureEncoder",
    "GraphEncoder",
    "Parts",
    "SharedEncoder",
    "Stage",
    "open_graph",
    "open_stage",
    "softmax",
]


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
    """Audio → one embedding for the whole excerpt (the mean over its windows)."""

    def encode(self, samples: NDArray[np.float32], rate: int, out: NDArray[np.float32], parts: Parts) -> None:
        """Write the embedding of ``samples`` (float32[n], mono, at ``rate`` Hz) into ``out`` (float32[dim]).

        ``parts`` is told what it took.
        """

    def close(self) -> None:
        """Release what the encoder holds."""


class GraphEncoder:
    """An encoder of kind ``waveform``: the excerpt's windows as batches through one graph, then their mean."""

    def __init__(self, graph: Graph, window: int, hop: int, short: ShortRule, dim: int) -> None:
        self._graph = graph
        self._window, self._hop, self._short = window, hop, short
        # Means of embeddings are taken in float64 and row after row, so that no batch size can be heard in them.
        self._total = np.zeros(dim, np.float64)

    def encode(self, samples: NDArray[np.float32], rate: int, out: NDArray[np.float32], parts: Parts) -> None:
        """See :meth:`Encoder.encode`."""
        starts = windows(len(samples), self._window, self._hop, self._short)
        _refuse_short(starts, len(samples), self._window, rate)
        rows = self._graph.input
        self._total.fill(0.0)
        for first in range(0, len(starts), len(rows)):
            began = time.perf_counter()
            batch = starts[first : first + len(rows)]
            for row, start in zip(rows, batch, strict=False):
                fill_window(samples, start, self._short, row)
            filled = time.perf_counter()
            embeddings = self._graph.run(len(batch))
            parts.add("fill", filled - began)
            parts.add("run", time.perf_counter() - filled)
            if (times := self._graph.device_times()) is not None:
                for name, seconds in times._asdict().items():
                    parts.add(name, seconds, "device")
            add_rows(self._total, embeddings)
        out[:] = self._total / len(starts)

    def close(self) -> None:
        """See :meth:`Encoder.close`."""
        self._graph.close()


class SharedEncoder:
    """As :class:`GraphEncoder`, through a graph that takes windows of several tracks at a time."""

    def __init__(self, graph: SharedGraph, window: int, hop: int, short: ShortRule, dim: int) -> None:
        self._graph = graph
        self._window, self._hop, self._short = window, hop, short
        self._total = np.zeros(dim, np.float64)

    def encode(self, samples: NDArray[np.float32], rate: int, out: NDArray[np.float32], parts: Parts) -> None:
        """See :meth:`Encoder.encode`."""
        starts = windows(len(samples), self._window, self._hop, self._short)
        _refuse_short(starts, len(samples), self._window, rate)
        began = time.perf_counter()
        self._graph.add_embeddings(samples, starts, self._short, self._total)
        parts.add("batch", time.perf_counter() - began)
        out[:] = self._total / len(starts)

    def close(self) -> None:
        """The graph belongs to whoever shares it out."""


class FeatureEncoder:
    """An encoder of kind ``fma518``: the hand-crafted features of the whole excerpt, or their mean over windows."""

    def __init__(self, features: Fma518, window: int | None, hop: int | None, short: ShortRule) -> None:
        self._features = features
        self._window, self._hop, self._short = window, hop, short
        self._row = np.empty(window or 0, np.float32)
        self._vector = np.empty(FEATURE_COUNT, np.float32)

    def encode(self, samples: NDArray[np.float32], rate: int, out: NDArray[np.float32], parts: Parts) -> None:
        """See :meth:`Encoder.encode`."""
        began = time.perf_counter()
        self._compute(samples, rate, out)
        parts.add("features", time.perf_counter() - began)

    def _compute(self, samples: NDArray[np.float32], rate: int, out: NDArray[np.float32]) -> None:
        if self._window is None or self._hop is None:
            self._features.compute(samples, rate, out)
            return
        starts = windows(len(samples), self._window, self._hop, self._short)
        _refuse_short(starts, len(samples), self._window, rate)
        total = np.zeros(len(out), np.float64)
        for start in starts:
            row = samples[start : start + self._window]
            if len(row) < self._window:
                fill_window(samples, start, self._short, self._row)
                row = self._row
            total += self._features.compute(row, rate, self._vector)
        out[:] = total / len(starts)

    def close(self) -> None:
        """See :meth:`Encoder.close`."""
        self._features.close()


def _refuse_short(starts: tuple[int, ...], n: int, window: int, rate: int) -> None:
    if not starts:
        raise TrackError("too_short", f"expected at least one window of {window / rate:.2f} s, got {n / rate:.2f} s")


class Stage:
    """One opened stage: an encoder, and a head on its own embedding and, if it says so, on earlier ones."""

    def __init__(self, plan: StagePlan, encoder: Encoder, head: Graph) -> None:
        self.plan = plan
        self._encoder = encoder
        self._head = head

    @property
    def name(self) -> str:
        return self.plan.name

    def answer(
        self, samples: NDArray[np.float32], rate: int, embeddings: Mapping[str, NDArray[np.float32]], parts: Parts
    ) -> tuple[float, ...]:
        """Probabilities over the genres for one excerpt.

        Args:
            samples: float32[n], mono, at ``rate`` Hz.
            embeddings: the workspace's embeddings by stage; this stage's is overwritten, those of the stages that
                the head names must hold this track's values.
            parts: is told what encoder and head took.

        Raises:
            TrackError: the excerpt is shorter than a window and the stage rejects that (``too_short``).
            EngineError: encoder or head failed or gave numbers that are not finite.
        """
        self._encoder.encode(samples, rate, embeddings[self.name], parts)
        began = time.perf_counter()
        row = self._head.input[0]
        position = 0
        for name in self.plan.head_inputs:
            embedding = embeddings[name]
            row[position : position + len(embedding)] = embedding
            position += len(embedding)
        if not np.isfinite(row).all():
            raise EngineError(f"stage {self.name}: the embedding has values that are not finite")
        logits = self._head.run(1)[0]
        if not np.isfinite(logits).all():
            raise EngineError(f"stage {self.name}: the head gave logits that are not finite")
        probabilities = softmax(logits, self.plan.temperature)
        parts.add("head", time.perf_counter() - began)
        return probabilities

    def close(self) -> None:
        """Release encoder and head."""
        self._encoder.close()
        self._head.close()


def softmax(logits: NDArray[np.float32], temperature: float) -> tuple[float, ...]:
    """exp(z/T) / Σ exp(z/T) of ``logits`` (float32[classes]) in float64."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max()
    np.exp(scaled, out=scaled)
    return tuple((scaled / scaled.sum()).tolist())


def open_stage(
    plan: Plan, stage: StagePlan, backend: Backend, heads: Backend, *, threads: int, shared: SharedGraph | None = None
) -> Stage:
    """Open encoder (on ``backend``, or on a ``shared`` graph) and head (on ``heads``) of one stage.

    Raises:
        EngineError: a file cannot be opened, or its shapes do not fit the manifest.
    """
    entry = stage.encoder
    encoder: Encoder
    if isinstance(entry, Fma518Entry):
        max_rate = plan.max_rate if stage.signal.rate is None else stage.signal.rate
        capacity = plan.decode_samples if stage.signal.rate is None else plan.signals[stage.signal]
        max_samples = capacity if entry.window_samples is None else entry.window_samples
        # More than two threads find nothing to do in one excerpt.
        features = Fma518(max_samples, max_rate, workers=min(threads, 2))
        encoder = FeatureEncoder(features, entry.window_samples, entry.hop_samples, entry.short)
    else:
        rule = (entry.window_samples, entry.hop_samples, entry.short, entry.dim)
        encoder = SharedEncoder(shared, *rule) if shared else GraphEncoder(open_graph(stage, backend), *rule)
    try:
        head = heads.open_graph(
            stage.head,
            input_name="features",
            output_name="logits",
            width=stage.head_width,
            output_width=len(plan.genres),
            max_batch=1,
        )
    except BaseException:
        encoder.close()
        raise
    return Stage(stage, encoder, head)


def open_graph(stage: StagePlan, backend: Backend) -> Graph:
    """The graph of a stage whose encoder is of kind ``waveform``.

    Raises:
        EngineError: it cannot be opened, or its shapes do not fit the manifest.
    """
    entry = stage.encoder
    if stage.graph is None or not isinstance(entry, WaveformEntry):
        raise EngineError(f"stage {stage.name}: the plan names no graph for a waveform encoder")
    return backend.open_graph(
        stage.graph,
        input_name="waveform",
        output_name="embedding",
        width=entry.window_samples,
        output_width=entry.dim,
        max_batch=stage.max_batch,
    )
