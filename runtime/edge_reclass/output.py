"""Verdicts as a table for people, or as JSON, JSON lines or CSV for machines; and where they are written."""

from __future__ import annotations

import csv
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from edge_reclass.errors import UsageError
from edge_reclass.verdict import Verdict

__all__ = ["FORMATS", "Formatter", "explain", "formatter", "open_output"]


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
            genre, stage = f"{verdict.genre:<{self._genre}}", f"{verdict.decided_by:<{self._stage}}"
            line = f"{genre}  {verdict.confidence:5.2f}  {stage}  {path}\n"
        if self.explain:
            return line + explain(verdict)
        others = verdict.top[1 : self.top]
        if others:
            line += "    then " + ", ".join(f"{s.genre} {s.score:.2f}" for s in others) + "\n"
        return line

    def end(self) -> str:
        return ""


@dataclass
class _Json:
    top: int
    _first: bool = True

    def begin(self) -> str:
        return "["

    def verdict(self, verdict: Verdict) -> str:
        separator, self._first = ("\n" if self._first else ",\n"), False
        return separator + verdict.to_json(self.top)

    def end(self) -> str:
        return "\n]\n"


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
    """RFC 4180; the best genres stand in one column as ``Rock=0.61 Pop=0.20``, with quotes where CSV needs them."""

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
        raise UsageError(f"--explain goes with the table; the format {name} has the stages' answers already")
    make: dict[str, Callable[[], Formatter]] = {
        "table": lambda: _Table(genres, stages, top, explain),
        "json": lambda: _Json(top),
        "jsonl": lambda: _JsonLines(top),
        "csv": lambda: _Csv(top),
    }
    if name not in make:
        raise UsageError(f"no format {name!r}: expected one of {', '.join(FORMATS)}")
    return make[name]()


def explain(verdict: Verdict) -> str:
    """What each stage said, why the cascade stopped, and how long each part took; indented lines."""
    lines = []
    if verdict.decode_milliseconds is not None:
        lines.append(f"decode {verdict.decode_milliseconds:.1f} ms")
    for stage in verdict.stages:
        end = stage.excerpt.start + stage.excerpt.seconds
        lines.append(
            f"{stage.name}: {stage.genre} {stage.confidence:.3f}, {stage.milliseconds:.1f} ms, "
            f"heard {stage.excerpt.start:.2f}–{end:.2f} s"
        )
    if verdict.reason is not None:
        lines.append(f"stopped: {verdict.reason}")
    if verdict.top:
        lines.append("scores: " + ", ".join(f"{s.genre} {s.score:.3f}" for s in verdict.top[:5]))
    return "".join(f"    {line}\n" for line in lines)


def printable(text: str) -> str:
    """``text`` without control characters, which could rewrite a terminal; they stand as backslash escapes."""
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else ascii(c)[1:-1] for c in text)


@contextmanager
def open_output(path: Path | None) -> Iterator[Callable[[str], None]]:
    """A function that writes text to standard output, or to a file that appears only when it is complete.

    The file is written beside ``path`` and renamed at the end. When the run is interrupted, what was classified by
    then is kept as ``path`` + ``.partial``, and an earlier ``path`` stays as it was.

    Raises:
        UsageError: the file cannot be written.
    """
    if path is None:
        _lenient(sys.stdout)

        def to_stdout(text: str) -> None:
            sys.stdout.write(text)
            sys.stdout.flush()

        yield to_stdout
        return
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise UsageError(f"--output {path}: cannot be written ({error.strerror})") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            try:

                def to_file(text: str) -> None:
                    file.write(text)

                yield to_file
            except KeyboardInterrupt:
                file.close()
                _publish(temporary, path.with_name(path.name + ".partial"))
                raise
        _publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _publish(temporary: Path, path: Path) -> None:
    # mkstemp makes files that only the owner can read; give the result what a plain open() would have given.
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    try:
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"--output {path}: cannot be written ({error.strerror})") from error


def _lenient(stream: object) -> None:
    """Let a path that is not valid UTF-8 pass through as its own bytes, and never fail on a terminal without UTF-8."""
    if isinstance(stream, io.TextIOWrapper):
        utf8 = stream.encoding.lower().replace("-", "") == "utf8"
        stream.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")
