"""What a run has measured so far, on disk: a header and one line per event, so that nothing is lost with the process.

``FILE.partial`` is made before anything is measured and removed when ``FILE`` is complete. What a kill leaves can be
read like any record (``read``), and says that it is incomplete; no later run writes over it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import msgspec
from msgspec import Struct

from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass_bench.collector import Collector
from edge_reclass_bench.record import FORMAT, KIND, Machine, PolicyRecord, Record, Settings, Subject, faults
from edge_reclass_bench.scenarios.context import Event, Opened

PARTIAL: Final = "edge-reclass-bench-partial"


class Header(Struct, frozen=True, kw_only=True):
    """What is known before the first pass."""

    kind: Literal["edge-reclass-bench-partial"] = "edge-reclass-bench-partial"
    format: Literal[2] = 2
    bundle: str
    bundle_sha256: str
    genres: list[str]
    needs: dict[str, tuple[str, ...]]
    policy: PolicyRecord
    device: str
    machine: Machine
    data_sha256: str
    data_digest_of: Literal["content", "size+mtime"]
    synthetic: bool
    names: list[str]
    labels: list[str | None]
    settings: Settings
    environment: dict[str, Any]
    warnings: list[str]


class Journal:
    """The file; a context manager. Without a path it keeps nothing."""

    def __init__(self, path: Path | None, header: Header) -> None:
        """Make ``path`` + ``.partial``.

        Raises:
            UsageError: it cannot be written, or is there: another run writes it, or was killed.
        """
        self.path = None if path is None else path.with_name(path.name + ".partial")
        self._file: BinaryIO | None = None
        if self.path is not None:
            try:
                self._file = self.path.open("xb")
                self._write(header)
            except FileExistsError as error:
                raise UsageError(
                    f"{self.path}: holds what a run measured that goes on or was killed, and is not written over: "
                    f"look at it with  edge-reclass bench report {self.path}  and remove it, or name another --output"
                ) from error
            except OSError as error:
                raise UsageError(f"--output {path}: cannot be written ({error.strerror}); name another file") from error

    def add(self, event: Event, process: int) -> None:
        """Keep one event.

        Raises:
            EdgeReclassError: it cannot be written.
        """
        try:
            self._write((process, event))
        except OSError as error:
            raise EdgeReclassError(f"{self.path}: cannot be written ({error.strerror})") from error

    def _write(self, what: object) -> None:
        if self._file is not None:
            self._file.write(msgspec.json.encode(what) + b"\n")
            self._file.flush()

    def remove(self) -> None:
        """Nothing of it is worth keeping."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def assemble(header: Header, collector: Collector, environment: dict[str, Any], *, complete: bool) -> Record:
    """The record of what ``collector`` has heard. Before the bundle was opened, its device is the one asked for."""
    opened = collector.opened or Opened(header.device, [], {}, {}, {})
    plain = {
        "kind": KIND,
        "format": FORMAT,
        "subject": Subject(
            bundle=header.bundle,
            bundle_sha256=header.bundle_sha256,
            genres=header.genres,
            policy=header.policy,
            device=opened.device,
            data_sha256=header.data_sha256,
            data_digest_of=header.data_digest_of,
            machine=header.machine,
            precisions=opened.precisions,
            engines=opened.engines,
            synthetic=header.synthetic,
        ),
        "settings": header.settings,
        "environment": environment | {"notes": opened.notes},
        "tracks": collector.entries(header.names, header.labels),
        "measures": collector.measures,
        "runs": collector.runs,
        "series": collector.series,
        "answers": collector.answers(header.genres, header.needs),
        "files": collector.files,
        "peers": collector.peers,
        "absent": collector.absent,
        "warnings": [*header.warnings, *collector.warnings],
        "complete": complete,
    }
    return msgspec.convert(msgspec.to_builtins(plain), Record)


def read(path: Path) -> Record:
    """The record of a partial file; a last line that is cut off is left out.

    Raises:
        UsageError: it cannot be read, another line is no event, what is in it does not fit together, or nothing was
            measured yet. The message names the file, and the line where it is one.
    """
    where, collector = f"{path}", Collector()
    try:
        *lines, cut_off = path.read_bytes().split(b"\n")
        where = f"{path}, line 1"
        header = msgspec.json.decode(lines[0] if lines else cut_off, type=Header)
        for number, line in enumerate(lines[1:], 2):
            where = f"{path}, line {number}"
            process, event = msgspec.json.decode(line, type=tuple[int, Event])
            collector.add(event, process)
        where = f"{path}"
        record = assemble(header, collector, header.environment, complete=False)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    # The types are checked, what is in a verdict is not: another program may have written it.
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UsageError(f"{where}: cannot be read as what a run left ({type(error).__name__}: {error})") from error
    if wrong := list(faults(record)):
        raise UsageError(f"{path}: " + "; ".join(wrong))
    if not collector.anything:
        raise UsageError(f"{path}: nothing was measured yet")
    return record
