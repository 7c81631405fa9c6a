"""Small files: those of the system, which may be missing, unreadable or hold anything; and files written whole."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from edge_reclass.errors import UsageError


def read_text(path: Path, limit: int = 1 << 20) -> str | None:
    """The text of a small file without trailing white space and NULs; None where it cannot be read.

    Files of /sys may fail with any errno (EAGAIN for the sensor of a part that is off), so every OSError counts.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limit)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    return content.decode("utf-8", errors="replace").rstrip("\0 \t\r\n")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears complete or not at all; a link is followed, and what was there stays if this fails.

    Raises:
        UsageError: ``path`` is a folder, or cannot be written.
    """
    target = path.resolve()
    if target.is_dir():
        raise UsageError(f"{path}: expected a file, got a folder; name a file in it")
    try:
        replace_whole(target, content)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error}); name another file") from error


def replace_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary file beside ``path`` and rename it: there is never half a file.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:50]}.", suffix=".part", dir=path.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)  # renamed away where all went well
