"""Numbers, lists and folders of /sys, which may be missing, unreadable or hold anything."""

from __future__ import annotations

import re
from pathlib import Path

from edge_reclass.host import read_text


def read_int(path: Path) -> int | None:
    """The whole number that is all of a file; None for anything else."""
    text = read_text(path, 64)
    if text is None or re.fullmatch(r"\s*[+-]?\d{1,19}", text, re.ASCII) is None:
        return None
    return int(text)


def scaled(path: Path, factor: float) -> float | None:
    """The number in a file times ``factor``, such as kHz → MHz."""
    number = read_int(path)
    return None if number is None else round(number * factor, 6)


def read_list(text: str | None) -> int | None:
    """How many numbers a kernel list such as ``0-3,5`` holds."""
    if text is None or re.fullmatch(r"\d{1,6}(-\d{1,6})?(,\d{1,6}(-\d{1,6})?)*", text.strip(), re.ASCII) is None:
        return None
    count = 0
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count if count > 0 else None


def subfolders(folder: Path, pattern: str = "*") -> list[Path]:
    """What in ``folder`` matches, numbers in names in their order; empty where it cannot be read."""
    try:
        found = list(folder.glob(pattern))
    except OSError:
        return []
    return sorted(found, key=lambda path: [int(part) if part.isdigit() else part for part in _parts(path.name)])


def _parts(name: str) -> list[str]:
    # Splitting on digits makes text and numbers alternate, so that keys of different names can be compared.
    return re.split(r"(\d+)", name)
