"""Names that every file system takes: ext4, exFAT and NTFS, and shares of Windows."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MAX_BYTES: Final = 255
"""Of one component; ext4 counts bytes, exFAT and NTFS UTF-16 units, which are never more."""

_ILLEGAL: Final = re.compile(r'[<>:"/\\|?*]')
_RESERVED: Final = re.compile(r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³])(?=\s*(?:\.|$))", re.IGNORECASE)
"""Devices of DOS, whatever extension follows."""
_JOINERS: Final = "\u200c\u200d"
"""Persian and emoji need them; they show nothing and reorder nothing."""


def component(text: str, suffix: str = "") -> str:
    """One component of a path, from any text; empty where nothing of the text remains.

    Characters are in the composed form (NFC). What a file system refuses, what a terminal obeys and bytes that are no
    UTF-8 become ``_``; breaks of a line become blanks. Dots and blanks do not end it and dots do not begin it, so that
    it is neither ``..`` nor hidden. No device of DOS is named. It is cut to :data:`MAX_BYTES`, with ``suffix``, before
    a character.

    Args:
        suffix: what follows whole, such as ``.mp3``.
    """
    text = "".join(map(_plain, unicodedata.normalize("NFC", text)))
    text = _trimmed(_ILLEGAL.sub("_", " ".join(text.split())))
    if text.startswith("."):
        text = "_" + text[1:]
    if match := _RESERVED.match(text):
        text = f"{match[0]}_{text[match.end() :]}"
    text = _trimmed(_cut(text, MAX_BYTES - len(suffix.encode())))
    return text + suffix if text else ""


def key(path: str) -> str:
    """What two paths share that are one on a file system that does not tell cases apart (exFAT, NTFS, SMB, APFS)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _plain(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Zl", "Zp") or character in "\t\n\v\f\r\x85":
        return " "
    if category in ("Cc", "Cs") or (category == "Cf" and character not in _JOINERS):
        return "_"
    return character


def _trimmed(text: str) -> str:
    return text.strip().rstrip(". ").strip()


def _cut(text: str, limit: int) -> str:
    """At most ``limit`` bytes of UTF-8; an accent or joiner goes with the character that it belongs to."""
    if len(text.encode()) <= limit:
        return text
    end = len(text.encode()[:limit].decode(errors="ignore"))
    while end and _belongs_to_what_precedes(text, end):
        end -= 1
    return text[:end]


def _belongs_to_what_precedes(text: str, at: int) -> bool:
    character = text[at]
    return (
        unicodedata.category(character) in ("Mn", "Me", "Mc")
        or character in _JOINERS
        or text[at - 1] in _JOINERS
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # the colour of an emoji's skin
    )
