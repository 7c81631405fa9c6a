"""What a confined process can do, tried one by one: prints ``{"what": "yes" or why not}`` as JSON.

``python probe.py PORT RESULTS PATH…``: a TCP port where somebody listens, the folder that may be written, and
paths that may not.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

_CLONE_NEWUSER = 0x10000000


def attempt(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror}"
    return "yes"


def names(folder: str) -> list[str]:
    return [path.name for path in Path(folder).iterdir()]


def write_below(folder: str) -> None:
    path = Path(folder) / ".edge-reclass-probe"
    path.write_text("probe")
    path.unlink()


def connect(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


def namespace() -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main(port: int, results: str, paths: list[str]) -> dict[str, str]:
    found = {
        "tcp connection": attempt(lambda: connect(port)),
        "internet socket": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()),
        "netlink socket": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()),
        "unix socket": attempt(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).close()),
        "write and execute": attempt(
            lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
        ),
        "write results": attempt(lambda: write_below(results)),
        "write /tmp": attempt(lambda: write_below("/tmp")),
        **{f"write {path}": attempt(lambda path=path: write_below(path)) for path in paths},
        "more than the usual devices": ", ".join(
            sorted(name for name in names("/dev") if name.startswith(("nvidia", "nv", "vd", "sd", "mem", "kvm")))
        ),
        "processes": str(sum(name.isdecimal() for name in names("/proc"))),
        "capabilities": next(
            line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")
        ),
        "files of /tmp": str(len(names("/tmp"))),
        "files of /root": attempt(lambda: names("/root")),
    }
    found["user namespace"] = attempt(namespace)  # last: it changes this process where it is allowed
    return found


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])))
