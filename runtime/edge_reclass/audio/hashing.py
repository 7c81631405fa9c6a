"""A hash of the sound in a file, which no tagger changes: of its packets, not of the file."""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import Any, Final

from edge_reclass.audio.decode_av import import_av
from edge_reclass.audio.formats import demuxer_of, named_container, sniff
from edge_reclass.audio.pieces import Pieces
from edge_reclass.audio.tags import trailing_start
from edge_reclass.errors import TrackError

_HASH_BYTES: Final = 16


def audio_hash(path: str | os.PathLike[str]) -> bytes | None:
    """Hash what the decoder is given: each packet of each audio stream, and the codec's own header.

    Nothing is decoded: a tenth of what that would take. None where there is nothing to compare: the file cannot be
    read, holds no audio, or PyAV (the extra ``codecs``) is not installed. Decoding with libsndfile instead would give
    another hash for the same sound, which is worse than none.

    Returns:
        16 bytes, or None. Never raises for a bad file.
    """
    try:
        av = import_av("")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (TrackError, OSError, ValueError):
        return None
    try:
        container, offset = sniff(fd)
        container = container or named_container(path)
        if container is None:
            return None
        # FFmpeg counts tags at the end into the last packet of some formats (ape, mpc, raw streams).
        end = max(offset, trailing_start(fd, os.fstat(fd).st_size))
        with av.open(
            Pieces(fd, [(offset, end - offset)]), mode="r", format=demuxer_of(container), metadata_errors="ignore"
        ) as opened:
            return _hash(av, opened)
    except (av.FFmpegError, OSError, ValueError):
        return None
    finally:
        os.close(fd)


def _hash(av: Any, opened: Any) -> bytes | None:
    streams = list(opened.streams.audio)
    if not streams:
        return None
    hashes = []
    for stream in streams:
        context = stream.codec_context
        name, header = ("", b"") if context is None else (context.name, bytes(context.extradata or b""))
        hashes.append(blake2b(name.encode() + b"\0" + _header(name, header), digest_size=_HASH_BYTES))
    number = {stream.index: i for i, stream in enumerate(streams)}
    packets = 0
    try:
        for packet in opened.demux(*streams):
            if packet.size:
                one = hashes[number[packet.stream.index]]
                one.update(packet.size.to_bytes(4, "little"))
                one.update(packet)
                packets += 1
    except av.FFmpegError:
        hashes[0].update(b"damaged")  # what follows cannot be compared; what came before is the same either way
    if not packets:
        return None
    return blake2b(b"".join(one.digest() for one in hashes), digest_size=_HASH_BYTES).digest()


def _header(codec: str, header: bytes) -> bytes:
    """The codec's header without what taggers change: Vorbis' comments; the gain that a player applies to Opus."""
    if codec in ("opus", "libopus") and len(header) >= 18:
        return header[:16] + header[18:]
    if codec not in ("vorbis", "libvorbis") or not header.startswith(b"\x02"):
        return header
    # Xiph lacing: the sizes of all headers but the last, in bytes of which 255 says that another follows.
    sizes, at = [], 1
    for _ in range(2):
        size = 0
        while at < len(header) and header[at] == 255:
            size, at = size + 255, at + 1
        if at < len(header):
            size, at = size + header[at], at + 1
        sizes.append(size)
    return header[at : at + sizes[0]] + header[at + sizes[0] + sizes[1] :]
