"""Stage ``rtx``, of a second call: engines by TensorRT or TensorRT-RTX, whichever is here, then parity, times, cascade.

Whether it runs on this GPU at all, which its list of compute capabilities need not name, is asked first, with a small
network of the tests.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from edge_reclass.backends import open_library
from edge_reclass.errors import DeviceError
from gpu_check import BUNDLES, cascade
from gpu_check.cli import TINY_GRAPHS
from gpu_check.encoders import Encoder, filled, measured
from gpu_check.filled import fill
from gpu_check.journal import Begun, Item, NotHere, Settings, Work

_WITHOUT_GPU = "8.6"
"""What TensorRT-RTX builds for where there is no GPU: the script's test."""


def run(work: Work) -> Iterator[Begun | Item]:
    """See the module."""
    settings, state = work.settings, Path(work.settings.state)
    yield from work.do("probe", partial(_probe, settings), 20.0)
    for name in ("openjmla", "mert-95m"):
        yield from filled(work, BUNDLES[name])
        if (state / BUNDLES[name]).is_dir():
            build = partial(_build, settings, state / BUNDLES[name], name)
            yield from work.do(f"{name} build", build, 10.0 if settings.tiny else 90.0)
            if settings.device == "cuda":
                yield from measured(work, Encoder(settings, name), "tensorrt")
    if settings.device == "cuda":
        yield from cascade.measured(work, "tensorrt")


def _probe(settings: Settings) -> dict[str, Any]:
    bundle = Path(settings.state) / "probe"
    fill(TINY_GRAPHS / "mert-330m.tar.xz", bundle)
    return _build(settings, bundle, "mert-330m")


def _build(settings: Settings, bundle: Path, name: str) -> dict[str, Any]:
    """By ``edge-reclass build``, which on a GPU also holds the engine against the reference vectors."""
    try:
        library = open_library("auto")
    except DeviceError as error:
        raise NotHere(str(error)) from error
    engines, batch = str(Path(settings.state) / "engines"), str(max(settings.batches))
    command = [sys.executable, "-m", "edge_reclass", "build", str(bundle), "--stage", name, "--engines", engines]
    command += ["--max-batch", batch, "--flavour", library.flavour]
    if settings.device == "cpu":
        command += ["--sm", _WITHOUT_GPU]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).strip()[-1500:]
    if done.returncode == DeviceError.exit_code:
        raise NotHere(said)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {said}")
    seconds = time.perf_counter() - began
    facts = {"built by": f"{library.flavour} {library.version}", "build": said}
    return {"values": {f"{bundle.name} {name} build s": seconds}, "facts": facts}
