"""Builds one engine in a child process (``worker``) and says in plain words what to do when that fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from edge_reclass.backends import Library
from edge_reclass.engines import PLAN, EngineKey
from edge_reclass.errors import EngineError

OnEvent = Callable[[Mapping[str, Any]], None]
"""Gets each event of the worker: ``progress`` (done, total, phase, …), ``log`` (level, text), ``note`` (text)."""

OUTPUT = "embedding"
_NEW_CACHE = "timing.cache"
_STDERR = "stderr.txt"

_ADVICE = {
    "memory": (
        "free memory (stop other programs and the desktop, add swap), lower --max-batch,"
        " or build --precision fp16 alone"
    ),
    "unsupported": (
        "export the encoder again with this version of edge-reclass (opset 18, eager attention),"
        " update TensorRT, or run this stage on another device"
    ),
    "mismatch": "manifest and ONNX file do not belong together: export the encoder again",
    "device": "see  edge-reclass build --help  for --flavour and --sm",
    "build": "run again with --verbose for TensorRT's own messages; another precision or a smaller --max-batch may do",
    "disk": "name a folder with more room with --engines DIR",
    "crash": "run again with --verbose; report it with TensorRT's version if it stays",
}


class BuildFailure(EngineError):
    """No engine was built. ``kind`` is one of ``_ADVICE``.

    ``verdict`` is the reason and what to do next; the message names the engine before it.
    """

    def __init__(self, what: str, kind: str, reason: str) -> None:
        self.kind = kind
        words = {"memory": "out of memory", "unsupported": "TensorRT cannot take this graph"}.get(
            kind, "cannot be built"
        )
        self.verdict = f"{words}: {reason}; next: {_ADVICE[kind]}"
        super().__init__(f"{what}: {self.verdict}")


@dataclass(frozen=True)
class BuildJob:
    """One engine to build: ``what`` names it in messages, ``dim`` is the embedding's width.

    ``workspace`` limits TensorRT's scratch memory, in bytes; None leaves it to TensorRT (all of the GPU's).
    """

    what: str
    library: Library
    onnx: Path
    key: EngineKey
    dim: int
    timing_cache: Path | None = None
    workspace: int | None = None


@dataclass(frozen=True)
class Built:
    """What the build took. ``new_timing_cache`` lies in the build's folder."""

    plan: Path
    seconds: float
    peak_bytes: int
    new_timing_cache: Path | None


def build_engine(job: BuildJob, folder: Path, on_event: OnEvent) -> Built:
    """Build into ``folder``, which the caller removes. However this call ends, no child is left running.

    Raises:
        BuildFailure: TensorRT cannot build it, or the child was killed, most often for want of memory.
    """
    request = {
        "flavour": job.library.flavour,
        "module": job.library.api.__name__,
        "onnx": str(job.onnx.resolve()),
        "plan": str((folder / PLAN).resolve()),
        "output": OUTPUT,
        "dim": job.dim,
        "profile": msgspec.to_builtins(job.key.profile),
        "sm": job.key.target.sm,
        "workspace": job.workspace,
        "timing_cache": None if job.timing_cache is None else str(job.timing_cache.resolve()),
        "new_timing_cache": str((folder / _NEW_CACHE).resolve()),
    }
    built: dict[str, Any] | None = None
    with (folder / _STDERR).open("w+b") as errors:
        with _child(request, folder, errors) as child:
            for line in child.stdout or ():
                event = json.loads(line)
                if event["event"] == "built":
                    built = event
                elif event["event"] == "problem":
                    raise BuildFailure(job.what, event["kind"], event["text"])
                else:
                    on_event(event)
            status = child.wait()
        errors.seek(0)
        said = errors.read()[-2000:].decode(errors="replace").strip()
    if status == -signal.SIGKILL:
        raise BuildFailure(job.what, "memory", "the system ended the build (signal 9), as it does when memory runs out")
    if status != 0 or built is None:
        ending = f"signal {-status}" if status < 0 else f"exit code {status}"
        raise BuildFailure(job.what, "crash", f"the build ended with {ending}: {said[-500:] or 'without a word'}")
    cache = folder / _NEW_CACHE
    return Built(
        plan=folder / PLAN,
        seconds=float(built["seconds"]),
        peak_bytes=int(built["peak_bytes"]),
        new_timing_cache=cache if cache.exists() else None,
    )


@contextmanager
def _child(request: dict[str, Any], folder: Path, errors: BinaryIO) -> Iterator[subprocess.Popen[str]]:
    """The worker at work on ``request``; it starts in its own empty folder, and sees the packages of this process."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(p).resolve()) for p in sys.path if p)}
    with subprocess.Popen(
        [sys.executable, "-c", "from edge_reclass_export.engine.worker import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        cwd=folder,
        env=environment,
        encoding="utf-8",
    ) as child:
        try:
            if child.stdin is not None:
                with suppress(BrokenPipeError):  # it died at once; its exit code says more
                    child.stdin.write(json.dumps(request))
                    child.stdin.close()
            yield child
        finally:
            child.kill()
