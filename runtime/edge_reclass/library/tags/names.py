"""Names of genres as they are written: a file that maps ours to others, and names that players take apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from edge_reclass.bundle.strict_yaml import YamlError, parse_yaml
from edge_reclass.errors import UsageError

_SEPARATORS: Final = "/;,"
"""Players take these for separators, and show "R&B/Soul" as two genres."""


class NameRefused(UsageError):
    """A genre's name cannot be written."""


def read_map(path: Path) -> dict[str, str | None]:
    """The genre names of a mapping file: YAML, one ``ours: theirs`` a line; ``null``: this genre is not written.

    Raises:
        UsageError: it cannot be read, is no such mapping, or holds a name that cannot be written.
    """
    try:
        plain = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, YamlError) as error:
        raise UsageError(f"--map {path}: cannot be read ({error})") from error
    if not isinstance(plain, dict):
        raise UsageError(f"--map {path}: expected lines of the form  Hip-Hop: Rap  got {type(plain).__name__}")
    for ours, theirs in plain.items():
        if theirs is not None and not isinstance(theirs, str):
            shown = str(theirs).lower() if isinstance(theirs, bool) else theirs
            raise UsageError(
                f'--map {path}: {ours}: expected a name, got {shown}; a number cannot be written, a word needs "quotes"'
            )
        if theirs is not None:
            check_name(theirs, f"--map {path}: {ours}: ")
    return plain


def check_name(name: str, where: str = "") -> None:
    """Raise for a name that would be read back as another one.

    Raises:
        NameRefused: see :func:`objection`.
    """
    if (reason := objection(name)) is not None:
        raise NameRefused(f"{where}the genre name {name!r} {reason}; give it another one with --map")


def objection(name: str) -> str | None:
    """What is wrong with a name: it is empty, a number, a shorthand of ID3, or holds what no tag can."""
    reason = None
    if not name.strip() or name != name.strip():
        reason = "is empty, or begins or ends with a space"
    elif name.isdigit():
        reason = "is a number, which players take for a genre of the list of ID3v1"
    elif name in ("RX", "CR"):
        reason = "is short for Remix or Cover in ID3"
    elif name.startswith("("):
        reason = "begins with a bracket, which ID3 takes for a number of its list"
    elif any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        reason = "holds a control character"
    return reason


def separators_in(names: Mapping[str, str | None] | Iterator[str]) -> str | None:
    """What to warn of, if names are taken apart by players."""
    values = names.values() if isinstance(names, Mapping) else names
    bad = sorted({name for name in values if name and any(separator in name for separator in _SEPARATORS)})
    if not bad:
        return None
    return f"players may take {', '.join(map(repr, bad))} for several genres (/ ; and , separate them); see --map"
