"""Puts engines into their folder: complete or not at all, whatever interrupts a build."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_reclass.engines import ENGINES_VARIABLE, PLAN, RECORD, EngineRecord, make_secret
from edge_reclass.errors import UsageError

_WORK = ".building-"
_LOCK = "lock"


class EngineStore:
    """The folder of one bundle's engines in an engine store, both made when the first engine is built.

    Other users may read all of it but the secret, which is for the group of the store's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, record: EngineRecord) -> Path:
        """Where the engine of ``record`` lies."""
        return self.root / record.key.name

    def require_writable(self) -> None:
        """Raises ``UsageError`` where no engine can be written; nothing is made."""
        nearest = self.root
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            reason = "not writable" if nearest.is_dir() else f"{nearest} is not a folder"
            raise UsageError(_nowhere(self.root, reason))

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """An empty folder on the same file system as the engines, gone afterwards.

        What builds that were killed have left behind is removed first.

        Raises:
            UsageError: the folder cannot be made.
            EngineError: others may write it, or its secret cannot be read.
        """
        made = not self.root.exists()
        try:
            for folder in (self.root.parent, self.root):
                if not folder.exists():
                    folder.mkdir(parents=True)
                    folder.chmod(0o755)
            make_secret(self.root.parent).require_trusted(self.root)
            self._sweep()
            work = Path(tempfile.mkdtemp(prefix=_WORK, dir=self.root))
        except OSError as error:
            raise UsageError(_nowhere(self.root, error.strerror or str(error))) from error
        try:
            with (work / _LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if made and not any(self.root.iterdir()):
                self.root.rmdir()

    def _sweep(self) -> None:
        for left in self.root.glob(_WORK + "*"):
            try:
                with (left / _LOCK).open("r") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # another build is at work there
            except FileNotFoundError:
                continue  # it is being made
            shutil.rmtree(left, ignore_errors=True)

    def publish(self, work: Path, plan: Path | None, record: EngineRecord) -> None:
        """Move ``plan`` (None for a rejected precision) and its record into their folder, in one step.

        Raises:
            UsageError: the folder cannot be written.
        """
        ready, target = work / "ready", self.folder(record)
        try:
            ready.mkdir()
            ready.chmod(0o755)
            if plan is not None:
                plan.replace(ready / PLAN)
                (ready / PLAN).chmod(0o644)
            self._write_record(ready / RECORD, record)
            if target.exists():
                target.replace(work / "old")
            ready.replace(target)
            shutil.rmtree(work / "old", ignore_errors=True)
        except OSError as error:
            raise UsageError(_nowhere(target, error.strerror or str(error))) from error

    def update(self, record: EngineRecord) -> None:
        """Replace the record of an engine that stays.

        Raises:
            UsageError: the folder cannot be written.
        """
        file = self.folder(record) / RECORD
        fresh = file.with_name(RECORD + ".part")
        try:
            self._write_record(fresh, record)
            fresh.replace(file)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise UsageError(_nowhere(file, error.strerror or str(error))) from error

    def _write_record(self, path: Path, record: EngineRecord) -> None:
        signed = record.signed_by(make_secret(self.root.parent))
        with path.open("wb") as file:
            file.write(signed.to_json().encode())
            file.flush()
            os.fsync(file.fileno())
        path.chmod(0o644)

    def keep_timing_cache(self, fresh: Path, file: Path) -> None:
        """Replace the timing cache ``file`` by what the build left in its workspace, in one step.

        Raises:
            UsageError: it cannot be written.
        """
        beside = file.with_name(f".{file.name}.part")
        try:
            shutil.copyfile(fresh, beside)
            beside.replace(file)
        except OSError as error:
            raise UsageError(f"--timing-cache {file}: cannot be written ({error.strerror})") from error
        finally:
            beside.unlink(missing_ok=True)


def _nowhere(path: Path, reason: str) -> str:
    return (
        f"engines cannot be written to {path} ({reason});"
        f" name a folder that can with --engines DIR or {ENGINES_VARIABLE}"
    )
