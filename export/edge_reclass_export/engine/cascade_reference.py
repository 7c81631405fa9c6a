"""What a bundle's whole cascade answers to made audio, and whether a device answers the same.

``reference/cascade.npz`` holds, for every stage whatever a policy makes of it, the embedding (``fma518``'s too) and the
head's logits for four seconds-long pieces that any machine makes again from a seed, and the hash of the head that gave
them. Written when a bundle is finished, through the runtime's own path; ``verify`` goes the same way and compares.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends import Backend, open_backend
from edge_reclass.bundle import (
    CASES,
    MAX_REFERENCE_SAMPLES,
    Bundle,
    Manifest,
    StageEntry,
    WaveformEntry,
    agreement,
    checksums,
    read_arrays,
    require_makeable,
    synthesise,
)
from edge_reclass.cascade import Cascade, Policy, Step, softmax
from edge_reclass.errors import BundleError, EngineError, TrackError

__all__ = [
    "FILE",
    "CascadeReference",
    "CascadeResult",
    "StageReference",
    "check_cascade",
    "load_cascade_reference",
    "measure_cascade",
]

FILE = "reference/cascade.npz"
_FORMAT = 1
_SEED = 20_261_128
_RATE = 44_100
_SECONDS = 10.0
_HEARD = ("harmonics", "chord", "drums", "noise")
"""Of the made inputs, those that no stage may take for silence."""

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class _Limit:
    """Of an embedding: least cosine and greatest relative error of a row; of a probability: greatest difference."""

    cosine: float
    relative: float
    probability: float


_LIMITS: Mapping[str, _Limit] = {
    # One CPU agrees with itself to the last bit. x86-64 and arm64 differ by 1.5e-6 in musicnn's embedding and by 1e-4
    # in a confidence (tests/arm64).
    "fp32": _Limit(0.9999, 5e-3, 5e-3),
    # There, single features of spectral contrast differ by 5e-2. All of them off by 3e-2, and the others by 1e-3, moved
    # a probability of the starter's by 0.018 and the embedding by 8e-4.
    "fma518": _Limit(0.9999, 5e-3, 0.02),
    # The encoders' own limits (engine.verify.LIMITS); a head's temperature enlarges what is left.
    "fp16": _Limit(0.999, 5e-2, 0.1),
}
_HEAD = 1e-4
"""Greatest difference of a logit from the stored embedding, as a share of the row's largest (at least 1)."""


@dataclass(frozen=True)
class StageReference:
    """Of one stage: embedding float32[pieces, dim], logits float32[pieces, genres], sha256 of the head's file."""

    embedding: Rows
    logits: Rows
    head_sha256: str


@dataclass(frozen=True)
class CascadeReference:
    """The stages' references by name, for pieces of ``samples`` at ``rate`` Hz from ``seed``."""

    rate: int
    samples: int
    seed: int
    genres: tuple[str, ...]
    stages: Mapping[str, StageReference]

    def inputs(self) -> Rows:
        """The pieces, float32[pieces, samples]."""
        return _pieces(self.rate, self.samples, self.seed)

    def to_bytes(self) -> bytes:
        """The references as an .npz file; the same ones give the same bytes."""
        arrays: dict[str, Any] = {
            "format": np.int64(_FORMAT),
            "rate": np.int64(self.rate),
            "samples": np.int64(self.samples),
            "seed": np.int64(self.seed),
            "pieces": np.array(_HEARD),
            "checksums": checksums(self.inputs()),
            "genres": np.array(self.genres),
            "stages": np.array(list(self.stages)),
        }
        for name, stage in self.stages.items():
            arrays[f"embedding.{name}"] = stage.embedding
            arrays[f"logits.{name}"] = stage.logits
            arrays[f"head_sha256.{name}"] = np.array(stage.head_sha256)
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **arrays)
        return stream.getvalue()


@lru_cache(maxsize=1)
def _pieces(rate: int, samples: int, seed: int) -> Rows:
    pieces = synthesise(rate, samples, seed)[[CASES.index(name) for name in _HEARD]]
    pieces.flags.writeable = False
    return pieces


@dataclass(frozen=True)
class CascadeResult:
    """How a stage answered: ``ok`` (as the reference), ``mismatch``, or ``not compared`` (it ran; no reference).

    ``cosine`` and ``relative`` are the embedding's worst row, ``probability`` the largest difference of one.
    """

    stage: str
    precision: str
    status: Literal["ok", "mismatch", "not compared"]
    detail: str
    cosine: float | None = None
    relative: float | None = None
    probability: float | None = None


def measure_cascade(bundle: Bundle) -> CascadeReference:
    """What the bundle answers to the made pieces on the CPU.

    Raises:
        BundleError, EngineError, TrackError: the bundle cannot be opened or a stage cannot answer.
    """
    manifest = bundle.manifest
    made = CascadeReference(_RATE, _samples(manifest), _SEED, tuple(manifest.genres), {})
    heard = _hear(bundle, [stage.name for stage in manifest.stages], made.inputs(), open_backend("cpu", threads=1))
    embeddings = {name: rows for name, (rows, _) in heard.items()}
    with open_backend("cpu", threads=1) as cpu:
        stages = {
            stage.name: StageReference(
                embeddings[stage.name],
                _logits(bundle, stage, embeddings, cpu),
                manifest.files[stage.head.file].sha256,
            )
            for stage in manifest.stages
        }
    return replace(made, stages=stages)


def load_cascade_reference(bundle: Bundle) -> CascadeReference | None:
    """The bundle's references; None where it has none.

    Raises:
        BundleError: the file was altered, is none, or its pieces cannot be made again here.
    """
    if bundle.manifest.reference is None:
        return None
    file = bundle.file(bundle.manifest.reference)
    arrays = read_arrays(file.read(), file.path)
    try:
        version, rate, samples, seed = (int(arrays[name]) for name in ("format", "rate", "samples", "seed"))
        names = [str(name) for name in arrays["stages"]]
        genres = tuple(str(genre) for genre in arrays["genres"])
        pieces, expected = tuple(str(name) for name in arrays["pieces"]), arrays["checksums"]
        stages = {
            name: StageReference(
                np.asarray(arrays[f"embedding.{name}"], np.float32),
                np.asarray(arrays[f"logits.{name}"], np.float32),
                str(arrays[f"head_sha256.{name}"]),
            )
            for name in names
        }
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise BundleError(f"{file.path}: no references of a cascade ({error}); {_AGAIN}") from error
    if version != _FORMAT or pieces != _HEARD:
        raise BundleError(f"{file.path}: format {version} with {list(pieces)}, expected {_FORMAT}; {_AGAIN}")
    for name, stage in stages.items():
        shapes = (stage.embedding.ndim, stage.logits.shape, len(stage.embedding))
        if shapes != (2, (len(pieces), len(genres)), len(pieces)):
            raise BundleError(f"{file.path}: {name} has arrays of shapes that do not fit: {shapes}; {_AGAIN}")
    require_makeable(file.path, rate, samples, seed)
    reference = CascadeReference(rate, samples, seed, genres, stages)
    made = checksums(reference.inputs())
    if expected.shape != made.shape or (expected != made).any():
        raise BundleError(f"{file.path}: this machine makes other audio from seed {seed}; {_AGAIN}")
    return reference


_AGAIN = "write it again: edge-reclass export reference BUNDLE"


def check_cascade(
    bundle: Bundle,
    backend: Backend,
    cpu: Backend,
    *,
    names: Sequence[str] = (),
    engines: Path | None = None,
    precision: str | None = None,
) -> list[CascadeResult]:
    """Let every stage of the bundle (or ``names``, and what their heads take) answer, and compare.

    Args:
        backend: the device, which is closed afterwards.
        cpu: for the heads on the reference's embeddings.
        engines: the engine store, where ``backend`` is tensorrt.
        precision: the encoders' files to take; None is the device's choice.

    Raises:
        BundleError: a file was altered, or the references cannot be used here.
        DeviceError: the device is lost.
    """
    reference = load_cascade_reference(bundle)
    if precision is not None:
        bundle = Bundle(bundle.root, _only(bundle.manifest, precision), bundle.digest)
    samples = CascadeReference(_RATE, _samples(bundle.manifest), _SEED, (), {}) if reference is None else reference
    wanted = list(names) or [stage.name for stage in bundle.manifest.stages]
    precisions: dict[str, str] = {}
    try:
        heard = _hear(bundle, wanted, samples.inputs(), backend, engines=engines, precisions=precisions)
    except (EngineError, TrackError) as error:
        return [CascadeResult(name, "–", "mismatch", f"the cascade cannot answer: {error}") for name in wanted]
    return [_compare(bundle, bundle.manifest.stage(name), heard, precisions, reference, cpu) for name in wanted]


def _compare(
    bundle: Bundle,
    entry: StageEntry,
    heard: Mapping[str, tuple[Rows, NDArray[np.float64]]],
    precisions: Mapping[str, str],
    reference: CascadeReference | None,
    cpu: Backend,
) -> CascadeResult:
    embedding, probabilities = heard[entry.name]
    precision = precisions[entry.name]
    wrong = []
    if not np.isfinite(probabilities).all() or abs(probabilities.sum(axis=1) - 1.0).max() > 1e-6:
        wrong.append("probabilities that are not finite or do not sum to 1")
    elif _is_constant(_logits(bundle, entry, {name: rows for name, (rows, _) in heard.items()}, cpu)):
        wrong.append("its head gives the same logits for every piece, as one whose weights are zero")
    want = None if reference is None else reference.stages.get(entry.name)
    if want is None or reference is None or wrong:
        return CascadeResult(
            entry.name,
            precision,
            "mismatch" if wrong else "not compared",
            "; ".join(wrong) or f"it answers, but the bundle has no references; {_AGAIN}",
        )
    if reference.genres != tuple(bundle.manifest.genres):
        wrong.append(f"the reference has the genres {', '.join(reference.genres)}")
    if want.head_sha256 != bundle.manifest.files[entry.head.file].sha256:
        wrong.append("its head is another one than the reference's")
    if want.embedding.shape != embedding.shape or want.logits.shape != probabilities.shape:
        wrong.append(f"its shapes {embedding.shape} and {probabilities.shape} are not those of the reference")
    if wrong:
        return CascadeResult(entry.name, precision, "mismatch", f"{'; '.join(wrong)}; {_IF_MEANT}")
    found = agreement(want.embedding, embedding)
    expected = np.array([softmax(row, entry.head.temperature) for row in want.logits])
    difference = float(abs(expected - probabilities).max())
    limit = _LIMITS[precision]
    loosest = max(_LIMITS[precisions[name]].probability for name in entry.head.inputs)
    if not (found.cosine >= limit.cosine and found.relative <= limit.relative):
        wrong.append(
            f"embedding: cosine {found.cosine:.6f} (at least {limit.cosine}), relative error {found.relative:.3g}"
            f" (at most {limit.relative:g})"
        )
    if not difference <= loosest:
        wrong.append(f"a probability differs by {difference:.3g} (at most {loosest:g})")
    stored = {name: one.embedding for name, one in reference.stages.items()}
    logits = _logits(bundle, entry, stored, cpu)
    scale = np.maximum(1.0, abs(want.logits).max(axis=1, keepdims=True))
    if not (error := float((abs(logits - want.logits) / scale).max())) <= _HEAD:
        wrong.append(f"the head's logits for the reference's embedding differ by {error:.3g} (at most {_HEAD:g})")
    return CascadeResult(
        entry.name,
        precision,
        "mismatch" if wrong else "ok",
        f"{'; '.join(wrong)}; {_IF_MEANT}" if wrong else "",
        found.cosine,
        found.relative,
        difference,
    )


def _is_constant(rows: Rows) -> bool:
    return bool((rows == rows[0]).all())


_IF_MEANT = "if the bundle was changed on purpose: edge-reclass export reference BUNDLE"


def _hear(
    bundle: Bundle,
    names: Sequence[str],
    inputs: Rows,
    backend: Backend,
    *,
    engines: Path | None = None,
    precisions: dict[str, str] | None = None,
) -> dict[str, tuple[Rows, NDArray[np.float64]]]:
    """Of each stage: embeddings float32[pieces, dim] and probabilities float64[pieces, genres]."""
    seconds = inputs.shape[1] / _RATE
    said: dict[str, list[tuple[Rows, tuple[float, ...]]]] = {}
    with Cascade.open(
        bundle,
        backend,
        _everything(bundle.manifest, names),
        max_rate=_RATE,
        max_seconds=math.ceil(seconds) + 1.0,
        allow_random=True,
        engines=engines,
    ) as cascade:
        if precisions is not None:
            precisions |= {stage.name: stage.precision or "fma518" for stage in cascade.plan.stages}
        for piece, row in zip(_HEARD, inputs, strict=True):
            answers = {answer.name: answer for answer in cascade.answers(row, _RATE)}
            for stage in cascade.plan.stages:
                if stage.name not in answers:
                    raise EngineError(f"stage {stage.name} takes {piece} for silence")
                answer = answers[stage.name]
                said.setdefault(stage.name, []).append((answer.embedding, answer.probabilities))
    return {
        name: (np.stack([embedding for embedding, _ in rows]), np.array([p for _, p in rows]))
        for name, rows in said.items()
    }


def _everything(manifest: Manifest, names: Sequence[str]) -> Policy:
    """A policy that asks the stages ``names`` and those whose embeddings their heads take, each after what it needs."""
    order: list[str] = []

    def add(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise EngineError(f"the heads of {', '.join(above)} take each other's embeddings: no policy can run them")
        for need in manifest.stage(name).head.inputs:
            if need != name and need not in order:
                add(need, (*above, name))
        if name not in order:
            order.append(name)

    for name in names:
        add(name, ())
    steps = [Step(name, {name: 1.0}, 1.0) for name in order[:-1]]
    return Policy("everything", "soft", (*steps, Step(order[-1], {order[-1]: 1.0})))


def _logits(bundle: Bundle, entry: StageEntry, embeddings: Mapping[str, Rows], cpu: Backend) -> Rows:
    """What the stage's head gives for stored embeddings."""
    features = np.concatenate([embeddings[name] for name in entry.head.inputs], axis=1)
    graph = cpu.open_graph(
        bundle.file(entry.head.file),
        input_name="features",
        output_name="logits",
        width=features.shape[1],
        output_width=len(bundle.manifest.genres),
        max_batch=1,
    )
    try:
        rows = []
        for row in features:
            graph.input[0] = row
            rows.append(graph.run(1)[0].copy())
        return np.stack(rows)
    finally:
        graph.close()


def _samples(manifest: Manifest) -> int:
    """Long enough for a window of every stage."""
    seconds = [_SECONDS]
    for stage in manifest.stages:
        encoder = stage.encoder
        seconds.append(encoder.min_seconds)
        if encoder.window_samples is not None and encoder.rate != "native":
            seconds.append(encoder.window_samples / encoder.rate)
    return min(math.ceil(max(seconds) * _RATE), MAX_REFERENCE_SAMPLES)


def _only(manifest: Manifest, precision: str) -> Manifest:
    """The manifest with one precision of each encoder."""
    stages = []
    for stage in manifest.stages:
        encoder = stage.encoder
        if isinstance(encoder, WaveformEntry):
            files = {key: file for key, file in encoder.files.items() if key == precision}
            encoder = msgspec.structs.replace(encoder, files=files)
        stages.append(msgspec.structs.replace(stage, encoder=encoder))
    return msgspec.structs.replace(manifest, stages=stages)
