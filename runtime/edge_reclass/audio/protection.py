"""Whether a file is encrypted by a shop, so that no decoder can be expected to decode it."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["is_protected"]

_LOOK_BYTES: Final = 1 << 20

_ASF_ENCRYPTION: Final = (
    bytes.fromhex("fbb31122 23bd d211 b4b7 00a0c955fc6e".replace(" ", "")),
    bytes.fromhex("14e68a29 2226 174c b935 dae07ee9289c".replace(" ", "")),
)
"""The Content Encryption Object and its extended form, as they lie in the file."""


def is_protected(fd: int, container: str | None) -> bool:
    """True if an open mp4 or asf file announces encryption (a ``drms`` or ``enca`` track, an encryption object)."""
    if container not in ("mov", "asf"):
        return False
    size = os.fstat(fd).st_size
    # An mp4's index lies in front or at the end.
    places = (0, max(0, size - _LOOK_BYTES)) if container == "mov" else (0,)
    data = b"".join(os.pread(fd, _LOOK_BYTES, at) for at in places)
    if container == "asf":
        return any(guid in data for guid in _ASF_ENCRYPTION)
    return b"drms" in data or (b"enca" in data and b"sinf" in data)
