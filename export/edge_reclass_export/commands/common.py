"""What the export commands share: needs, small parsers, and what they print."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from edge_reclass.errors import MissingExtraError

if TYPE_CHECKING:
    from edge_reclass_export.bundle_writer import BundleChange

__all__ = ["FMA_GENRES", "need", "print_change", "say", "split_genres"]


FMA_GENRES = (
    "Blues",
    "Classical",
    "Country",
    "Easy Listening",
    "Electronic",
    "Experimental",
    "Folk",
    "Hip-Hop",
    "Instrumental",
    "International",
    "Jazz",
    "Old-Time/Historic",
    "Pop",
    "Rock",
    "Soul-RnB",
    "Spoken",
)
"""The 16 top-level genres of the FMA dataset, for bundles that only measure."""


def need(*packages: str, extra: str = "export") -> None:
    """Raises ``MissingExtraError`` where one of the ``packages`` is not installed; imports none of them."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise MissingExtraError(f"export needs {', '.join(missing)}", extra)


def say(text: str) -> None:
    """One line for people, to standard error."""
    print(text, file=sys.stderr)


def split_genres(text: str) -> list[str]:
    """``A,B,...`` as a list of names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def print_change(change: BundleChange) -> None:
    """Notes to standard error, the stage as YAML to standard output."""
    for note in change.notes:
        say(note)
    print(change.fragment, end="")
