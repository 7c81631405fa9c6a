"""How text is made safe to print: names of files and genres come from anywhere."""

from __future__ import annotations

import codecs
import io
import json
import unicodedata


def is_utf8(stream: object) -> bool:
    """False where a stream's encoding is known and not UTF-8."""
    encoding = getattr(stream, "encoding", None)
    return encoding is None or codecs.lookup(encoding).name == "utf-8"


def lenient(stream: object) -> None:
    """Let a path that is not valid UTF-8 pass through as its own bytes, and never fail on a terminal without UTF-8."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="surrogateescape" if is_utf8(stream) else "backslashreplace")


def printable(text: str) -> str:
    """``text`` without what could rewrite a terminal or reorder its line, which stands as backslash escapes.

    These are control and formatting characters (bidirectional ones, line and paragraph separators). Every kind of
    space is kept, as are the joiners of emoji and Persian, and stray bytes of names that are not valid UTF-8.
    """
    return text if text.isprintable() else "".join(c if _is_harmless(c) else ascii(c)[1:-1] for c in text)


def json_text(text: str, utf8: bool) -> str:
    """JSON that a stream can take and a terminal can show, the rest escaped as JSON escapes it.

    Escaped are all but ASCII (unless ``utf8``), stray bytes of names, and what :func:`printable` escapes.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c == "\n" or _is_plain_json(c, utf8) else json.dumps(c)[1:-1] for c in text)


def _is_plain_json(character: str, utf8: bool) -> bool:
    if character.isascii():
        return character.isprintable()
    return utf8 and not "\ud800" <= character <= "\udfff" and printable(character) == character


def _is_harmless(character: str) -> bool:
    if character.isprintable() or character in "\u200c\u200d" or "\udc80" <= character <= "\udcff":
        return True
    return unicodedata.category(character) in ("Zs", "Co", "Cn")
