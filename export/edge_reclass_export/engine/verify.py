"""Does this device give the numbers that the bundle's reference vectors give?

Each encoder runs at its smallest, usual and largest batch on every reference input, and every row is compared: an
error that appears at one batch size only, or in one row of a batch, is found. Then the heads say whether the
difference can be seen: their top genre on the device's embedding against that on the reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends import Backend, Graph, GraphSource
from edge_reclass.bundle import CASES, Agreement, Bundle, HeadEntry, WaveformEntry, agreement, load_reference
from edge_reclass.cascade import softmax
from edge_reclass.engines import BatchCheck
from edge_reclass.errors import BundleError, EngineError

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Limits:
    """What still counts as the same encoder.

    ``cosine`` (least) and ``relative`` (greatest error) hold for every row; the heads' top genre must be the same.
    """

    cosine: float
    relative: float

    def broken_by(self, found: Agreement | BatchCheck) -> list[str]:
        """Name each limit that ``found`` is outside of."""
        parts = []
        if not found.cosine >= self.cosine:
            parts.append(f"cosine {found.cosine:.6f} (at least {self.cosine})")
        if not found.relative <= self.relative:
            parts.append(f"relative error {found.relative:.3g} (at most {self.relative:g})")
        return parts


LIMITS: Mapping[str, Limits] = {"fp32": Limits(0.99999, 5e-3), "fp16": Limits(0.999, 5e-2)}
"""By precision, against float32 on the exporting machine's CPU; ``docs/engines.md`` says how they were chosen."""

CLOSE_CALL = 0.02
"""A reference row whose two best genres are nearer than this, in probability, may fall either way: not counted."""


@dataclass(frozen=True)
class Expected:
    """Inputs float32[rows, window] and the embeddings float32[rows, dim] that belong to them."""

    inputs: Rows
    embedding: Rows


@dataclass(frozen=True)
class HeadProbe:
    """A head that takes the verified embedding, from ``first`` on in its features; the rest are reference values."""

    stage: str
    file: Path
    graph: Graph
    first: int
    features: Rows
    temperature: float

    def probabilities(self, embedding: Rows | None) -> NDArray[np.float64]:
        """float64[rows, genres of the head] of the reference features, with ``embedding`` in its place if one is given.

        Raises:
            BundleError: the head, which runs on the CPU, cannot be run: no verdict about the encoder.
        """
        features = self.features.copy()
        if embedding is not None:
            features[:, self.first : self.first + embedding.shape[1]] = embedding
        try:
            logits = head_logits(self.graph, features)
        except EngineError as error:
            raise BundleError(f"{self.file}: the head of {self.stage} cannot be run: {error}") from error
        return np.array([softmax(row, self.temperature) for row in logits])


def reference_expected(bundle: Bundle, stage: str) -> Expected | None:
    """A stage's reference vectors; None where the bundle has none.

    Raises:
        BundleError: the file was altered, or does not fit the stage.
    """
    encoder = bundle.manifest.stage(stage).encoder
    if not isinstance(encoder, WaveformEntry) or encoder.reference is None:
        return None
    path = bundle.path(encoder.reference)
    vectors = load_reference(path, bundle.file(encoder.reference).read())
    found = (vectors.rate, vectors.samples, vectors.embedding.shape[1])
    wanted = (encoder.rate, encoder.window_samples, encoder.dim)
    if found != wanted:
        raise EngineError(
            f"{path}: made for rate, samples and dim {found}, the stage {stage} has {wanted}; export the encoder again"
        )
    return Expected(vectors.inputs(), vectors.embedding)


def head_notes(bundle: Bundle, stage: str, references: Mapping[str, Expected | None]) -> list[str]:
    """Heads that take the stage's embedding but cannot be asked, because another of their inputs has no reference."""
    return [
        f"the head of {name} also takes {', '.join(missing)}, without reference vectors"
        for name, _, missing in _heads_on(bundle, stage, references)
        if missing
    ]


def _heads_on(
    bundle: Bundle, stage: str, references: Mapping[str, Expected | None]
) -> Iterator[tuple[str, HeadEntry, list[str]]]:
    for entry in bundle.manifest.stages:
        if stage in entry.head.inputs:
            missing = [need for need in entry.head.inputs if need != stage and references.get(need) is None]
            yield entry.name, entry.head, missing


@contextmanager
def open_heads(
    bundle: Bundle, stage: str, references: Mapping[str, Expected | None], backend: Backend
) -> Iterator[list[HeadProbe]]:
    """Every head whose inputs are the stage's embedding alone, or all have reference vectors with as many rows.

    Raises:
        BundleError: a head was altered, cannot be opened, or does not fit the stages it takes.
    """
    probes: list[HeadProbe] = []
    own = references[stage]
    try:
        for name, head, missing in _heads_on(bundle, stage, references):
            parts = [references.get(need) for need in head.inputs]
            embeddings = [part.embedding for part in parts if part is not None]
            if missing or own is None:
                continue
            # Several encoders share the made inputs only, which come first; a head on one takes its user's own too.
            rows = len(own.embedding) if len(embeddings) == 1 else len(CASES)
            features = np.concatenate([one[:rows] for one in embeddings], axis=1)
            file = bundle.path(head.file)
            try:
                graph = open_head(bundle, head, features.shape[1], backend)
            except EngineError as error:
                raise BundleError(f"{file}: the head of {name} does not fit the bundle: {error}") from error
            first = sum(part.embedding.shape[1] for part in parts[: head.inputs.index(stage)] if part is not None)
            probes.append(HeadProbe(name, file, graph, first, features, head.temperature))
        yield probes
    finally:
        for probe in probes:
            probe.graph.close()


def open_head(bundle: Bundle, head: HeadEntry, width: int, backend: Backend) -> Graph:
    """Open a head on ``width`` features. Raises ``EngineError`` where it does not fit."""
    return backend.open_graph(
        bundle.file(head.file),
        input_name="features",
        output_name="logits",
        width=width,
        output_width=head.classes(bundle.manifest.genres),
        max_batch=1,
    )


def head_logits(graph: Graph, features: Rows) -> Rows:
    """What an opened head gives for ``features``, one row at a time as at run time."""
    rows = []
    for row in features:
        graph.input[0] = row
        rows.append(graph.run(1)[0].copy())
    return np.stack(rows)


def check_graph(
    graph: Graph, expected: Expected, batches: Iterable[int], heads: Sequence[HeadProbe]
) -> tuple[BatchCheck, ...]:
    """Run ``graph`` on every expected input at each batch size and compare every row.

    Raises:
        EngineError: the device failed.
    """
    checks = []
    reference = [head.probabilities(None) for head in heads]
    for batch in batches:
        rows, got = _run(graph, expected.inputs, batch)
        found = agreement(expected.embedding[rows], got)
        # Rows that wrapped around were compared above; the heads are asked once per input.
        asked, agreed = _ask_heads(heads, reference, got[: len(expected.inputs)])
        by_row = [
            agreement(expected.embedding[row][None], one[None]).cosine for row, one in zip(rows, got, strict=True)
        ]
        median = float(np.median(by_row))
        checks.append(BatchCheck(batch, found.cosine, found.relative, found.max_abs, asked, agreed, median))
    return tuple(checks)


def _run(graph: Graph, inputs: Rows, batch: int) -> tuple[list[int], Rows]:
    """All inputs in full batches of ``batch``; the last one wraps around to the first inputs."""
    rows: list[int] = []
    got = []
    for start in range(0, len(inputs), batch):
        chosen = [(start + i) % len(inputs) for i in range(batch)]
        graph.input[:batch] = inputs[chosen]
        got.append(graph.run(batch).copy())
        rows += chosen
    return rows, np.concatenate(got)


def _ask_heads(heads: Sequence[HeadProbe], reference: Sequence[NDArray[np.float64]], got: Rows) -> tuple[int, int]:
    asked = agreed = 0
    if not np.isfinite(got).all():
        return sum(len(want) for want in reference), 0
    for head, want in zip(heads, reference, strict=True):
        best = np.sort(want, axis=1)
        clear = best[:, -1] - best[:, -2] >= CLOSE_CALL
        same = head.probabilities(got[: len(want)]).argmax(axis=1) == want.argmax(axis=1)
        asked += int(clear.sum())
        agreed += int((same & clear).sum())
    return asked, agreed


def faults(checks: Iterable[BatchCheck], precision: str) -> list[str]:
    """What is outside the precision's limits, one sentence per batch size; empty where nothing is."""
    limits = LIMITS[precision]
    wrong = []
    for check in checks:
        parts = []
        if not math.isfinite(check.max_abs):
            parts.append("values that are no numbers")
        parts += limits.broken_by(check)
        if check.heads_agree != check.heads:
            parts.append(f"top genre the same on {check.heads_agree} of {check.heads} rows")
        if parts:
            wrong.append(f"batch {check.batch}: {', '.join(parts)}")
    return wrong


def open_encoder(backend: Backend, file: GraphSource, entry: WaveformEntry, max_batch: int) -> Graph:
    """Open a stage's ONNX file or engine as the runtime does. Raises ``EngineError`` where it does not fit."""
    return backend.open_graph(
        file,
        input_name="waveform",
        output_name="embedding",
        width=entry.window_samples,
        output_width=entry.dim,
        max_batch=max_batch,
    )
