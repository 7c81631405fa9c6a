"""Small files of the system, which may be missing, unreadable or hold anything."""

from __future__ import annotations

from pathlib import Path


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
