"""What lies in an engine store for a bundle, and which engines the runtime would take, for ``edge-reclass doctor``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from edge_reclass.bundle import Bundle
from edge_reclass.cascade import largest_batches
from edge_reclass.engines import (
    ENGINE_PRECISIONS,
    RECORD,
    EngineState,
    Flavour,
    StoredEngine,
    Target,
    choose_engines,
    describe_target,
    engine_states,
    stored_engines,
    survey,
    target_for,
)
from edge_reclass.errors import DeviceError, EngineError, UsageError
from edge_reclass_doctor.machine import Machine
from edge_reclass_doctor.report import EngineRow, EnginesState, Problem

Command = Callable[..., str]
"""``engines.engine_command`` for this bundle and store: verb, stages and options."""


def engine_target(machine: Machine, tensorrt: tuple[Flavour, str] | None) -> tuple[Target | None, str | None]:
    """What engines have to be built for to be used here, or None and why none could be.

    Args:
        machine: what was found of it.
        tensorrt: flavour and version of the TensorRT that can be loaded.
    """
    if machine.gpu is None:
        return None, "there is no GPU to run engines on"
    if tensorrt is None:
        return None, "there is no TensorRT to run engines with"
    try:
        return target_for(*tensorrt, gpu=machine.gpu), None
    except DeviceError as error:
        return None, str(error)


def survey_engines(
    bundle: Bundle | None,
    runs: Collection[str],
    folder: Path,
    target: Target | None,
    reason: str | None,
    command: Command,
) -> tuple[EnginesState, list[Problem]]:
    """Look at ``folder`` for each stage with a graph; with no ``target``, at what lies there at all.

    Args:
        bundle: None where it cannot be used.
        runs: the stages that a missing engine keeps from running.
        folder: where the bundle's engines lie.
        target: what engines have to be built for.
        reason: why there is no target.
        command: gives the command that builds or verifies.
    """
    rows: list[EngineRow] = []
    problems: list[Problem] = []
    on_cpu: list[str] = []
    readable = True
    try:
        stored = [] if bundle is None else list(stored_engines(folder))
        unreadable = [entry for entry in stored if isinstance(entry, str)]
        for entry in unreadable:
            broken = entry.partition(f"/{RECORD}: ")[0]  # the folder of the engine whose record this is
            problems.append(Problem("engines-unreadable", entry, f"rm -r {shlex.quote(broken)} && {command('build')}"))
        if bundle is not None and target is None:
            others = [_other(bundle, folder, entry) for entry in stored if isinstance(entry, StoredEngine)]
            rows = [_other_row(bundle, state) for state in others]
            problems += [problem for state in others for problem in _damage(state, command)]
        elif bundle is not None and target is not None:
            batches = largest_batches(bundle, [stage.name for stage in bundle.manifest.stages])
            every = engine_states(bundle, batches, target, folder)
            for stage, batch in batches.items():
                states = [state for state in every if state.stage == stage]
                used = None
                try:
                    choice = choose_engines(bundle, {stage: batch}, target, folder, states)[stage]
                except EngineError as error:
                    problems += _unusable(stage, states, str(error), ("tensorrt",) if stage in runs else (), command)
                else:
                    if choice.device is None:
                        used = choice.precision
                    else:
                        on_cpu.append(stage)
                        again = command("build", [stage], "--rebuild")
                        problems.append(Problem("engine-rejected", f"stage {stage} {choice.note}", again))
                    problems += _remarks(states, used, command)
                rows += [_row(state, state.precision == used) for state in states]
    except (UsageError, EngineError) as error:
        readable, unreadable = False, [str(error)]
        fix = f"ls -ld {shlex.quote(str(folder))}   (it has to be a folder that this user may read)"
        problems.append(Problem("engines-unreadable", str(error), fix, ("tensorrt",)))
    return EnginesState(
        folder=str(folder),
        readable=readable,
        writable=_writable(folder),
        target=None if target is None else describe_target(target),
        reason=reason,
        engines=tuple(rows),
        on_cpu=tuple(on_cpu),
        unreadable=tuple(unreadable),
        onnx_bytes=0 if bundle is None else _onnx_bytes(bundle),
    ), problems


def _unusable(
    stage: str, states: Sequence[EngineState], error: str, blocks: tuple[str, ...], command: Command
) -> Iterator[Problem]:
    """Why ``choose_engines`` refuses a stage."""
    found = {state.found.status for state in states}
    if "damaged" in found:
        for state in states:
            yield from _damage(state, command, blocks)
    else:
        code = "engine-stale" if "stale" in found else "engine-missing"
        yield Problem(code, error.partition("; next: ")[0], command("build", [stage]), blocks)


def _remarks(states: Sequence[EngineState], used: str | None, command: Command) -> Iterator[Problem]:
    """What is worth knowing of a stage that runs: damage beside the engine that is used, or one never compared."""
    for state in states:
        yield from _damage(state, command)
        engine = state.found.engine
        if state.precision == used and engine is not None and engine.record.verification is None:
            verify = command("verify", [state.stage])
            message = f"engine of {state.stage} {used}: {state.found.reason}"
            yield Problem("engine-unverified", message, f"{verify} --device tensorrt")


def _damage(state: EngineState, command: Command, blocks: tuple[str, ...] = ()) -> Iterator[Problem]:
    if state.found.status == "damaged":
        message = f"engine of {state.stage} {state.precision}: {state.found.reason}"
        yield Problem("engine-damaged", message, command("build", [state.stage]), blocks)


def _other(bundle: Bundle, folder: Path, entry: StoredEngine) -> EngineState:
    """An engine compared with its own record; only its integrity can be checked."""
    record = entry.record
    found = survey(folder, record.key, bundle=bundle.root, stage=record.stage, precision=record.precision, exact=True)
    return EngineState(record.stage, record.precision, found)


def _row(state: EngineState, used: bool) -> EngineRow:
    found = state.found
    record = None if found.engine is None else found.engine.record
    whole = record if record is not None and record.sha256 is not None else None
    return EngineRow(
        stage=state.stage,
        precision=state.precision,
        status=found.status,
        reason=found.reason,
        used=used,
        folder=None if found.engine is None else str(found.engine.folder),
        target=None if record is None else describe_target(record.key.target),
        bytes=None if whole is None else whole.bytes,
        max_batch=None if whole is None else whole.key.profile.max,
        verified=None if whole is None else whole.verification is not None,
    )


def _other_row(bundle: Bundle, state: EngineState) -> EngineRow:
    row = _row(state, used=False)
    engine = state.found.engine
    if state.found.status != "present" or engine is None:
        return row
    key = engine.record.key
    built = f"built for {describe_target(key.target)}"
    known = {file.sha256 for file in bundle.manifest.files.values()}
    reason = f"whole; {built}" if key.onnx_sha256 in known else f"{built}, from a file that is not in this bundle"
    return msgspec.structs.replace(row, status="other", reason=reason)


def _onnx_bytes(bundle: Bundle) -> int:
    files = (stage.encoder.graph_files for stage in bundle.manifest.stages)
    chosen = (next((one[precision] for precision in ENGINE_PRECISIONS if precision in one), None) for one in files)
    return sum(bundle.manifest.files[file].bytes for file in chosen if file is not None)


def _writable(folder: Path) -> bool:
    """Whether this user could write engines there: into the folder, or into the nearest one that exists."""
    whole = folder.absolute()
    nearest = next((one for one in (whole, *whole.parents) if one.exists()), None)
    return nearest is not None and nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
