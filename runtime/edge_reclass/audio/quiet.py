"""Keep libsndfile's mp3 decoder quiet.

libmpg123 writes its notes about damaged frames and odd tags ("Trying to resync...", "No comment text") with
fprintf(stderr), hundreds of lines for one bad file, and libsndfile offers no switch for it. While a file is
decoded, the C library's ``stderr`` stream is therefore exchanged for one on /dev/null. Python's sys.stderr,
file descriptor 2 and C++ std::cerr do not go through that variable and keep working, other threads' too.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_users = 0
_saved: int | None = None
_stderr: ctypes.c_void_p | None = None
_null: int | None = None


def _prepare() -> None:
    """Find the variable and open /dev/null, once. Only glibc's ``stderr`` is known to be assignable."""
    global _stderr, _null  # noqa: PLW0603
    if _null is not None or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    libc.fopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    _null = libc.fopen(os.fsencode(os.devnull), b"we")
    if _null:
        _stderr = ctypes.c_void_p.in_dll(libc, "stderr")


@contextmanager
def quiet_c_stderr() -> Iterator[None]:
    """Inside, what C code writes to ``stderr`` is dropped. Nests, and may be entered by several threads."""
    global _users, _saved  # noqa: PLW0603
    with _lock:
        _prepare()
        if _stderr is not None:
            if _users == 0:
                _saved, _stderr.value = _stderr.value, _null
            _users += 1
    try:
        yield
    finally:
        with _lock:
            if _stderr is not None:
                _users -= 1
                if _users == 0:
                    _stderr.value = _saved
