"""Engines on the disk: where they lie, and whether one may be loaded here.

An engine is a bundle's ONNX file compiled for one device, and loading it runs native code. So each lies in a folder
named by its key, ``<store>/<bundle's digest>/<key>/``, as ``engine.plan`` beside its record ``engine.json``, signed
with the store's secret (``trust.py``). Whatever differs from what is wanted here is refused, with the command that
builds it again. Nothing in this module needs TensorRT.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from edge_reclass.engines.record import (
    EngineKey,
    EngineRecord,
    differences,
)
from edge_reclass.engines.trust import ENGINES_VARIABLE, StoreKey, default_store, open_store
from edge_reclass.errors import EngineError, UsageError

__all__ = [
    "PLAN",
    "RECORD",
    "Found",
    "StoredEngine",
    "engine_bytes",
    "engines_folder",
    "read_record",
    "stored_engines",
    "survey",
]

PLAN, RECORD = "engine.plan", "engine.json"


@dataclass(frozen=True)
class StoredEngine:
    """A folder of an engine and its record."""

    folder: Path
    record: EngineRecord

    @property
    def plan(self) -> Path:
        """The serialised engine."""
        return self.folder / PLAN


@dataclass(frozen=True)
class Found:
    """What lies there for a wanted key. Only a ``present`` engine may be loaded.

    ``missing``: nothing for this stage and precision. ``stale``: only engines of other keys; ``reason`` says which
    part of the nearest one's key differs. ``damaged``: plan or record were altered or cut off. ``rejected``: it was
    built and gave wrong numbers here, or could not be built.
    """

    status: Literal["missing", "stale", "damaged", "rejected", "present"]
    reason: str
    engine: StoredEngine | None = None


def engines_folder(digest: str, option: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the engines of the bundle of this ``digest`` lie, in the store ``--engines`` or the default one."""
    return (option or default_store(environ)) / digest


def stored_engines(folder: Path) -> Iterator[StoredEngine | str]:
    """Every engine below ``folder``, in the order of their names; for a record that cannot be used, what is wrong.

    Raises:
        UsageError: the folder is there but cannot be read.
        EngineError: others may write the store, or its secret cannot be read.
    """
    try:
        entries = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(
            f"engines cannot be read from {folder} ({error.strerror});"
            f" name their folder with --engines DIR or {ENGINES_VARIABLE}"
        ) from error
    if not entries:
        return
    key = open_store(folder.parent)
    key.require_trusted(folder)
    for entry in entries:
        try:
            yield StoredEngine(entry, read_record(entry, key))
        except EngineError as error:
            yield str(error)


def read_record(entry: Path, key: StoreKey) -> EngineRecord:
    """The record in an engine's folder, which this store has signed.

    Raises:
        EngineError: there is none, it is not signed or was altered or moved, or others may write it or the plan.
    """
    file = entry / RECORD
    try:
        for path in (entry, file, entry / PLAN):
            if path.exists():
                key.require_trusted(path)
        record = msgspec.json.decode(file.read_bytes(), type=EngineRecord)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineError(f"{file}: no record of an engine ({error})") from error
    if record.key.name != entry.name:
        raise EngineError(f"{file}: this record belongs to {record.key.name}; it was altered or moved")
    if not record.is_signed_by(key):
        raise EngineError(f"{file}: not signed with the secret of {key.store}, so it was not built here or was altered")
    return record


def survey(folder: Path, want: EngineKey, *, bundle: Path, stage: str, precision: str, exact: bool = False) -> Found:
    """What lies in ``folder`` for ``want``: the plan's size and sha256 are checked too.

    ``stage`` and ``precision`` tell which engines of other keys are this encoder's, for the reason. Unless ``exact``,
    the engine's largest batch (``engine.record.key.profile.max``) may be another than the wanted one; it is the
    largest at which it may be run. ``bundle`` is the bundle's folder, for the command in the reason.

    Raises:
        UsageError: the folder cannot be read.
    """
    stale: list[tuple[list[str], StoredEngine]] = []
    fitting: list[StoredEngine] = []
    broken: str | None = None
    for entry in stored_engines(folder):
        if isinstance(entry, str):
            broken = entry if want.name in entry else broken
        elif wrong := differences(entry.record.key, want, exact=exact):
            if (entry.record.stage, entry.record.precision) == (stage, precision):
                stale.append((wrong, entry))
        else:
            fitting.append(entry)
    if fitting:
        engine = min(fitting, key=lambda one: _preference(one.record, want.profile.max))
        if engine.record.rejected is not None:
            return Found("rejected", engine.record.rejected, engine)
        try:
            _check_plan(engine, bundle)
        except EngineError as error:
            return Found("damaged", str(error), engine)
        reason = "verified" if engine.record.verification else f"not verified: {engine.record.not_verified}"
        return Found("present", reason, engine)
    if broken is not None:
        return Found("damaged", broken)
    if stale:
        wrong, engine = min(stale, key=lambda item: len(item[0]))
        return Found("stale", "; ".join(wrong), engine)
    return Found("missing", f"no engine of {stage} {precision} in {folder}")


def _preference(record: EngineRecord, batch: int) -> tuple[bool, bool, int]:
    """Sorts a usable engine before a rejected one, one that takes ``batch`` before one that does not.

    Of those that do, the smallest buffers are best; of those that do not, the largest batch.
    """
    most = record.key.profile.max
    return record.rejected is not None, most < batch, most if most >= batch else -most


def engine_bytes(engine: StoredEngine, bundle: Path) -> bytes:
    """The plan, read once and checked, so that what was hashed is what is loaded. ``bundle`` is for the message.

    Raises:
        EngineError: the engine was rejected, or its plan is missing, cut off or altered.
    """
    if engine.record.rejected is not None:
        raise EngineError(
            f"{engine.folder}: {engine.record.stage} was rejected here: {engine.record.rejected};"
            f" edge-reclass build {shlex.quote(str(bundle))} --stage {engine.record.stage} --rebuild  tries again"
        )
    try:
        content = engine.plan.read_bytes()
    except OSError as error:
        raise EngineError(f"{engine.plan}: cannot be read ({error.strerror}); {_fix(engine, bundle)}") from error
    _compare(engine, bundle, len(content), hashlib.sha256(content).hexdigest())
    return content


def _check_plan(engine: StoredEngine, bundle: Path) -> None:
    """As :func:`engine_bytes`, without holding the plan in memory."""
    digest = hashlib.sha256()
    try:
        size = engine.plan.stat().st_size
        if size == engine.record.bytes:
            with engine.plan.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        raise EngineError(f"{engine.plan}: cannot be read ({error.strerror}); {_fix(engine, bundle)}") from error
    _compare(engine, bundle, size, digest.hexdigest())


def _compare(engine: StoredEngine, bundle: Path, size: int, digest: str) -> None:
    record = engine.record
    if size != record.bytes:
        raise EngineError(f"{engine.plan}: expected {record.bytes} bytes, got {size}; {_fix(engine, bundle)}")
    if digest != record.sha256:
        raise EngineError(f"{engine.plan}: expected sha256 {record.sha256}, got {digest}; {_fix(engine, bundle)}")


def _fix(engine: StoredEngine, bundle: Path) -> str:
    return f"build it again: edge-reclass build {shlex.quote(str(bundle))} --stage {engine.record.stage}"
