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
from edge_reclass.cascade import Cascade, Policy, Step, genre_map, softmax
from edge_reclass.errors import BundleError, EngineError, TrackError
from edge_reclass_export.engine.verify import LIMITS, Limits, head_logits, open_head

FILE = "reference/cascade.npz"
_FORMAT = 1
_SEED = 20_261_128
_RATE = 44_100
_SECONDS = 10.0
_HEARD = ("harmonics", "chord", "drums", "noise")
"""Of the made inputs, those that no stage may take for silence."""

Rows = NDArray[np.float32]


_LIMITS: Mapping[str, tuple[Limits, float]] = {
    # One CPU agrees with itself to the last bit. x86-64 and arm64 differ by 1.5e-6 in musicnn's embedding and by 1e-4
    # in a confidence (tests/arm64).
    "fp32": (Limits(0.9999, 5e-3), 5e-3),
    # There, single features of spectral contrast differ by 5e-2. All of them off by 3e-2, and the others by 1e-3, moved
    # a probability of the starter's by 0.018 and the embedding by 8e-4.
    "fma518": (Limits(0.9999, 5e-3), 0.02),
    # A head's temperature enlarges what is left.
    "fp16": (LIMITS["fp16"], 0.1),
}
"""Of an embedding, and the greatest difference of a probability."""
_HEAD = 1e-4
"""Greatest difference of a logit from the stored embedding, as a share of the row's largest (at least 1)."""


@dataclass(frozen=True)
class StageReference:
    """Of one stage: embedding float32[pieces, dim], logits float32[pieces, the head's genres], sha256 of its file."""

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
    embeddings = {name: one.embedding for name, one in heard.items()}
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
        shapes = (stage.embedding.shape, stage.logits.shape)
        if any(len(shape) != 2 or shape[0] != len(pieces) for shape in shapes):
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
        bundle: see above.
        backend: the device, which is closed afterwards.
        cpu: for the heads on the reference's embeddings.
        names: stages to compare; none are all.
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
    try:
        heard = _hear(bundle, wanted, samples.inputs(), backend, engines)
    except (EngineError, TrackError) as error:
        return [CascadeResult(name, "–", "mismatch", f"the cascade cannot answer: {error}") for name in wanted]
    return [_compare(bundle, bundle.manifest.stage(name), heard, reference, cpu) for name in wanted]


def _compare(
    bundle: Bundle,
    entry: StageEntry,
    heard: Mapping[str, _Heard],
    reference: CascadeReference | None,
    cpu: Backend,
) -> CascadeResult:
    own = heard[entry.name]
    result = CascadeResult(entry.name, own.precision, "mismatch", "")
    if not np.isfinite(own.probabilities).all() or abs(own.probabilities.sum(axis=1) - 1.0).max() > 1e-6:
        return replace(result, detail="probabilities that are not finite or do not sum to 1")
    logits = _logits(bundle, entry, {name: one.embedding for name, one in heard.items()}, cpu)
    if (logits == logits[0]).all():
        return replace(result, detail="its head gives the same logits for every piece, as one whose weights are zero")
    want = None if reference is None else reference.stages.get(entry.name)
    if want is None or reference is None:
        return replace(result, status="not compared", detail=f"it answers, but the bundle has no references; {_AGAIN}")
    wrong = []
    if reference.genres != tuple(bundle.manifest.genres):
        wrong.append(f"the reference has the genres {', '.join(reference.genres)}")
    if want.head_sha256 != bundle.manifest.files[entry.head.file].sha256:
        wrong.append("its head is another one than the reference's")
    if (want.embedding.shape, want.logits.shape) != (own.embedding.shape, logits.shape):
        wrong.append(f"its shapes {own.embedding.shape} and {logits.shape} are not those of the reference")
    if wrong:
        return replace(result, detail=f"{'; '.join(wrong)}; {_IF_MEANT}")
    found = agreement(want.embedding, own.embedding)
    expected = np.array([softmax(row, entry.head.temperature) for row in want.logits])
    if (read := genre_map(entry.head, reference.genres)) is not None:
        expected = np.array([read(row)[0] for row in expected])
    difference = float(abs(expected - own.probabilities).max())
    limits, _ = _LIMITS[own.precision]
    loosest = max(_LIMITS[heard[name].precision][1] for name in entry.head.inputs)
    if outside := limits.broken_by(found):
        wrong.append(f"embedding: {', '.join(outside)}")
    if not difference <= loosest:
        wrong.append(f"a probability differs by {difference:.3g} (at most {loosest:g})")
    logits = _logits(bundle, entry, {name: one.embedding for name, one in reference.stages.items()}, cpu)
    scale = np.maximum(1.0, abs(want.logits).max(axis=1, keepdims=True))
    if not (error := float((abs(logits - want.logits) / scale).max())) <= _HEAD:
        wrong.append(f"the head's logits for the reference's embedding differ by {error:.3g} (at most {_HEAD:g})")
    return replace(
        result,
        status="mismatch" if wrong else "ok",
        detail=f"{'; '.join(wrong)}; {_IF_MEANT}" if wrong else "",
        cosine=found.cosine,
        relative=found.relative,
        probability=difference,
    )


_IF_MEANT = "if the bundle was changed on purpose: edge-reclass export reference BUNDLE"


@dataclass(frozen=True)
class _Heard:
    """Of one stage: embeddings float32[pieces, dim] and probabilities float64[pieces, genres]."""

    precision: str
    embedding: Rows
    probabilities: NDArray[np.float64]


def _hear(
    bundle: Bundle, names: Sequence[str], inputs: Rows, backend: Backend, engines: Path | None = None
) -> dict[str, _Heard]:
    """What the stages ``names``, and those that their heads take, make of the pieces ``inputs``."""
    with Cascade.open(
        bundle,
        backend,
        _everything(bundle.manifest, names),
        max_rate=_RATE,
        max_seconds=math.ceil(inputs.shape[1] / _RATE) + 1.0,
        allow_random=True,
        engines=engines,
    ) as cascade:
        stages = cascade.plan.stages
        answers = [{answer.name: answer for answer in cascade.answers(row, _RATE)} for row in inputs]
    for piece, said in zip(_HEARD, answers, strict=True):
        if silent := [stage.name for stage in stages if stage.name not in said]:
            raise EngineError(f"stage {silent[0]} takes {piece} for silence")
    return {
        stage.name: _Heard(
            stage.precision or "fma518",
            np.stack([said[stage.name].embedding for said in answers]),
            np.array([said[stage.name].probabilities for said in answers]),
        )
        for stage in stages
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
    graph = open_head(bundle, entry.head, features.shape[1], cpu)
    try:
        return head_logits(graph, features)
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
