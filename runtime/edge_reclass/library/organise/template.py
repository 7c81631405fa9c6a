"""The template of a path: ``{genre}/{artist}/{album}/{track} {title}.{ext}``."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from typing import Final

from edge_reclass.errors import UsageError
from edge_reclass.library import names

DEFAULT: Final = "{genre}/{artist}/{album}/{track} {title}.{ext}"

FIELDS: Final[dict[str, str]] = {
    "genre": "",
    "artist": "Unknown Artist",
    "album": "Unknown Album",
    "title": "",
    "track": "",
    "name": "",
    "ext": "",
}
"""The fields of a template, each with what stands there where a track has none."""


class Template:
    """A template that was checked."""

    def __init__(self, text: str) -> None:
        """Raises: UsageError: it names an unknown field, leaves the folder, or does not end with ``.{ext}``."""
        self.text = text
        if not text.endswith(".{ext}"):
            raise UsageError(f"--template {text!r}: expected it to end with .{{ext}}, which players know a file by")
        try:
            self._components = [list(string.Formatter().parse(part)) for part in text[: -len(".{ext}")].split("/")]
        except ValueError as error:
            raise UsageError(f"--template {text!r}: {error}; a brace itself is written {{{{ or }}}}") from error
        for parts in self._components:
            literal = "".join(before for before, *_ in parts)
            if not any(field is not None for _, field, *_ in parts) and literal.strip(" .") == "":
                raise UsageError(f"--template {text!r}: expected names between slashes, got {literal!r}")
            for _, field, spec, conversion in parts:
                if field is None:
                    continue
                if field not in FIELDS:
                    raise UsageError(f"--template {text!r}: expected fields of {', '.join(FIELDS)}, got {field!r}")
                if spec or conversion:
                    raise UsageError(f"--template {text!r}: {{{field}}} takes neither a format nor a conversion")

    @property
    def needs_tags(self) -> bool:
        """False where the genre and the name of the file are enough."""
        fields = {field for parts in self._components for _, field, *_ in parts}
        return not fields <= {"genre", "name", "ext", None}

    def path(self, values: Mapping[str, str]) -> str:
        """The path, relative and with ``/``, of a track with these values; those that are absent or blank are missing.

        A track without a title is called as its file (``name``), without its number, which that name will hold.
        """
        known = {field: value for field, value in values.items() if value.strip()}
        ext = names.component(known.get("ext", ""))
        suffix = f".{ext}" if ext else ""
        if "title" not in known:
            known = {field: value for field, value in known.items() if field != "track"} | {"title": known["name"]}
        *folders, file = (self._filled(parts, known) for parts in self._components)
        stem = names.component(file, suffix) or names.component(known["name"], suffix) or "_" + suffix
        return "/".join([*(names.component(folder) or "_" for folder in folders), stem])

    @staticmethod
    def _filled(parts: list[tuple[str, str | None, str | None, str | None]], known: Mapping[str, str]) -> str:
        """A component; what joins a missing field to others (a dash, a bracket, a dot) goes with it at the ends."""
        text = "".join(
            before + ("" if field is None else known.get(field, FIELDS[field])) for before, field, *_ in parts
        )
        if all(field is None or field in known or FIELDS[field] for _, field, *_ in parts):
            return text
        text = re.sub(r"\(\s*\)|\[\s*\]", "", text)
        return re.sub(r"^[\s\-–_.,]+|[\s\-–_,]+$", "", text)
