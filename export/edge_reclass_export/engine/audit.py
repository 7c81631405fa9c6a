"""One verification run over a bundle: per stage, what this device would run, and how it agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from edge_reclass.backends import Backend, GraphSource
from edge_reclass.bundle import Bundle, WaveformEntry
from edge_reclass.cascade import fill_window, windows
from edge_reclass.engines import BatchCheck, Profile, StoredEngine, Target, Verification, engine_command
from edge_reclass.errors import EngineError, UsageError
from edge_reclass_export.engine.own_audio import read_middle
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

Status = Literal["ok", "mismatch", "not verified", "missing", "stale", "damaged"]

NO_VECTORS = "the bundle has no reference vectors for it; export the encoder again"

_AUDIO_SECONDS, _AUDIO_WINDOWS = 30.0, 8


@dataclass(frozen=True)
class GraphCase:
    """What is verified: a stage's encoder in one precision, as an ONNX file or an engine; or why there is none."""

    stage: str
    precision: str
    file: GraphSource | None
    batches: tuple[int, ...]
    engine: StoredEngine | None = None
    on_cpu: bool = False
    problem: tuple[Status, str] | None = None


@dataclass(frozen=True)
class GraphResult:
    """What came out for one case."""

    case: GraphCase
    status: Status
    detail: str
    checks: tuple[BatchCheck, ...] = ()
    notes: list[str] = field(default_factory=list)


def onnx_cases(
    bundle: Bundle, backend: Backend, *, names: Sequence[str] = (), precision: str | None = None
) -> list[GraphCase]:
    """The ONNX files that ``backend`` runs: of each stage the one that it prefers, or ``precision``.

    Raises:
        UsageError: no such stage; or a stage has no file of that precision.
    """
    cases = []
    for name, profile in graph_stages(bundle, names, shared=backend.shares_batches).items():
        files = bundle.manifest.stage(name).encoder.graph_files
        wanted = backend.precisions if precision is None else (precision,)
        chosen = next((each for each in wanted if each in files), None)
        if chosen is None:
            raise UsageError(f"stage {name}: expected {' or '.join(wanted)}, the bundle has {', '.join(files)}")
        cases.append(GraphCase(name, chosen, bundle.file(files[chosen]), profile.batches))
    return cases


def engine_cases(
    bundle: Bundle,
    target: Target,
    folder: Path,
    *,
    names: Sequence[str] = (),
    precision: str | None = None,
) -> list[GraphCase]:
    """The engines for ``target`` in ``folder``. A stage whose engines were all rejected runs on the CPU, in FP32.

    Raises:
        BundleError: the ONNX file of an engine was altered.
    """
    cases = []
    for stage in engine_stages(bundle, target, names=names, precision=precision):
        states = survey_stage(folder, stage)
        candidate, found = states[-1]
        if found.status == "present" and found.engine is not None:
            bundle.verify([candidate.file])
            profile: Profile = found.engine.record.key.profile
            cases.append(GraphCase(stage.name, candidate.precision, found.engine.plan, profile.batches, found.engine))
            continue
        open_ones = [(each, state) for each, state in states if state.status != "rejected"]
        if open_ones:
            candidate, found = open_ones[0]
            status: Status = found.status if found.status in ("missing", "stale", "damaged") else "missing"
            cases.append(
                GraphCase(stage.name, candidate.precision, None, (), found.engine, problem=(status, found.reason))
            )
            continue
        cases.append(
            GraphCase(stage.name, candidate.precision, bundle.file(candidate.file), stage.profile.batches, on_cpu=True)
        )
    return cases


def audit(
    bundle: Bundle,
    cases: Sequence[GraphCase],
    *,
    device: Callable[[], Backend],
    cpu: Callable[[], Backend],
    audio: Sequence[Path] = (),
) -> Iterator[GraphResult]:
    """Verify each case: engines on ``device``, heads (and stages that fell back) on ``cpu``.

    ``device`` is opened only when an engine is there to be run. With ``audio``, windows of these files are compared
    too, against the FP32 file on the CPU.

    Raises:
        DeviceError: the device cannot be used.
        BundleError: a file of the bundle was altered, or a head does not fit.
        UsageError: a file of ``audio`` cannot be used.
    """
    references = all_expected(bundle)
    with ExitStack() as opened:
        heads_backend = opened.enter_context(cpu())
        device_backend: Backend | None = None
        for case in cases:
            if case.problem is not None:
                yield GraphResult(case, *case.problem)
                continue
            if case.on_cpu:
                backend = heads_backend
            else:
                device_backend = device_backend or opened.enter_context(device())
                backend = device_backend
            yield verify_graph(bundle, case, references, backend, heads_backend, audio)


def all_expected(bundle: Bundle) -> dict[str, Expected | None]:
    """The reference vectors of every stage. Raises what ``reference_expected`` raises."""
    return {entry.name: reference_expected(bundle, entry.name) for entry in bundle.manifest.stages}


def verify_graph(
    bundle: Bundle,
    case: GraphCase,
    references: Mapping[str, Expected | None],
    backend: Backend,
    cpu: Backend,
    audio: Sequence[Path] = (),
) -> GraphResult:
    """Run one case on ``backend`` and compare it with its reference vectors and, on ``cpu``, through its heads.

    Args:
        bundle: whose stage it is.
        case: the graph, with its file.
        references: see ``all_expected``.
        backend: the device.
        cpu: for heads, and for the FP32 file on ``audio``.
        audio: files of the user's own to be compared on.

    Raises:
        BundleError: a head was altered, cannot be opened or run, or does not fit.
        UsageError: a file of ``audio`` cannot be used.
        MemoryError: the device has too little memory.
    """
    encoder = bundle.manifest.stage(case.stage).encoder
    expected = references[case.stage]
    if not isinstance(encoder, WaveformEntry) or case.file is None:
        raise EngineError(f"stage {case.stage} has no graph to verify")
    if expected is None and not audio:
        return GraphResult(case, "not verified", NO_VECTORS)
    notes = head_notes(bundle, case.stage, references)
    checks: tuple[BatchCheck, ...] = ()
    wrong: list[str] = []
    try:
        graph = open_encoder(backend, case.file, encoder, max(case.batches))
    except EngineError as error:
        return GraphResult(case, "mismatch", f"it cannot be opened: {error}", notes=notes)
    try:
        if expected is not None:
            with open_heads(bundle, case.stage, references, cpu) as heads:
                checks = check_graph(graph, expected, case.batches, heads)
            if heads and not checks[0].heads:
                notes.append("its heads were not asked: on no reference input is their top genre clear")
            wrong += faults(checks, case.precision)
        for file in audio:
            own, note = audio_expected(bundle, case, file, cpu)
            if own is None:
                notes.append(note)
                continue
            heard = check_graph(graph, own, case.batches[-1:], ())
            wrong += [f"{file.name}: {fault}" for fault in faults(heard, case.precision)]
            notes.append(f"{file.name}: cosine {heard[0].cosine:.6f}, relative error {heard[0].relative:.2g}")
    except EngineError as error:
        return GraphResult(case, "mismatch", f"it cannot be run: {error}", notes=notes)
    finally:
        graph.close()
    if wrong:
        return GraphResult(case, "mismatch", "; ".join(wrong), checks, notes)
    if case.on_cpu:
        notes.append("its engines were rejected on this device, so it runs with ONNX Runtime on the CPU")
    return GraphResult(case, "ok" if checks or audio else "not verified", "", checks, notes)


def audio_expected(bundle: Bundle, case: GraphCase, file: Path, cpu: Backend) -> tuple[Expected | None, str]:
    """Windows from the middle 30 s of ``file`` and what the FP32 file gives for them on the CPU; or None and why.

    Raises:
        UsageError: the file cannot be decoded.
    """
    encoder = bundle.manifest.stage(case.stage).encoder
    source = encoder.graph_files.get("fp32")
    if not isinstance(encoder, WaveformEntry) or source is None:
        return None, f"{file.name}: not compared, the bundle has no FP32 file for {case.stage}"
    if case.file == bundle.file(source):
        return None, f"{file.name}: not compared, this file on this CPU is what others are compared with"
    inputs = _windows(file, encoder)
    graph = open_encoder(cpu, bundle.file(source), encoder, len(inputs))
    try:
        graph.input[: len(inputs)] = inputs
        return Expected(inputs, graph.run(len(inputs)).copy()), ""
    finally:
        graph.close()


def _windows(file: Path, encoder: WaveformEntry) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    samples = read_middle(file, _AUDIO_SECONDS, encoder.rate)
    starts = windows(len(samples), encoder.window_samples, encoder.hop_samples, "repeat")[:_AUDIO_WINDOWS]
    rows = np.empty((len(starts), encoder.window_samples), np.float32)
    for row, start in zip(rows, starts, strict=True):
        fill_window(samples, start, "repeat", row)
    return rows


def verification(bundle: Bundle, result: GraphResult) -> Verification | None:
    """What an engine's record says of a result that agrees with the reference vectors; None of any other."""
    encoder = bundle.manifest.stage(result.case.stage).encoder
    if result.status != "ok" or not result.checks or not isinstance(encoder, WaveformEntry) or not encoder.reference:
        return None
    return Verification(bundle.manifest.files[encoder.reference].sha256, result.checks)


def record_result(bundle: Bundle, store: EngineStore, result: GraphResult) -> str | None:
    """Write into an engine's record what was found: verified, or rejected so that nothing loads it. Gives a remark."""
    engine = result.case.engine
    encoder = bundle.manifest.stage(result.case.stage).encoder
    if engine is None or not isinstance(encoder, WaveformEntry) or encoder.reference is None:
        return None
    record, remark = engine.record, None
    if result.status == "mismatch":
        record = msgspec.structs.replace(record, rejected=result.detail, verification=None)
        again = engine_command("build", bundle.root, [record.stage], "--rebuild")
        remark = f"{engine.folder} is marked as rejected; {again}  tries again"
    elif (proved := verification(bundle, result)) is not None:
        record = msgspec.structs.replace(record, verification=proved, not_verified=None)
    if record != engine.record:
        try:
            store.update(record)
        except UsageError as error:
            return f"not recorded: {error}"
    return remark
