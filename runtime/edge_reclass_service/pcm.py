"""Samples in a request's body: they get the head of a wav file and go the way of any file."""

from __future__ import annotations

import struct
from typing import Annotated, Literal

import msgspec

HEAD_SIZE = 44
MOST_BYTES = (1 << 32) - 1 - HEAD_SIZE
"""Of samples in a wav file."""


class Pcm(msgspec.Struct, frozen=True):
    """How the samples are written: interleaved, little endian."""

    rate: Annotated[int, msgspec.Meta(ge=1, le=4_000_000, description="Samples per second, of each channel.")]
    channels: Annotated[int, msgspec.Meta(ge=1, le=64, description="Channels, interleaved.")]
    format: Annotated[
        Literal["s16le", "f32le"],
        msgspec.Meta(description="s16le: 16-bit integers; f32le: floating point with full scale 1. Little endian."),
    ]

    @property
    def frame(self) -> int:
        """Bytes of one sample of all channels."""
        return self.channels * (2 if self.format == "s16le" else 4)

    def head(self, size: int) -> bytes:
        """The head of a wav file with ``size`` bytes of samples."""
        kind, width = (1, 2) if self.format == "s16le" else (3, 4)
        form = struct.pack("<HHIIHH", kind, self.channels, self.rate, self.rate * self.frame, self.frame, 8 * width)
        return (
            struct.pack("<4sI4s", b"RIFF", HEAD_SIZE - 8 + size, b"WAVE")
            + struct.pack("<4sI", b"fmt ", len(form))
            + form
            + struct.pack("<4sI", b"data", size)
        )
