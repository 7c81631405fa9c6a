"""``cold-start``: from starting a process to its first verdict.

The parts are ``start`` (the interpreter, up to its first line of ours), ``import``, ``open`` (the hashes of the bundle,
the encoders) and ``first`` (the first track); ``total`` is their sum. The clock is CLOCK_MONOTONIC, which all processes
of a machine share. Each process of the run starts two: a ``cold`` one, before which bundle, engines, track and
libraries are taken out of the page cache, and a ``warm`` one after it. Where files stay in memory all the same (another
process has them mapped, or the file system ignores the wish), the start is called warm, and the record says how much
was there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from edge_reclass.cascade import load_bundle
from edge_reclass.engines import engines_folder
from edge_reclass.errors import EdgeReclassError
from edge_reclass_bench import page_cache
from edge_reclass_bench.record import PolicyRecord
from edge_reclass_bench.scenarios.context import Event, Key, Passed, Ran, Sample, Warned
from edge_reclass_bench.watch import Watch

if TYPE_CHECKING:
    from edge_reclass_bench.harness import Request

SUBJECT = "cascade"
STILL_RESIDENT = 0.02
"""Share of the bundle and the track that may be in memory at a start that is called cold."""
LIBRARIES_RESIDENT = 0.2
"""The same of the libraries: what this process itself has mapped cannot be taken out."""
_PARTS = (
    ("start", "spawned", "entered"),
    ("import", "entered", "imported"),
    ("open", "imported", "opened"),
    ("first", "opened", "answered"),
    ("total", "spawned", "answered"),
)
_PACKAGES = ("numpy", "onnxruntime", "soundfile", "_soundfile_data", "soxr", "msgspec", "yaml", "edge_reclass", "av")
_GPU_PACKAGES = ("nvidia", "cuda", "tensorrt", "tensorrt_libs", "tensorrt_rtx", "tensorrt_rtx_libs")
_GPU_LIBRARIES = (
    "usr/lib/*-linux-gnu/libnvinfer*.so*",
    "usr/lib/*-linux-gnu/libnvonnxparser*.so*",
    "usr/lib/*-linux-gnu/libcudnn*.so*",
    "usr/lib/*-linux-gnu/libcublas*.so*",
    "usr/local/cuda/lib64/*.so*",
)
"""Where Debian's packages and JetPack have what a GPU needs."""

Starter = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Starts a process for a task; gives what it printed, with ``spawned``, all moments in ns of one clock."""


def start_process(task: Mapping[str, Any]) -> dict[str, Any]:
    """Run ``cold_child.py`` with this Python.

    Raises:
        EdgeReclassError: it failed; the message has its last line.
    """
    source = Path(__file__).with_name("cold_child.py").read_text(encoding="utf-8")
    spawned = time.monotonic_ns()
    done = subprocess.run([sys.executable, "-c", source, json.dumps(task)], check=False, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise EdgeReclassError(f"cold-start: the process ended with exit code {done.returncode}: {last}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said | {"spawned": spawned}


def data_of(request: Request, track: Path) -> list[Path]:
    """The files of the bundle, its engines where the device may run them, and the track."""
    bundle = load_bundle(request.bundle)
    engines = [] if request.device == "cpu" else [engines_folder(bundle.digest, request.options.engines)]
    return [track, *_files([bundle.root, *engines])]


def libraries(device: str, root: Path = Path("/")) -> list[Path]:
    """The files that a start on ``device`` takes of packages, wherever they are installed, and of a GPU's libraries.

    ``root`` is the file system's, for tests.
    """
    gpu = device != "cpu"
    found: list[Path] = []
    for name in (*_PACKAGES, *(_GPU_PACKAGES if gpu else ())):
        spec = find_spec(name)
        if spec is None:
            continue
        # An editable install and Debian's packages lie outside of this Python's folder.
        places = spec.submodule_search_locations or ([spec.origin] if spec.origin else [])
        homes = [Path(place).parent for place in places]
        # What belongs to a package lies beside it: numpy.libs, a module's compiled twin.
        found += [path for home in homes for path in home.glob(f"{name}*")]
    found += [path for pattern in (_GPU_LIBRARIES if gpu else ()) for path in root.glob(pattern)]
    return _files(dict.fromkeys(found))


def _files(places: Iterable[Path]) -> list[Path]:
    every = (path for place in places for path in (place.rglob("*") if place.is_dir() else [place]))
    return [path for path in every if path.is_file()]


def measure_cold_start(
    request: Request,
    policy: PolicyRecord,
    process: int,
    start: Starter = start_process,
    cache: Any = page_cache,
) -> Iterator[Event]:
    """Start a cold and a warm process. The track is the first of the request's."""
    track = request.tracks.paths[0]
    options = request.options
    task = {
        "bundle": str(load_bundle(request.bundle).root),
        "device": request.device,
        "track": str(track),
        "policy": {
            "name": policy.name,
            "vote": policy.vote,
            "steps": [msgspec.structs.asdict(step) for step in policy.steps],
        },
        "options": {
            "threads": options.threads,
            "batch": options.batch,
            "allow_random": options.allow_random,
            "engines": None if options.engines is None else str(options.engines),
            "min_confidence": 0.0,
        },
    }
    data, code = data_of(request, track), libraries(request.device)
    if process == 0:
        start(task)  # what the first start of all writes (compiled modules) is none of a start's cost
    for phase in ("cold", "warm"):
        note = "files in memory"
        if phase == "cold":
            cache.drop([*data, *code])
            shares = cache.resident_share(data), cache.resident_share(code)
            if shares[0] is None or shares[0] > STILL_RESIDENT or (shares[1] or 0.0) > LIBRARIES_RESIDENT:
                what = "it cannot be asked" if shares[0] is None else f"{shares[0]:.0%} and {shares[1] or 0:.0%} stayed"
                yield Warned(
                    f"cold-start: bundle and libraries could not be taken out of memory ({what}): none is cold"
                )
                continue
            note = f"{shares[0]:.0%} of bundle and track, {shares[1] or 0:.0%} of the libraries in memory"
        with (watch := Watch()):
            said = start(task)
        yield _passed(said, phase, process)
        answered = said["status"] == "ok"
        if not answered:
            yield Warned(f"cold-start: the track's status was {said['status']}")
        yield Ran(
            watch.run(
                "cold-start",
                SUBJECT,
                warm_up=0,
                passes=1,
                count=int(answered),
                failed=int(not answered),
                notes=[f"{phase}: {note}"],
                host_peak=said["peak_bytes"],
            )
        )


def _passed(said: Mapping[str, Any], phase: Literal["cold", "warm"], number: int) -> Passed:
    samples = [
        Sample(Key("cold-start", SUBJECT, part, phase=phase), (said[end] - said[begin]) / 1e6)
        for part, begin, end in _PARTS
    ]
    return Passed(SUBJECT, number, (said["answered"] - said["spawned"]) / 1e9, samples)
