"""A Python that has the appliance's modules loaded, and makes a process of its own for each command.

What a command does is the same as in a new interpreter: its environment, its standard streams, its umask and its end,
also by a signal, are its own. Only the start is saved, which is longer than most commands.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
_SECONDS = 120


def run(
    program: str, arguments: Sequence[str], environ: Mapping[str, str], renames: int | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line of ``program`` with these arguments.

    ``renames``: it ends with exit code 9, as by a power cut, before the next rename after so many.
    """
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    request = {"program": program, "arguments": [*arguments], "environ": {**environ}, "renames": renames}
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    code, output, errors = json.loads(server.stdout.readline())
    return subprocess.CompletedProcess([program, *arguments], code, output, errors)


@functools.cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-IB", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"LC_ALL": "C.UTF-8", "PATH": os.defpath},
    )
    atexit.register(server.communicate)  # it ends when its input does
    return server


def _serve() -> None:
    sys.path.insert(0, str(RUNTIME))
    from edge_reclass_appliance.__main__ import main, parser

    parser("provision.sh")  # loads every command
    for line in sys.stdin:
        request = json.loads(line)
        streams = [os.memfd_create("output"), os.memfd_create("errors")]
        child = os.fork()
        if child == 0:
            _become(request, streams, main)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for stream in streams:
            os.lseek(stream, 0, os.SEEK_SET)
            with os.fdopen(stream, encoding="utf-8", errors="replace") as file:
                texts.append(file.read())
        print(json.dumps([code, *texts]), flush=True)


def _become(request: dict[str, Any], streams: list[int], main: Any) -> None:
    """Never returns."""
    code = 1
    try:
        signal.alarm(_SECONDS)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, stream in enumerate(streams, 1):
            os.dup2(stream, number)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(request["environ"])
        tempfile.tempdir = None  # which is read of the environment once
        if request["renames"] is not None:
            _end_before_a_rename(request["renames"])
        code = main(request["arguments"], request["program"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_before_a_rename(left: int) -> None:
    rename = Path.replace

    def replace(self: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            os._exit(9)
        left -= 1
        return rename(self, target)

    Path.replace = replace  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    _serve()
