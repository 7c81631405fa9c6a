"""``--excerpt``: which part of a track a stage looks at, as text."""

from __future__ import annotations

from math import isfinite, nan
from pathlib import Path

from edge_reclass.bundle import MANIFEST, ExcerptEntry, load
from edge_reclass.errors import UsageError


def choose_excerpt(text: str | None, default: ExcerptEntry | None, root: Path, stage: str) -> ExcerptEntry | None:
    """The excerpt that ``text`` names; without one, ``default`` for a stage that the bundle ``root`` does not have yet.

    None leaves a stage what it has, or the bundle's excerpt. Raises ``UsageError`` where ``text`` names none, and
    ``BundleError`` where the bundle's manifest is not valid.
    """
    if text is not None:
        return parse_excerpt(text)
    if (root / MANIFEST).exists() and any(entry.name == stage for entry in load(root).manifest.stages):
        return None
    return default


def parse_excerpt(text: str) -> ExcerptEntry:
    """The excerpt that ``text`` names: ``full``, ``SECONDS`` from the middle, or ``START:SECONDS``.

    Raises:
        UsageError: it names none.
    """
    if text == "full":
        return ExcerptEntry(full=True)
    start, colon, seconds = text.rpartition(":")
    try:
        begin, length = float(start) if colon else 0.0, float(seconds)
    except ValueError:
        begin = length = nan
    if not (isfinite(begin) and begin >= 0.0 and isfinite(length) and length > 0.0):
        raise UsageError(f"--excerpt: expected full, SECONDS (from the middle) or START:SECONDS, got {text!r}")
    return ExcerptEntry(start=begin if colon else "center", seconds=length)
