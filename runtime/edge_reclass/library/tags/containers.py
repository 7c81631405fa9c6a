"""Which reader and writer a file's content asks for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from edge_reclass.audio.formats import named_container, sniff
from edge_reclass.library.tags.asf import Asf
from edge_reclass.library.tags.chunks import Chunks, Dsf
from edge_reclass.library.tags.content import Change, Container, Refused
from edge_reclass.library.tags.framed import Flac, Framed
from edge_reclass.library.tags.mp4 import Mp4
from edge_reclass.library.tags.ogg import Ogg

# For each container, ours, and the class of mutagen's that reads the result back.
_KINDS: Final[dict[str, tuple[Callable[[int, str, bool], Container], str]]] = {
    "mpeg": (Framed, "mp3.MP3"),
    "tta": (Framed, "trueaudio.TrueAudio"),
    "wv": (Framed, "wavpack.WavPack"),
    "ape": (Framed, "monkeysaudio.MonkeysAudio"),
    "mpc": (Framed, "musepack.Musepack"),
    "mpc8": (Framed, "musepack.Musepack"),
    "tak": (Framed, "tak.TAK"),
    "flac": (Flac, "flac.FLAC"),
    "riff": (Chunks, "wave.WAVE"),
    "aiff": (Chunks, "aiff.AIFF"),
    "dsf": (Dsf, "dsf.DSF"),
    "ogg": (Ogg, ""),
    "ogg-other": (Ogg, ""),
    "mov": (Mp4, "mp4.MP4"),
    "asf": (Asf, "asf.ASF"),
}


def container_of(fd: int, path: str | os.PathLike[str]) -> str:
    """The container of an open file.

    Raises:
        Refused: it is none whose tags are written.
    """
    container = sniff(fd)[0] or named_container(path)
    if container not in _KINDS:
        what = "no audio file that is known" if container is None else f"tags of {container} files are not written"
        raise Refused(what)
    return container


def opened(fd: int, container: str, *, deep: bool) -> Container:
    """The tags of an open file; ``deep``: its inventory is to hold the audio too, which has to be read for it.

    Raises:
        Refused: they are damaged, or of a kind that is not written.
    """
    return _KINDS[container][0](fd, container, deep)


def reads_back(container: str, fd: int, change: Change) -> bool:
    """True if mutagen reads the new genre, the surest first, from an open file."""
    import mutagen

    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        found: Any
        if name := _KINDS[container][1]:
            module, _, kind = name.partition(".")
            found = getattr(__import__(f"mutagen.{module}", fromlist=[kind]), kind)(file)
        else:
            found = mutagen.File(file)
        from edge_reclass.library.tags.reading import tags_of

        file.seek(0)
        return tags_of(found, file).genres[:1] == change.genres[:1]
