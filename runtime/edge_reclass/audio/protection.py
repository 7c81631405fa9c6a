"""Whether a file is encrypted by a shop, so that no decoder can be expected to decode it."""

from __future__ import annotations

import os
import re
from typing import Final

_LOOK_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 1 << 16
_OVERLAP_BYTES: Final = 32
"""More than what is looked for, which may lie across the end of a piece."""

_ASF_ENCRYPTION: Final = (
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
)
"""The Content Encryption Object and its extended form, as they lie in the file."""


# ISO/IEC 14496-12 §8.5.2: version, flags, count, size, and the kind of the first sample entry.
_MP4_ENCRYPTED: Final = re.compile(rb"stsd.{12}(drms|enca)", re.DOTALL)


def is_protected(fd: int, container: str | None) -> bool:
    """True if an open mp4 or asf file announces encryption (a ``drms`` or ``enca`` track, an encryption object)."""
    if container == "asf":
        head = os.pread(fd, _LOOK_BYTES // 16, 0)
        return any(guid in head for guid in _ASF_ENCRYPTION)
    if container != "mov":
        return False
    # The index lies in front or at the end.
    size = os.fstat(fd).st_size
    last = max(0, size - _LOOK_BYTES)
    pieces = {*range(0, min(size, _LOOK_BYTES), _PIECE_BYTES), *range(last, size, _PIECE_BYTES)}
    return any(_MP4_ENCRYPTED.search(os.pread(fd, _PIECE_BYTES + _OVERLAP_BYTES, at)) for at in pieces)
