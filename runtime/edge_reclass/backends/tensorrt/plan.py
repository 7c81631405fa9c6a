"""Reads a plan for loading: its record must be signed and this device's, and its bytes those that were hashed."""

from __future__ import annotations

import shlex
from pathlib import Path

from edge_reclass.engines.record import EngineKey, EngineRecord, Target, describe_target, differences
from edge_reclass.engines.store import StoredEngine, engine_bytes, read_record
from edge_reclass.engines.trust import open_store
from edge_reclass.errors import EngineError

__all__ = ["read_plan", "rebuild_command", "stage_of"]

_BUNDLE = Path("BUNDLE")


def read_plan(file: Path, target: Target) -> bytes:
    """The serialised engine in ``file`` of an engine store, which is safe to load on ``target``.

    Raises:
        EngineError: others may write the store; the record is missing or not signed, or belongs to another device,
            version or folder; the engine was rejected; or the plan is missing, cut off or altered.
    """
    try:
        record = _record(file)
    except EngineError as error:
        raise EngineError(f"{error}; {rebuild_command(None)}") from error
    here = EngineKey(record.key.onnx_sha256, target, record.key.profile)
    if wrong := differences(record.key, here):
        raise EngineError(
            f"{file}: this engine is not for {describe_target(target)}: {'; '.join(wrong)};"
            f" {rebuild_command(record.stage)}"
        )
    return engine_bytes(StoredEngine(file.parent, record), _BUNDLE)


def rebuild_command(stage: str | None, *options: str) -> str:
    """``build it again: edge-reclass build BUNDLE …``."""
    command = ["edge-reclass", "build", str(_BUNDLE), *(["--stage", stage] if stage else []), *options]
    return f"build it again: {shlex.join(command)}"


def stage_of(file: Path) -> str | None:
    """The stage that the engine's record names; None for a plan outside of a store."""
    try:
        return _record(file).stage
    except EngineError:
        return None


def _record(file: Path) -> EngineRecord:
    folder = file.absolute().parent
    return read_record(folder, open_store(folder.parent.parent))
