"""A stage: encoder + head. Samples of one excerpt in, calibrated probabilities over the genres out."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio.loudness import Level, level, normalise
from edge_reclass.backends import Backend, Graph
from edge_reclass.bundle.manifest import Fma518Entry, WaveformEntry
from edge_reclass.cascade.plan import Plan, StagePlan
from edge_reclass.cascade.shared_batches import Fill, SharedGraph, add_rows
from edge_reclass.cascade.windowing import ShortRule, fill_window, windows
from edge_reclass.errors import EngineError, TrackError
from edge_reclass.features import FEATURE_COUNT, Fma518
from edge_reclass.verdict import Part

__all__ = [
    "Encoder",
    "ExcerptFeatureEncoder",
    "FeatureEncoder",
    "GraphEncoder",
    "Heard",
    "Parts",
    "SharedEncoder",
    "Stage",
    "Windows",
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
    """Audio → one embedding for the whole excerpt (the mean over its audible windows)."""

    def encode(
        self, samples: NDArray[np.float32], rate: int, out: NDArray[np.float32], parts: Parts, *, anyway: bool = False
    ) -> bool:
        """Write the embedding of ``samples`` (float32[n], mono, at ``rate`` Hz) into ``out`` (float32[dim]).

        Returns False where no window holds any sound: ``out`` is then untouched, or, with ``anyway``, the embedding
        of silence. The durations of the parts are added to ``parts``.
        """

    def close(self) -> None:
        """Release what the encoder holds."""


@dataclass(frozen=True)
class Windows:
    """How an encoder's windows lie in an excerpt, and at what loudness it hears them.

    Loudness, offset and silence are those of each window alone, so that no embedding depends on audio outside of the
    windows that it is the mean of.
    """

    window: int
    hop: int
    short: ShortRule
    loudness: float | None

    def choose(self, samples: NDArray[np.float32], rate: int, *, anyway: bool = False) -> tuple[list[Fill], bool]:
        """The windows with sound in them, each as a function that writes it, and whether there is any.

        Where there is none, ``anyway`` gives the first window all the same.

        Raises:
            TrackError: ``too_short``: less than one window, and the encoder rejects that.
        """
        starts = windows(len(samples), self.window, self.hop, self.short)
        if not starts:
            got, needed = len(samples) / rate, self.window / rate
            raise TrackError("too_short", f"expected at least one window of {needed:.2f} s, got {got:.2f} s")
        found = [(start, level(samples[start : start + self.window], rate)) for start in starts]
        heard = [(start, its) for start, its in found if not its.silent]
        chosen = heard or (found[:1] if anyway else [])
        return [partial(self._fill, samples, start, its) for start, its in chosen], bool(heard)

    def _fill(self, samples: NDArray[np.float32], start: int, found: Level, row: NDArray[np.float32]) -> None:
        fill_window(samples, start, self.short, row)
        if self.loudness is not None:
            normalise(row, found, self.loudness)


class GraphEncoder:
    """An encoder of kind ``waveform``: the excerpt's windows as batches through one graph, then their mean."""

    def __init__(self, graph: Graph, rule: Windows, dim: int) -> None:
        self._graph = graph
        self._rule = rule
        # Means of embeddings are taken in float64 and row after row, so that no batch size can be heard in them.
        self._total = np.zeros(dim, np.float64)

    def encode(
        self, samples: NDArray[np.float32], rate: int, out: NDArray[np.float32], parts: Parts, *, anyway: bool = False
    ) -> bool:
        """See :meth:`Encoder.encode`."""
        began = time.perf_counter()
        fills, heard = self._rule.choose(samples, rate, anyway=anyway)
        rows = self._graph.input
        self._total.fill(0.0)
        for first in range(0, len(fills), len(rows)):
            batch = fills[first : first + len(rows)]
            for row, fill in zip(rows, batch, strict=False):
                fill(row)
            filled = time.perf_counter()
            embeddings = self._graph.run(len(batch))
            parts.add("fill", filled - began)
            began = time.perf_counter()
            parts.add("run", began - filled)
            if (times := self._graph.device_times()) is not None:
                for name, seconds in times._asdict().items():
                    parts.add(name, seconds, "device")
            add_rows(self._total, embeddings)
        if fills:
            out[:] = self._total / len(fills)
        return heard

    def close(self) -> None:
        """See :meth:`Encoder.close`."""
        self._graph.close()


class SharedEncoder:
    """As :class:`GraphEncoder`, through a graph that takes windows of several tracks at a time."""

    def __init__(self, graph: SharedGraph, rule: Windows, dim: int) -> None:
        self._graph = graph
        self._rule = rule
        self._total = np.zeros(dim, np.float64)

    def encode(
        self, samples: NDArray[np.float32], rate: int, out: NDArray[np.float32], parts: Parts, *, anyway: bool = False
    ) -> bool:
        """See :meth:`Encoder.encode`."""
        began = time.perf_counter()
        fills, heard = self._rule.choose(samples, rate, anyway=anyway)
        if fills:
            self._graph.add_embeddings(fills, self._total)
            out[:] = self._total / len(fills)
        parts.add("batch", time.perf_counter() - began)
        return heard

    def close(self) -> None:
        """The graph belongs to whoever shares it out."""


class FeatureEncoder:
    """An encoder of kind ``fma518``: the mean of the hand-crafted features over the excerpt's windows."""

    def __init__(self, features: Fma518, rule: Windows) -> None:
        self._features = features
        self._rule = rule
        self._row = np.empty(rule.window, np.float32)
        self._vector = np.empty(FEATURE_COUNT, np.float32)

    def encode(
        self, samples: NDArray[np.float32], rate: int, out: NDArray[np.float32], parts: Parts, *, anyway: bool = False
    ) -> bool:
        """See :meth:`Encoder.encode`."""
        began = time.perf_counter()
        fills, heard = self._rule.choose(samples, rate, anyway=anyway)
        total = np.zeros(len(out), np.float64)
        for fill in fills:
            fill(self._row)
            total += self._features.compute(self._row, rate, self._vector)
        if fills:
            out[:] = total / len(fills)
        parts.add("features", time.perf_counter() - began)
        return heard

    def close(self) -> None:
        """See :meth:`Encoder.close`."""
        self._features.close()


class ExcerptFeatureEncoder:
    """An encoder of kind ``fma518``: the hand-crafted features of the whole excerpt at once."""

    def __init__(self, features: Fma518, loudness: float | None) -> None:
        self._features = features
        self._loudness = loudness
        # Pages of an empty array are only handed out where they are used.
        self._copy = np.empty(0 if loudness is None else features.max_samples, np.float32)

    def encode(
        self, samples: NDArray[np.float32], rate: int, out: NDArray[np.float32], parts: Parts, *, anyway: bool = False
    ) -> bool:
        """See :meth:`Encoder.encode`."""
        began = time.perf_counter()
        found = level(samples, rate)
        if found.silent and not anyway:
            return False
        if self._loudness is not None:
            copy = self._copy[: len(samples)]
            copy[:] = samples
            normalise(copy, found, self._loudness)
            samples = copy
        self._features.compute(samples, rate, out)
        parts.add("features", time.perf_counter() - began)
        return not found.silent

    def close(self) -> None:
        """See :meth:`Encoder.close`."""
        self._features.close()


@dataclass(frozen=True)
class Heard:
    """What a stage says of one excerpt: probabilities over the genres, and the distance from what it was fitted on.

    ``outside``: what was heard lies outside of what the head was fitted on, or an embedding that the head takes is one
    of silence. ``distance`` is a multiple of the range test's limit; None where there is no test, or no number.
    """

    probabilities: tuple[float, ...]
    outside: bool
    distance: float | None


class Stage:
    """One opened stage: an encoder, and a head on its own embedding and, if it says so, on earlier ones."""

    def __init__(self, plan: StagePlan, encoder: Encoder, head: Graph, test: Graph | None = None) -> None:
        self.plan = plan
        self._encoder = encoder
        self._head = head
        self._test = test

    @property
    def name(self) -> str:
        return self.plan.name

    def answer(
        self,
        samples: NDArray[np.float32],
        rate: int,
        embeddings: Mapping[str, NDArray[np.float32]],
        parts: Parts,
        silent: Collection[str] = (),
    ) -> Heard | None:
        """What the stage says of one excerpt; None if no window of it holds any sound.

        Args:
            samples: float32[n], mono, at ``rate`` Hz.
            embeddings: the workspace's embeddings by stage; this stage's is overwritten (with that of silence, if it
                heard nothing else and a later head needs it), those of the stages that the head names must hold this
                track's values.
            parts: the durations of encoder and head are added to it.
            silent: earlier stages whose embedding is that of silence.

        Raises:
            TrackError: the excerpt is shorter than a window and the stage rejects that (``too_short``).
            EngineError: encoder or head failed or gave numbers that are not finite.
        """
        plan = self.plan
        if not self._encoder.encode(samples, rate, embeddings[self.name], parts, anyway=plan.needed_later):
            return None
        began = time.perf_counter()
        row = _gather(self._head, plan.head_inputs, embeddings)
        if not np.isfinite(row).all():
            raise EngineError(f"stage {self.name}: the embedding has values that are not finite")
        logits = self._head.run(1)[0]
        if not np.isfinite(logits).all():
            raise EngineError(f"stage {self.name}: the head gave logits that are not finite")
        probabilities = softmax(logits, plan.temperature)
        outside, distance = any(name in silent for name in plan.head_inputs), None
        if not outside and self._test is not None and plan.range is not None:
            _gather(self._test, plan.range.inputs, embeddings)
            found = float(self._test.run(1)[0, 0]) / plan.range.limit
            # What is not a number is no proof of being inside.
            outside, distance = not found <= 1.0, found if math.isfinite(found) else None
        parts.add("head", time.perf_counter() - began)
        return Heard(probabilities, outside, distance)

    def close(self) -> None:
        """Release encoder, head and range test."""
        self._encoder.close()
        self._head.close()
        if self._test is not None:
            self._test.close()


def _gather(graph: Graph, names: Sequence[str], embeddings: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Write the embeddings of the stages ``names`` one behind another into the graph's first row, which is returned."""
    row: NDArray[np.float32] = graph.input[0]
    position = 0
    for name in names:
        embedding = embeddings[name]
        row[position : position + len(embedding)] = embedding
        position += len(embedding)
    return row


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
        if entry.window_samples is None or entry.hop_samples is None:
            encoder = ExcerptFeatureEncoder(features, stage.loudness)
        else:
            rule = Windows(entry.window_samples, entry.hop_samples, entry.short, stage.loudness)
            encoder = FeatureEncoder(features, rule)
    else:
        rule = Windows(entry.window_samples, entry.hop_samples, entry.short, stage.loudness)
        if shared is not None:
            encoder = SharedEncoder(shared, rule, entry.dim)
        else:
            encoder = GraphEncoder(open_graph(stage, backend), rule, entry.dim)
    with ExitStack() as opened:
        opened.callback(encoder.close)
        head = heads.open_graph(
            stage.head,
            input_name="features",
            output_name="logits",
            width=stage.head_width,
            output_width=len(plan.genres),
            max_batch=1,
        )
        opened.callback(head.close)
        test = None
        if stage.range is not None:
            test = heads.open_graph(
                stage.range.graph,
                input_name="features",
                output_name="distance",
                width=stage.range.width,
                output_width=1,
                max_batch=1,
            )
        opened.pop_all()
    return Stage(stage, encoder, head, test)


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
