"""What a worker of a test does instead of decoding, by the name of the track: what decoders do to a process."""

from __future__ import annotations

import ctypes
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_reclass.audio import Decoder, OpenTrack

HOOK = "worker_hooks:install"

_read = 0
_name = ""


def install() -> None:
    opened, need = Decoder.open, OpenTrack.need

    def opening(decoder: Decoder, path: str, *arguments: Any) -> Any:
        global _read, _name
        _name, before, _read = Path(path).name, _read, _read + 1
        if _name.startswith("hang"):
            Path(path).with_suffix(".opened").touch()  # for those who wait for it
        _misbehave(_name, before)
        return opened(decoder, path, *arguments)

    def needing(track: OpenTrack, *arguments: Any) -> bool:
        if "later" in _name and not track.has(*arguments):
            _misbehave(_name.replace("later ", ""), 0)
        return need(track, *arguments)

    Decoder.open, OpenTrack.need = opening, needing  # type: ignore[method-assign,assignment]


def _misbehave(name: str, before: int) -> None:
    """``before``: tracks that this process has read."""
    word = name.split(maxsplit=1)[0]
    if word == "segfault" or (word == "spoilt" and before):
        ctypes.string_at(0)
    elif word == "abort":
        os.write(2, b"malloc(): corrupted top size\n")
        os.abort()
    elif word == "exit":
        os._exit(7)
    elif word == "hang":
        ctypes.CDLL(None).pause()
    elif word == "spin":
        while True:
            pass
    elif word == "sleep":
        time.sleep(6.0)
    elif word == "memory":
        eaten = []
        while True:
            eaten.append(bytearray(16 << 20))
    elif word == "babble":
        os.write(_descriptor(), b"\xff\xff\xff\x7f nonsense")
        time.sleep(30)
    elif word == "raise":
        raise RuntimeError("nobody foresaw this")


def _descriptor() -> int:
    """The pipe on which this worker answers: of its two, the one that takes something."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if entry.readlink().name.startswith("pipe:") and fcntl.fcntl(int(entry.name), fcntl.F_GETFL) & os.O_WRONLY:
                return int(entry.name)
    raise AssertionError("no pipe")
