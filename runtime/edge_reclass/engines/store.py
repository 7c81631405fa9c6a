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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from edge_reclass.bundle import file_entry
from edge_reclass.engines.record import EngineKey, EngineRecord, Target, describe_target, differences
from edge_reclass.engines.trust import ENGINES_VARIABLE, StoreKey, default_store, open_store
from edge_reclass.errors import EngineError, UsageError

PLAN, RECORD = "engine.plan", "engine.json"
_BUNDLE = Path("BUNDLE")


@dataclass(frozen=True)
class StoredEngine:
    """A folder with an engine and its record."""

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
    part of the nearest one's key differs. ``damaged``: engine or record were altered or cut off. ``rejected``: it was
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
        EngineError: there is none, it is not signed or was altered or moved, or others may write it or the engine.
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
    """What lies in ``folder`` for ``want``: the engine's size and sha256 are checked too.

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
            _check_content(engine, bundle)
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


def read_engine(file: Path, target: Target) -> tuple[bytes, str]:
    """An engine of a store that is safe to load on ``target``: its bytes, and the stage that its record names.

    The file is read once, so that what was hashed is what is loaded.

    Raises:
        EngineError: others may write the store; the record is missing or not signed, or belongs to another device,
            version or folder; the engine was rejected; or the file is missing, cut off or altered.
    """
    folder = file.absolute().parent
    try:
        record = read_record(folder, open_store(folder.parent.parent))
    except EngineError as error:
        raise EngineError(f"{error}; {rebuild_command(None)}") from error
    again = rebuild_command(record.stage)
    if wrong := differences(record.key, EngineKey(record.key.onnx_sha256, target, record.key.profile)):
        raise EngineError(f"{file}: this engine is not for {describe_target(target)}: {'; '.join(wrong)}; {again}")
    if record.rejected is not None:
        command = engine_command("build", _BUNDLE, [record.stage], "--rebuild")
        raise EngineError(f"{folder}: {record.stage} was rejected here: {record.rejected}; {command}  tries again")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise EngineError(f"{file}: cannot be read ({error.strerror}); {again}") from error
    _compare(file, record, len(content), hashlib.sha256(content).hexdigest(), again)
    return content, record.stage


def _check_content(engine: StoredEngine, bundle: Path) -> None:
    """Compare the engine's file with its record, without holding it in memory."""
    record, again = engine.record, rebuild_command(engine.record.stage, bundle=bundle)
    try:
        size = engine.plan.stat().st_size
        digest = file_entry(engine.plan).sha256 if size == record.bytes else ""
    except OSError as error:
        raise EngineError(f"{engine.plan}: cannot be read ({error.strerror}); {again}") from error
    _compare(engine.plan, record, size, digest, again)


def _compare(file: Path, record: EngineRecord, size: int, digest: str, again: str) -> None:
    if size != record.bytes:
        raise EngineError(f"{file}: expected {record.bytes} bytes, got {size}; {again}")
    if digest != record.sha256:
        raise EngineError(f"{file}: expected sha256 {record.sha256}, got {digest}; {again}")


def engine_command(verb: Literal["build", "verify"], bundle: Path, stages: Iterable[str] = (), *options: str) -> str:
    """``edge-reclass build BUNDLE --stage STAGE …``, to be copied into a shell."""
    named = [word for stage in stages for word in ("--stage", stage)]
    return shlex.join(["edge-reclass", verb, str(bundle), *named, *options])


def rebuild_command(stage: str | None, *options: str, bundle: Path = _BUNDLE) -> str:
    """``build it again: edge-reclass build BUNDLE …``."""
    return f"build it again: {engine_command('build', bundle, [stage] if stage else [], *options)}"
