"""One verification run over a bundle: per stage, what this device would run, and how it agrees."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from edge_reclass.audio import Decoder, ExcerptSpec, Limits, Resampler, resampled_length
from edge_reclass.backends import Backend, GraphSource
from edge_reclass.bundle import Bundle, WaveformEntry
from edge_reclass.cascade import fill_window, windows
from edge_reclass.engines import BatchCheck, Profile, StoredEngine, Target, Verification
from edge_reclass.errors import EngineError, TrackError, UsageError
from edge_reclass_export.engine.stages import engine_stages, graph_stages, survey_stage
from edge_reclass_export.engine.store import EngineStore
from edge_reclass_export.engine.verify import (
    Expected,
    check_graph,
    faults,
    head_notes,
    open_encoder,
    open_heads,
    reference_expected,
)

__all__ = ["Finding", "Subject", "audio_expected", "audit", "cpu_subjects", "engine_subjects", "settle"]

Status = Literal["ok", "mismatch", "not verified", "missing", "stale", "damaged"]

_AUDIO = ExcerptSpec("center", 30.0)
_AUDIO_RATE, _AUDIO_WINDOWS = 192_000, 8


@dataclass(frozen=True)
class Subject:
    """What is verified: a stage's encoder in one precision, as an ONNX file or an engine; or why there is none."""

    stage: str
    precision: str
    file: GraphSource | None
    batches: tuple[int, ...]
    engine: StoredEngine | None = None
    on_cpu: bool = False
    problem: tuple[Status, str] | None = None


@dataclass(frozen=True)
class Finding:
    """What came out for one subject."""

    subject: Subject
    status: Status
    detail: str
    checks: tuple[BatchCheck, ...] = ()
    notes: list[str] = field(default_factory=list)


def cpu_subjects(
    bundle: Bundle, backend: Backend, *, names: Sequence[str] = (), precision: str | None = None
) -> list[Subject]:
    """The ONNX files that ``backend`` runs: of each stage the one that it prefers, or ``precision``.

    Raises:
        UsageError: no such stage; or a stage has no file of that precision.
    """
    subjects = []
    for name, profile in graph_stages(bundle, names, shared=backend.shares_batches).items():
        files = _files(bundle, name)
        wanted = backend.precisions if precision is None else (precision,)
        chosen = next((each for each in wanted if each in files), None)
        if chosen is None:
            raise UsageError(f"stage {name}: expected {' or '.join(wanted)}, the bundle has {', '.join(files)}")
        subjects.append(Subject(name, chosen, bundle.file(files[chosen]), profile.batches))
    return subjects


def engine_subjects(
    bundle: Bundle,
    target: Target,
    folder: Path,
    *,
    names: Sequence[str] = (),
    precision: str | None = None,
) -> list[Subject]:
    """The engines for ``target`` in ``folder``. A stage whose engines were all rejected runs on the CPU, in FP32.

    Raises:
        BundleError: the ONNX file of an engine was altered.
    """
    subjects = []
    for stage in engine_stages(bundle, target, names=names, precision=precision):
        states = survey_stage(folder, stage)
        candidate, found = states[-1]
        if found.status == "present" and found.engine is not None:
            bundle.verify([candidate.file])
            profile: Profile = found.engine.record.key.profile
            subjects.append(Subject(stage.name, candidate.precision, found.engine.plan, profile.batches, found.engine))
            continue
        open_ones = [(each, state) for each, state in states if state.status != "rejected"]
        if open_ones:
            candidate, found = open_ones[0]
            status: Status = found.status if found.status in ("missing", "stale", "damaged") else "missing"
            subjects.append(
                Subject(stage.name, candidate.precision, None, (), found.engine, problem=(status, found.reason))
            )
            continue
        subjects.append(
            Subject(stage.name, candidate.precision, bundle.file(candidate.file), stage.profile.batches, on_cpu=True)
        )
    return subjects


def _files(bundle: Bundle, stage: str) -> dict[str, str]:
    encoder = bundle.manifest.stage(stage).encoder
    return dict(encoder.graph_files)


def audit(
    bundle: Bundle,
    subjects: Sequence[Subject],
    *,
    device: Callable[[], Backend],
    cpu: Callable[[], Backend],
    audio: Sequence[Path] = (),
) -> Iterator[Finding]:
    """Verify each subject: engines on ``device``, heads (and stages that fell back) on ``cpu``.

    ``device`` is opened only when an engine is there to be run. With ``audio``, windows of these files are compared
    too, against the FP32 file on the CPU.

    Raises:
        DeviceError: the device cannot be used.
        BundleError: a file of the bundle was altered, or a head does not fit.
        UsageError: a file of ``audio`` cannot be used.
    """
    references = {entry.name: reference_expected(bundle, entry.name) for entry in bundle.manifest.stages}
    with ExitStack() as opened:
        heads_backend = opened.enter_context(cpu())
        device_backend: Backend | None = None
        for subject in subjects:
            if subject.problem is not None:
                yield Finding(subject, *subject.problem)
                continue
            if subject.on_cpu:
                backend = heads_backend
            else:
                device_backend = device_backend or opened.enter_context(device())
                backend = device_backend
            yield _verify(bundle, subject, references, backend, heads_backend, audio)


def _verify(
    bundle: Bundle,
    subject: Subject,
    references: Mapping[str, Expected | None],
    backend: Backend,
    cpu: Backend,
    audio: Sequence[Path],
) -> Finding:
    encoder = bundle.manifest.stage(subject.stage).encoder
    expected = references[subject.stage]
    if not isinstance(encoder, WaveformEntry) or subject.file is None:
        raise EngineError(f"stage {subject.stage} has no graph to verify")
    if expected is None and not audio:
        return Finding(subject, "not verified", "the bundle has no reference vectors for it; export the encoder again")
    notes = head_notes(bundle, subject.stage, references)
    checks: tuple[BatchCheck, ...] = ()
    wrong: list[str] = []
    try:
        graph = open_encoder(backend, subject.file, encoder, max(subject.batches))
    except EngineError as error:
        return Finding(subject, "mismatch", f"it cannot be opened: {error}", notes=notes)
    try:
        if expected is not None:
            with open_heads(bundle, subject.stage, references, cpu) as heads:
                checks = check_graph(graph, expected, subject.batches, heads)
            if heads and not checks[0].heads:
                notes.append("its heads were not asked: on no reference input is their top genre clear")
            wrong += faults(checks, subject.precision)
        for file in audio:
            own, note = audio_expected(bundle, subject, file, cpu)
            if own is None:
                notes.append(note)
                continue
            heard = check_graph(graph, own, subject.batches[-1:], ())
            wrong += [f"{file.name}: {fault}" for fault in faults(heard, subject.precision)]
            notes.append(f"{file.name}: cosine {heard[0].cosine:.6f}, relative error {heard[0].relative:.2g}")
    except EngineError as error:
        return Finding(subject, "mismatch", f"it cannot be run: {error}", notes=notes)
    finally:
        graph.close()
    if wrong:
        return Finding(subject, "mismatch", "; ".join(wrong), checks, notes)
    if subject.on_cpu:
        notes.append("its engines were rejected on this device, so it runs with ONNX Runtime on the CPU")
    return Finding(subject, "ok" if checks or audio else "not verified", "", checks, notes)


def audio_expected(bundle: Bundle, subject: Subject, file: Path, cpu: Backend) -> tuple[Expected | None, str]:
    """Windows from the middle 30 s of ``file`` and what the FP32 file gives for them on the CPU; or None and why.

    Raises:
        UsageError: the file cannot be decoded.
    """
    encoder = bundle.manifest.stage(subject.stage).encoder
    source = _files(bundle, subject.stage).get("fp32")
    if not isinstance(encoder, WaveformEntry) or source is None:
        return None, f"{file.name}: not compared, the bundle has no FP32 file for {subject.stage}"
    if subject.file == bundle.file(source):
        return None, f"{file.name}: not compared, this file on this CPU is what others are compared with"
    inputs = _windows(file, encoder)
    graph = open_encoder(cpu, bundle.file(source), encoder, len(inputs))
    try:
        graph.input[: len(inputs)] = inputs
        return Expected(inputs, graph.run(len(inputs)).copy()), ""
    finally:
        graph.close()


def _windows(file: Path, encoder: WaveformEntry) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    raw = np.empty(math.ceil((_AUDIO.seconds or 0.0) * _AUDIO_RATE) + 1, np.float32)
    try:
        decoded = Decoder(Limits(_AUDIO_RATE)).decode(file, [_AUDIO], raw)
    except TrackError as error:
        raise UsageError(f"--reference-audio {file}: {error}") from error
    samples = np.empty(resampled_length(len(decoded.segments[0].samples), decoded.rate, encoder.rate) + 2, np.float32)
    length = Resampler().resample(decoded.segments[0].samples, decoded.rate, encoder.rate, samples)
    starts = windows(length, encoder.window_samples, encoder.hop_samples, "repeat")[:_AUDIO_WINDOWS]
    rows = np.empty((len(starts), encoder.window_samples), np.float32)
    for row, start in zip(rows, starts, strict=True):
        fill_window(samples[:length], start, "repeat", row)
    return rows


def settle(bundle: Bundle, store: EngineStore, finding: Finding) -> str | None:
    """Write into an engine's record what was found: verified, or rejected so that nothing loads it. Gives a remark."""
    engine = finding.subject.engine
    encoder = bundle.manifest.stage(finding.subject.stage).encoder
    if engine is None or not isinstance(encoder, WaveformEntry) or encoder.reference is None:
        return None
    record, remark = engine.record, None
    if finding.status == "mismatch":
        record = msgspec.structs.replace(record, rejected=finding.detail, verification=None)
        remark = (
            f"{engine.folder} is marked as rejected;"
            f" edge-reclass build {shlex.quote(str(bundle.root))} --stage {record.stage} --rebuild  tries again"
        )
    elif finding.status == "ok" and finding.checks:
        verification = Verification(bundle.manifest.files[encoder.reference].sha256, finding.checks)
        record = msgspec.structs.replace(record, verification=verification, not_verified=None)
    if record != engine.record:
        try:
            store.update(record)
        except UsageError as error:
            return f"not recorded: {error}"
    return remark
