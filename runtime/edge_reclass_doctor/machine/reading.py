"""Read-only ways to the machine: small files below a root, and tools that may be missing, refuse or hang."""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "TOOL_SECONDS",
    "Run",
    "ToolResult",
    "find_tool",
    "read_int",
    "read_list",
    "read_text",
    "run_tool",
    "scaled",
    "subfolders",
]

TOOL_SECONDS = 5.0
_MOST = 1 << 20
_TOOL_FOLDERS = ("usr/sbin", "usr/bin", "sbin", "bin", "usr/local/sbin", "usr/local/bin")


@dataclass(frozen=True)
class ToolResult:
    """What a tool printed. ``failure`` says why it gave nothing: it could not be started, or was stopped."""

    status: int | None
    stdout: str
    stderr: str
    failure: str | None = None


Run = Callable[[Sequence[str], float, int | None], ToolResult]
"""Runs a command for at most so many seconds; with a number of lines, stops it as soon as it has printed them."""


def read_text(path: Path, limit: int = _MOST) -> str | None:
    """The text of a small file without trailing white space and NULs; None where it cannot be read.

    Files of /sys may fail with any errno (EAGAIN for the sensor of a part that is off), so every OSError counts.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limit)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    return content.decode("utf-8", errors="replace").rstrip("\0 \t\r\n")


def read_int(path: Path) -> int | None:
    """The whole number that is all of a file; None for anything else."""
    text = read_text(path, 64)
    if text is None or re.fullmatch(r"\s*[+-]?\d{1,19}", text, re.ASCII) is None:
        return None
    return int(text)


def scaled(path: Path, factor: float) -> float | None:
    """The number in a file times ``factor``, such as kHz → MHz."""
    number = read_int(path)
    return None if number is None else round(number * factor, 6)


def read_list(text: str | None) -> int | None:
    """How many numbers a kernel list such as ``0-3,5`` holds."""
    if text is None or re.fullmatch(r"\d{1,6}(-\d{1,6})?(,\d{1,6}(-\d{1,6})?)*", text.strip(), re.ASCII) is None:
        return None
    count = 0
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count if count > 0 else None


def subfolders(folder: Path, pattern: str = "*") -> list[Path]:
    """What in ``folder`` matches, numbers in names in their order; empty where it cannot be read."""
    try:
        found = list(folder.glob(pattern))
    except OSError:
        return []
    return sorted(found, key=lambda path: [int(part) if part.isdigit() else part for part in _parts(path.name)])


def _parts(name: str) -> list[str]:
    # Splitting on digits makes text and numbers alternate, so that keys of different names can be compared.
    return re.split(r"(\d+)", name)


def find_tool(root: Path, name: str, environ: Mapping[str, str]) -> Path | None:
    """Where a program lies below ``root``; on the real machine PATH counts too, as sbin is often not on it."""
    for folder in _TOOL_FOLDERS:
        path = root / folder / name
        if path.is_file() and os.access(path, os.X_OK):
            return path
    if root == Path("/") and (found := shutil.which(name, path=environ.get("PATH", ""))):
        return Path(found)
    return None


def run_tool(command: Sequence[str], seconds: float = TOOL_SECONDS, lines: int | None = None) -> ToolResult:
    """Run a program without a shell or input, in the C locale, for at most ``seconds``; its children end with it.

    Args:
        lines: stop it as soon as it has printed so many lines; for tools that never end.
    """
    environment = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return ToolResult(None, "", "", f"{command[0]} cannot be started ({getattr(error, 'strerror', None) or error})")
    try:
        stdout, stderr, timely = _collect(process, time.monotonic() + seconds, lines)
    finally:
        if process.poll() is None:
            with suppress(OSError):  # the whole session, so that nothing it started is left behind
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    failure = None if timely else f"{command[0]} did not answer within {seconds:g} s"
    return ToolResult(process.returncode if timely and lines is None else None, stdout, stderr, failure)


def _collect(process: subprocess.Popen[bytes], deadline: float, lines: int | None) -> tuple[str, str, bool]:
    """What it prints until it ends, has printed ``lines`` lines, or the time is over (then the last is False)."""
    stdout, stderr = bytearray(), bytearray()
    timely = True
    with selectors.DefaultSelector() as selector:
        if process.stdout is not None:
            selector.register(process.stdout, selectors.EVENT_READ, stdout)
        if process.stderr is not None:
            selector.register(process.stderr, selectors.EVENT_READ, stderr)
        while selector.get_map() and not (lines is not None and stdout.count(b"\n") >= lines):
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            for key, _ in ready:
                block = os.read(key.fd, 1 << 16)
                if not block:
                    selector.unregister(key.fileobj)
                elif len(key.data) < _MOST:
                    key.data.extend(block)
            if time.monotonic() >= deadline:
                timely = False
                break
        else:
            if lines is None:
                timely = _ended(process, deadline)
    return stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace"), timely


def _ended(process: subprocess.Popen[bytes], deadline: float) -> bool:
    try:
        process.wait(max(0.05, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:  # it closed its output and goes on
        return False
    return True
