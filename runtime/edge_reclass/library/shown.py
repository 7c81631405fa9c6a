"""Names as a screen or a page may show them."""

from __future__ import annotations

from edge_reclass.run.text import printable


def shown(text: str) -> str:
    """``text`` as characters that every UTF-8 text may hold, on one line; the rest stands as backslash escapes.

    Escaped are what :func:`edge_reclass.run.text.printable` escapes, and stray bytes of names that are not UTF-8.
    """
    return printable(text).encode("utf-8", "backslashreplace").decode("utf-8")
