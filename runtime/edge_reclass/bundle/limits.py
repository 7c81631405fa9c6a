"""What a manifest may ask for at most, and which names it may hold.

The limits are far above what anybody measures with and far below what takes a machine down: a bundle comes from
somebody else, and a slip of a zero in it must be an error, not an hour without an answer or a full memory.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Final

MANIFEST_BYTES: Final = 1 << 20
"""The starter's manifest has 2.5 kB. A megabyte takes PyYAML ten seconds."""
YAML_DEPTH: Final = 32
"""Nested lists and mappings; the schema needs 7, provenance a few more."""

MAX_STAGES: Final = 32
MAX_POLICIES: Final = 64
MAX_GENRES: Final = 4096
"""AudioSet has 527 classes, Discogs' styles are 400."""
MAX_FILES: Final = 1024
MAX_FILE_BYTES: Final = 2**31 - 1
"""Of a file that is read at once, such as a graph: protobuf's own limit for a message."""
MAX_DIM: Final = 65_536
"""Width of an embedding; the widest known encoders give 4 096."""
MAX_TEXT: Final = 200
"""Characters of a genre's, a bundle's or a file's name."""

MAX_WINDOW_SECONDS: Final = 600.0
"""Ten minutes at 192 kHz are 461 MB per row of a batch; the longest window of a known encoder is 30 s."""
MAX_EXCERPT_SECONDS: Final = 3600.0
"""An hour at 192 kHz is 2.8 GB of samples."""
MAX_START_SECONDS: Final = 86_400.0
"""Where an excerpt starts costs seeking only."""
MAX_WINDOWS: Final = 36_000
"""Of one excerpt: ten per second for an hour."""

MIN_WEIGHT: Final = 1e-6
MAX_WEIGHT: Final = 1e6
"""A policy's weights are 0 or between these: their sum neither overflows nor loses its digits."""

MAX_REFERENCE_BYTES: Final = 256 << 20
"""Unpacked size of a file of reference vectors: an hour of a user's own 16-bit audio at 32 kHz."""
MAX_REFERENCE_SAMPLES: Final = 1 << 24
"""Of one made input; all eight of this length take about 2 GB while they are made."""

_FORBIDDEN = {"Cc": "control characters", "Cs": "surrogates", "Zl": "line separators", "Zp": "line separators"}
_JOINERS = ("\u200c", "\u200d")  # Persian and the scripts of India need them inside of words


def text_faults(text: str) -> Iterator[str]:
    """What keeps ``text`` from being shown on a terminal or in a table as it is: a few words each.

    Control and format characters (which reverse or hide what follows), line separators, lone surrogates, white space
    at an end, and more than ``MAX_TEXT`` characters.
    """
    if not text.strip():
        yield "no text"
    elif text != text.strip():
        yield "white space at an end"
    if len(text) > MAX_TEXT:
        yield f"more than {MAX_TEXT} characters"
    kinds = {unicodedata.category(character): character for character in text if character not in _JOINERS}
    yield from dict.fromkeys(word for kind, word in _FORBIDDEN.items() if kind in kinds)
    if "Cf" in kinds:
        yield f"the invisible format character U+{ord(kinds['Cf']):04X}"
