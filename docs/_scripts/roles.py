"""A hook of MkDocs: docstrings that use reStructuredText's roles show the name alone."""

from __future__ import annotations

import re
from typing import Any

ROLE = re.compile(r":(?:class|meth|func|data|mod|attr):(<code[^>]*>)~?")


def on_page_content(html: str, **_: Any) -> str:
    """``html`` without ``:class:`` and its like in front of inline code."""
    return ROLE.sub(r"\1", html)
