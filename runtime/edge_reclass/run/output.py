"""Where text goes: standard output, a pipe or a device, or a file."""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass.run.output_file import ResultFile
from edge_reclass.run.text import is_utf8, lenient, printable


class StdoutClosed(Exception):
    """The reader of standard output has closed it (``| head``)."""


class Output:
    """A place for text. Calling it writes and flushes.

    ``fileno`` is the open descriptor, None where there is none (a test's buffer); ``utf8`` is False where the stream
    cannot take every character; ``partial`` is the file that keeps what was written if the run ends early.

    Raises (when called):
        EdgeReclassError: writing failed (disk full).
        StdoutClosed: the reader of a pipe has left.
    """

    def __init__(self, stream: TextIO, name: str, file: ResultFile | None = None) -> None:
        self._stream, self._name, self._file = stream, name, file
        self.partial = None if file is None else file.partial
        self.utf8 = is_utf8(stream)
        try:
            self.fileno: int | None = stream.fileno()
        except (OSError, ValueError):
            self.fileno = None
        self.is_terminal = self.fileno is not None and os.isatty(self.fileno)
        self.before_write: Callable[[], None] = lambda: None
        """Called before anything is written, so that a progress bar can leave the terminal's line."""

    def __call__(self, text: str) -> None:
        """Write and flush ``text``."""
        self.before_write()
        if self.is_terminal:  # a table is safe already; in CSV, names are as they are
            text = "".join(c if c in "\r\n" else printable(c) for c in text) if not text.isprintable() else text
        try:
            if self._file is not None:
                self._file.begin()
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError as error:
            raise StdoutClosed from error
        except OSError as error:
            kept = "" if self.partial is None else f"; what was classified by then is in {printable(str(self.partial))}"
            raise EdgeReclassError(f"{self._name} cannot be written ({error.strerror}){kept}") from error


@contextmanager
def open_output(path: Path | None) -> Iterator[Output]:
    """Standard output (None or ``-``), a pipe or device, or a file that appears only when it is complete.

    A file is written as ``path`` + ``.partial`` and renamed at the end; see :class:`ResultFile`. Pipes, devices and
    descriptors (``/dev/stdout``, ``/dev/fd/63`` of a process substitution) are written to directly.

    Raises:
        UsageError: ``path`` cannot be written, or another run is writing it; said before anything is classified.
        EdgeReclassError: the complete file cannot be put in its place.
    """
    if path is None or str(path) == "-":
        lenient(sys.stdout)
        yield Output(sys.stdout, "standard output")
        return
    name = f"--output {printable(str(path))}"
    try:
        opened = _open(path)
    except OSError as error:
        raise UsageError(f"{name}: cannot be written ({error.strerror}); name another file") from error
    if isinstance(opened, ResultFile):
        with opened:
            yield Output(opened.stream, f"{name}:", opened)
        return
    try:
        yield Output(opened, f"{name}:")
    finally:
        with suppress(OSError):  # what could not be written was said when it was written
            opened.close()


def _open(path: Path) -> TextIO | ResultFile:
    descriptor = descriptor_of(path)
    if descriptor is not None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise UsageError(f"--output {path}: expected a descriptor to write to, it is open for reading only")
        return _text(os.dup(descriptor))  # opening it anew would begin at the file's start, and fail for a socket
    if not path.name or path.is_dir():
        raise UsageError(f"--output {printable(repr(str(path)))}: expected a file, got a folder; name a file in it")
    if path.exists() and not path.is_file():
        return _text(os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY))
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise UsageError(f"--output {printable(str(path))}: expected a file, got a link that leads to itself")
    return ResultFile(target)


def _text(descriptor: int) -> TextIO:
    return open(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="")


def descriptor_of(path: Path) -> int | None:
    """The number of this process's open descriptor that ``path`` names (``/dev/stdout``, ``/dev/fd/63``), or None.

    Resolving such a path would give the file behind it, or for a pipe a name that does not exist.
    """
    text = os.path.abspath(path)  # noqa: PTH100
    for _ in range(40):
        folder, name = os.path.split(text)
        if re.fullmatch(rf"/proc/{os.getpid()}(/task/\d+)?/fd", os.path.realpath(folder)) and name.isdecimal():
            return int(name)
        try:
            text = os.path.join(folder, os.readlink(text))  # noqa: PTH115, PTH118
        except OSError:
            return None
    return None
