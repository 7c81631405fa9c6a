"""Reads a plan for loading: its record, where one lies beside it, must be this device's, and its bytes those hashed."""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec

from edge_reclass.engines import (
    RECORD,
    EngineKey,
    EngineRecord,
    StoredEngine,
    Target,
    describe_target,
    differences,
    engine_bytes,
)
from edge_reclass.errors import EngineError

__all__ = ["read_plan", "rebuild_command"]


def read_plan(file: Path, target: Target) -> bytes:
    """The serialised engine in ``file``, which is safe to load on ``target``.

    A plan without a record is loaded as it is: ``build`` verifies an engine before it publishes both.

    Raises:
        EngineError: the record belongs to another device, version or folder, the engine was rejected, or the plan is
            missing, cut off or altered.
    """
    record = _record(file)
    if record is None:
        try:
            return file.read_bytes()
        except OSError as error:
            raise EngineError(f"{file}: cannot be read ({error.strerror}); {rebuild_command(file)}") from error
    here = EngineKey(record.key.onnx_sha256, target, record.key.profile)
    if wrong := differences(record.key, here):
        raise EngineError(
            f"{file}: this engine is not for {describe_target(target)}: {'; '.join(wrong)};"
            f" {rebuild_command(file, record.stage)}"
        )
    return engine_bytes(StoredEngine(file.parent, record), _bundle(file))


def rebuild_command(file: Path, stage: str | None = None, *options: str) -> str:
    """``build it again: edge-reclass build …`` for the bundle in whose folder the engine lies."""
    command = ["edge-reclass", "build", str(_bundle(file)), *(["--stage", stage] if stage else []), *options]
    return f"build it again: {shlex.join(command)}"


def stage_of(file: Path) -> str | None:
    """The stage that the engine's record names, if it has one."""
    record = _record(file)
    return None if record is None else record.stage


def _record(file: Path) -> EngineRecord | None:
    path = file.parent / RECORD
    try:
        record = msgspec.json.decode(path.read_bytes(), type=EngineRecord)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineError(f"{path}: no record of an engine ({error}); {rebuild_command(file)}") from error
    if record.key.name != file.parent.name:
        raise EngineError(
            f"{path}: this record belongs to {record.key.name}; it was altered or moved;"
            f" {rebuild_command(file, record.stage)}"
        )
    return record


def _bundle(file: Path) -> Path:
    """BUNDLE of BUNDLE/engines/KEY/engine.plan; the word itself where engines lie elsewhere."""
    parents = file.absolute().parents
    if len(parents) > 2 and parents[1].name == "engines" and (parents[2] / "bundle.yaml").is_file():
        return parents[2]
    return Path("BUNDLE")
