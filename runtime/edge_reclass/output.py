"""Verdicts as a table for people, or as JSON, JSON lines or CSV for machines; and where they are written."""

from __future__ import annotations

import csv
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TextIO

from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass.verdict import Verdict

__all__ = [
    "FORMATS",
    "Formatter",
    "ReaderLeft",
    "explain",
    "formatter",
    "lenient",
    "open_output",
    "printable",
]


class Formatter(Protocol):
    """Text for the start, for each verdict as it comes, and for the end."""

    def begin(self) -> str: ...

    def verdict(self, verdict: Verdict) -> str: ...

    def end(self) -> str: ...


@dataclass
class _Table:
    genres: Sequence[str]
    stages: Sequence[str]
    top: int
    explain: bool

    def __post_init__(self) -> None:
        self._genre = max(len(name) for name in (*self.genres, "unsupported", "out_of_memory"))
        self._stage = max(len(name) for name in (*self.stages, "decided by"))

    def begin(self) -> str:
        return f"{'genre':<{self._genre}}  score  {'decided by':<{self._stage}}  track\n"

    def verdict(self, verdict: Verdict) -> str:
        path = printable(verdict.path)
        if verdict.status != "ok":
            line = f"{verdict.status:<{self._genre}}      –  {'–':<{self._stage}}  {path}\n"
            line += f"    {printable(verdict.error or '')}\n" if verdict.error else ""
        else:
            genre, stage = f"{printable(verdict.genre or ''):<{self._genre}}", f"{verdict.decided_by:<{self._stage}}"
            line = f"{genre}  {verdict.confidence:5.2f}  {stage}  {path}\n"
        if self.explain:
            return line + explain(verdict, max(self.top, 5))
        others = verdict.top[1 : self.top]
        if others:
            line += "    then " + ", ".join(f"{s.genre} {s.score:.2f}" for s in others) + "\n"
        return line

    def end(self) -> str:
        return ""


@dataclass
class _Json:
    """One array. Every piece ends with a line's end, so that a progress bar below it disturbs nothing; the comma that a
    verdict needs is known only when the next one comes, so each is held back until then."""

    top: int
    _held: str = ""

    def begin(self) -> str:
        return "[\n"

    def verdict(self, verdict: Verdict) -> str:
        before, self._held = self._held, verdict.to_json(self.top)
        return f"{before},\n" if before else ""

    def end(self) -> str:
        return f"{self._held}\n]\n" if self._held else "]\n"


@dataclass
class _JsonLines:
    top: int

    def begin(self) -> str:
        return ""

    def verdict(self, verdict: Verdict) -> str:
        return verdict.to_json(self.top) + "\n"

    def end(self) -> str:
        return ""


@dataclass
class _Csv:
    """RFC 4180; the best genres stand in one column as ``Rock=0.61;Pop=0.20``."""

    top: int

    def begin(self) -> str:
        return _csv_line(
            [
                "path",
                "status",
                "genre",
                "confidence",
                "decided_by",
                "reason",
                "top",
                "bundle",
                "policy",
                "error",
            ]
        )

    def verdict(self, verdict: Verdict) -> str:
        plain = verdict.to_dict(self.top)
        plain["top"] = ";".join(f"{s['genre']}={s['score']:.6f}" for s in plain["top"] or [])
        del plain["stages"]
        return _csv_line(["" if value is None else str(value) for value in plain.values()])

    def end(self) -> str:
        return ""


def _csv_line(values: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue()


FORMATS: Final = ("table", "json", "jsonl", "csv")


def formatter(name: str, *, genres: Sequence[str], stages: Sequence[str], top: int, explain: bool = False) -> Formatter:
    """The formatter called ``name``.

    Raises:
        UsageError: no such format, or ``explain`` with a format other than the table.
    """
    if explain and name != "table":
        raise UsageError(f"--explain goes with the table; json and jsonl have the stages' answers already, got {name}")
    make: dict[str, Callable[[], Formatter]] = {
        "table": lambda: _Table(genres, stages, top, explain),
        "json": lambda: _Json(top),
        "jsonl": lambda: _JsonLines(top),
        "csv": lambda: _Csv(top),
    }
    if name not in make:
        raise UsageError(f"no format {name!r}: expected one of {', '.join(FORMATS)}")
    return make[name]()


def explain(verdict: Verdict, top: int = 5) -> str:
    """What each stage said, why the cascade stopped, how long each part took, and the best ``top`` genres."""
    lines = []
    if verdict.decode_milliseconds is not None:
        lines.append(f"decode {verdict.decode_milliseconds:.1f} ms")
    for stage in verdict.stages:
        end = stage.excerpt.start + stage.excerpt.seconds
        said = "silence" if stage.genre is None else f"{printable(stage.genre)} {stage.confidence:.3f}"
        lines.append(f"{stage.name}: {said}, {stage.milliseconds:.1f} ms, heard {stage.excerpt.start:.2f}–{end:.2f} s")
    if verdict.reason is not None:
        lines.append(f"stopped: {verdict.reason}")
    if verdict.top:
        lines.append("scores: " + ", ".join(f"{s.genre} {s.score:.3f}" for s in verdict.top[:top]))
    return "".join(f"    {line}\n" for line in lines)


def printable(text: str) -> str:
    """``text`` without control characters, which could rewrite a terminal; they stand as backslash escapes."""
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else ascii(c)[1:-1] for c in text)


class ReaderLeft(Exception):
    """Whoever read our standard output has closed it (``| head``); nobody is there to be told."""


@contextmanager
def open_output(path: Path | None) -> Iterator[Callable[[str], None]]:
    """A function that writes text to standard output, or to a file that appears only when it is complete.

    The file is written beside ``path`` and renamed at the end. When the run ends early, for whatever reason, what was
    classified by then is kept as ``path`` + ``.partial``, and an earlier ``path`` stays as it was. A link is followed;
    a pipe or a device is written to directly.

    Raises:
        UsageError: ``path`` cannot be written; said before anything is classified.
        EdgeReclassError: writing failed midway (disk full).
        ReaderLeft: standard output was closed by its reader.
    """
    if path is None:
        lenient(sys.stdout)
        yield _to_stdout
        return
    try:
        target = path.resolve()
        if not path.name or target.is_dir():
            raise UsageError(f"--output {str(path)!r}: expected a file, got a folder; name a file in it")
        if target.exists() and not target.is_file():
            with target.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
                yield _writer(stream, path, "")
            return
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        raise UsageError(f"--output {path}: cannot be written ({error.strerror}); name another file") from error
    temporary, partial = Path(name), target.with_name(target.name + ".partial")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            try:
                yield _writer(file, path, f"; what was classified by then is in {partial}")
            except BaseException:
                with suppress(OSError):
                    file.close()
                _publish(temporary, partial)
                raise
        _publish(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _to_stdout(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise ReaderLeft from error
    except OSError as error:
        raise EdgeReclassError(f"standard output cannot be written ({error.strerror})") from error


def _writer(file: TextIO, path: Path, kept: str) -> Callable[[str], None]:
    def write(text: str) -> None:
        try:
            file.write(text)
            file.flush()
        except OSError as error:
            raise EdgeReclassError(f"--output {path}: cannot be written ({error.strerror}){kept}") from error

    return write


def _publish(temporary: Path, path: Path) -> None:
    # mkstemp makes files that only the owner can read; give the result what a plain open() would have given.
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    try:
        # Else a power cut could leave the new name on an empty file, and the old results would be gone.
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise EdgeReclassError(f"{path}: cannot be written ({error.strerror})") from error


def lenient(stream: object) -> None:
    """Let a path that is not valid UTF-8 pass through as its own bytes, and never fail on a terminal without UTF-8."""
    if isinstance(stream, io.TextIOWrapper):
        utf8 = stream.encoding.lower().replace("-", "") == "utf8"
        stream.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")
