"""What a bundle and its engines are like on the disk, for ``edge-reclass doctor``."""

from __future__ import annotations

import os
from pathlib import Path

from edge_reclass.bundle import Bundle, load
from edge_reclass.cascade import choose_policy, largest_batches, untrained
from edge_reclass.engines import (
    ENGINE_PRECISIONS,
    Flavour,
    Found,
    StoredEngine,
    Target,
    describe_target,
    engine_states,
    stored_engines,
    survey,
    target_for,
)
from edge_reclass.errors import BundleError, DeviceError, EngineError, UsageError
from edge_reclass.host import Gpu
from edge_reclass_doctor.machine import Machine
from edge_reclass_doctor.report import BundleState, EnginesState, EngineState

__all__ = ["engine_target", "survey_bundle", "survey_engines"]


def survey_bundle(path: Path) -> tuple[Bundle | None, BundleState]:
    """Load a bundle and check every file; None where its manifest cannot be used."""
    try:
        bundle = load(path)
        policy = choose_policy(bundle)
    except BundleError as error:
        return None, BundleState(str(path), None, None, 0, 0, None, (), (), (str(error),))
    faults = []
    for check in (bundle.require_exact, *(bundle.file(file).check for file in bundle.manifest.files)):
        try:
            check()
        except BundleError as error:
            faults.append(str(error))
    files = bundle.manifest.files
    return bundle, BundleState(
        path=str(path),
        name=bundle.name,
        digest=bundle.digest,
        files=len(files),
        bytes=sum(entry.bytes for entry in files.values()),
        policy=policy.name,
        stages=policy.stages,
        untrained=tuple(untrained(bundle, policy)),
        faults=tuple(faults),
    )


def engine_target(machine: Machine, tensorrt: tuple[Flavour, str] | None) -> tuple[Target | None, str | None]:
    """What engines have to be built for to be used here, or None and why none could be.

    Args:
        tensorrt: flavour and version of the TensorRT that can be loaded.
    """
    if machine.gpu is None:
        return None, "there is no GPU to run engines on"
    if tensorrt is None:
        return None, "there is no TensorRT to run engines with"
    gpu = Gpu(machine.gpu.name, machine.gpu.sm, machine.gpu.driver)
    try:
        return target_for(*tensorrt, gpu=gpu), None
    except DeviceError as error:
        return None, str(error)


def survey_engines(bundle: Bundle | None, folder: Path, target: Target | None, reason: str | None) -> EnginesState:
    """What lies in ``folder`` for each stage with a graph; with no ``target``, what lies there at all."""
    states: list[EngineState] = []
    readable = True
    try:
        stored = [] if bundle is None else list(stored_engines(folder))
        unreadable = [entry for entry in stored if isinstance(entry, str)]
        if bundle is not None and target is not None:
            states = _wanted(bundle, folder, target)
        elif bundle is not None:
            states = [_other(bundle, folder, entry) for entry in stored if isinstance(entry, StoredEngine)]
    except (UsageError, EngineError) as error:
        readable, unreadable = False, [str(error)]
    return EnginesState(
        folder=str(folder),
        readable=readable,
        writable=_writable(folder),
        target=None if target is None else describe_target(target),
        reason=reason,
        engines=tuple(states),
        unreadable=tuple(unreadable),
        onnx_bytes=0 if bundle is None else _onnx_bytes(bundle),
    )


def _wanted(bundle: Bundle, folder: Path, target: Target) -> list[EngineState]:
    states: list[EngineState] = []
    names = [stage.name for stage in bundle.manifest.stages]
    for one in engine_states(bundle, largest_batches(bundle, names), target, folder):
        taken = any(state.used for state in states if state.stage == one.stage)
        used = one.found.status == "present" and not taken
        states.append(_state(one.stage, one.precision, one.found, one.found.status, used))
    return states


def _other(bundle: Bundle, folder: Path, entry: StoredEngine) -> EngineState:
    """An engine held against its own key: whether it is whole is all that can be said of it."""
    record = entry.record
    found = survey(folder, record.key, bundle=bundle.root, stage=record.stage, precision=record.precision, exact=True)
    if found.status != "present":
        return _state(record.stage, record.precision, found, found.status, False)
    files = _files(bundle, record.stage)
    entry_of = bundle.manifest.files.get(files.get(record.precision, ""))
    if entry_of is None or entry_of.sha256 != record.key.onnx_sha256:
        reason = f"built from a file that is not in this bundle, for {describe_target(record.key.target)}"
    else:
        reason = f"whole; built for {describe_target(record.key.target)}"
    return _state(record.stage, record.precision, Found("present", reason, entry), "other", False)


def _state(stage: str, precision: str, found: Found, status: str, used: bool) -> EngineState:
    engine = found.engine
    record = None if engine is None else engine.record
    whole = record is not None and record.sha256 is not None
    return EngineState(
        stage=stage,
        precision=precision,
        status=status,  # type: ignore[arg-type]
        reason=found.reason,
        used=used,
        folder=None if engine is None else str(engine.folder),
        target=None if record is None else describe_target(record.key.target),
        bytes=record.bytes if record is not None and whole else None,
        max_batch=record.key.profile.max if record is not None and whole else None,
        verified=record.verification is not None if record is not None and whole else None,
    )


def _files(bundle: Bundle, stage: str) -> dict[str, str]:
    """ONNX file of each precision; empty for a stage that does not exist or has no graph."""
    try:
        encoder = bundle.manifest.stage(stage).encoder
    except KeyError:
        return {}
    return dict(encoder.graph_files)


def _onnx_bytes(bundle: Bundle) -> int:
    files = (_files(bundle, stage.name) for stage in bundle.manifest.stages)
    chosen = (next((one[precision] for precision in ENGINE_PRECISIONS if precision in one), None) for one in files)
    return sum(bundle.manifest.files[file].bytes for file in chosen if file is not None)


def _writable(folder: Path) -> bool:
    """Whether this user could write engines there: into the folder, or into the nearest one that exists."""
    whole = folder.absolute()
    nearest = next((one for one in (whole, *whole.parents) if one.exists()), None)
    return nearest is not None and nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
