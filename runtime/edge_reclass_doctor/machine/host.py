"""The machine that is probed: where its files lie, how programs run and libraries open, and which Python this is."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from edge_reclass.host import read_text
from edge_reclass_doctor.machine.records import Python

_TOOL_SECONDS = 5.0
_TOOL_FOLDERS = ("usr/sbin", "usr/bin", "sbin", "bin", "usr/local/sbin", "usr/local/bin")


@dataclass(frozen=True)
class ToolResult:
    """What a tool printed. ``failure`` says why it gave nothing: it could not be started, or was stopped."""

    status: int | None
    stdout: str
    stderr: str
    failure: str | None = None


Run = Callable[[Sequence[str], float], ToolResult]
"""Runs a command for at most so many seconds."""


def run_tool(command: Sequence[str], seconds: float = _TOOL_SECONDS) -> ToolResult:
    """Run a program without a shell or input, in the C locale, for at most ``seconds``; its children end with it."""
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C"},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return ToolResult(None, "", "", f"{command[0]} cannot be started ({getattr(error, 'strerror', None) or error})")
    with process:
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        except BaseException as error:
            with suppress(OSError):  # the whole session, so that nothing it started is left behind
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            stdout, stderr = process.communicate()
            return ToolResult(None, stdout, stderr, f"{command[0]} did not answer within {seconds:g} s")
    return ToolResult(process.returncode, stdout, stderr)


@dataclass(frozen=True)
class Host:
    """What a probe asks of the machine; tests emulate another one.

    Args:
        root: where ``/sys``, ``/proc``, ``/etc``, ``/usr`` and ``/var`` are looked for.
        run: runs a program.
        load: opens a shared library by name.
        environ: environment variables.
    """

    root: Path = Path("/")
    run: Run = run_tool
    load: Callable[[str], Any] = ctypes.CDLL
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def find_tool(self, name: str) -> Path | None:
        """Where a program lies below ``root``; on the real machine PATH counts too, as sbin is often not on it."""
        folders = [str(self.root / folder) for folder in _TOOL_FOLDERS]
        if self.root == Path("/") and (path := self.environ.get("PATH")):
            folders.append(path)
        found = shutil.which(name, path=os.pathsep.join(folders))
        return None if found is None else Path(found)

    def ask(self, name: str, *arguments: str) -> tuple[str, str | None]:
        """What a tool prints on both streams, and why that is not to be relied on."""
        path = self.find_tool(name)
        if path is None:
            return "", f"{name} is not installed"
        result = self.run((str(path), *arguments), _TOOL_SECONDS)
        output = "\n".join(part for part in (result.stdout, result.stderr) if part)
        if result.failure is None and result.status:
            first = next((line.strip() for line in output.splitlines() if line.strip()), "")[:120]
            return output, f"{name} failed with status {result.status}: {first}"
        return output, result.failure

    def version(self, distribution: str) -> str | None:
        """Version of a distribution that this Python sees."""
        try:
            return metadata.version(distribution)
        except Exception:  # not installed, or its metadata was damaged: then nothing is known of it
            return None

    def package(self, name: str) -> Path | None:
        """Folder of a top-level package that could be imported; it is not imported."""
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None
        if spec is None or not spec.submodule_search_locations:
            return None
        return Path(next(iter(spec.submodule_search_locations)))

    def import_module(self, name: str) -> Any:
        """Import a module."""
        return import_module(name)

    def python(self) -> Python:
        """This interpreter and its virtual environment."""
        inside = sys.prefix != sys.base_prefix
        settings = read_text(Path(sys.prefix) / "pyvenv.cfg") if inside else None
        match = re.search(r"^include-system-site-packages\s*=\s*(\w+)", settings or "", re.MULTILINE | re.IGNORECASE)
        return Python(
            version=platform.python_version(),
            executable=sys.executable or "",
            virtual_environment=sys.prefix if inside else None,
            sees_system_packages=match[1].lower() == "true" if match else None,
        )
