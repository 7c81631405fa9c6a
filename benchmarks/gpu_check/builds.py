"""Stage ``build``: engines of every encoder by every TensorRT that is here, through the project's own build.

Whether TensorRT-RTX runs on a GPU that its list of compute capabilities does not name is asked apart from that, with a
small network in a process of its own (``rtx_probe``).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import msgspec

from edge_reclass.backends import Backend, Library, open_backend, open_library
from edge_reclass.bundle import Bundle, load
from edge_reclass.engines import Flavour, Profile, target_for
from edge_reclass.errors import DeviceError
from edge_reclass.host import Gpu, probe_gpu, usable_cpus
from edge_reclass_export.engine.build import DeviceCheck, EngineBuild, default_timing_cache
from edge_reclass_export.engine.stages import INPUT, EngineStage, engine_stages
from edge_reclass_export.engine.store import EngineStore
from gpu_check.geometry import Encoder, encoders
from gpu_check.journal import Journal, NotHere
from gpu_check.settings import Settings

__all__ = ["profiled", "run"]

_PRECISIONS = ("fp16", "fp32")
_WITHOUT_GPU = "8.6"
"""What TensorRT-RTX builds for where there is no GPU: the script's test."""

_PROBE_SECONDS = 120.0


def run(settings: Settings, journal: Journal) -> None:
    """See the module."""
    for flavour in get_args(Flavour):
        found = journal.do(flavour, partial(_library, flavour))
        if not found:
            continue
        if flavour == "tensorrt-rtx":
            journal.do("tensorrt-rtx on this GPU", lambda: _probe(settings), expect=30.0)
        for encoder in encoders(settings):
            for precision in _PRECISIONS:
                name = f"{flavour} {encoder.name} {precision}"
                expect = 5.0 if settings.tiny else 60.0
                built = journal.do(name, partial(_build, settings, flavour, encoder, precision), expect=expect)
                if built:
                    print(f"  {name}: {built['build_seconds']} s, {built['megabytes']} MB, {built['verified']}")


def _library(flavour: str) -> dict[str, Any]:
    try:
        library = open_library(flavour)
    except DeviceError as error:
        raise NotHere(str(error)) from error
    return {"version": library.version, "module": library.api.__name__}


def _build(settings: Settings, flavour: str, encoder: Encoder, precision: str) -> dict[str, Any]:
    library = open_library(flavour)
    bundle = load(settings.bundle)
    gpu = probe_gpu() if settings.device == "cuda" else None
    if gpu is None and flavour == "tensorrt":
        raise NotHere("TensorRT measures on the GPU while it builds")
    target = target_for(library.flavour, library.version, gpu=gpu, sm=None if gpu else _WITHOUT_GPU)
    stage = profiled(
        engine_stages(bundle, target, names=(encoder.name,), precision=precision)[0], encoder, settings.batches
    )
    store = EngineStore(settings.state / "engines")
    store.require_writable()
    build = EngineBuild(
        bundle=bundle,
        library=library,
        target=target,
        store=store,
        check=_check(bundle, library, gpu, target),
        timing_cache=default_timing_cache(store.root, target),
        fallback=False,
    )
    warnings: list[str] = []

    def watch(event: Any) -> None:
        if event.get("event") == "log" and len(warnings) < 20:
            warnings.append(event["text"])

    try:
        outcome = build.run(stage, watch)
    except DeviceError as error:  # it has no code for this GPU: a finding
        raise NotHere(str(error)) from error
    if outcome.record is None or outcome.folder is None or outcome.action == "failed":
        raise RuntimeError(outcome.detail)
    record = outcome.record
    return {
        "plan": str(outcome.folder / "engine.plan"),
        "build_seconds": record.build_seconds,
        "build_peak_gb": round(record.build_peak_bytes / 1e9, 2),
        "megabytes": round(record.bytes / 1e6, 1),
        "verified": "verified" if outcome.verified else f"not verified: {record.not_verified}",
        "checks": msgspec.to_builtins(record.verification),
        "warnings": warnings,
    }


def _check(bundle: Bundle, library: Library, gpu: Gpu | None, target: Any) -> DeviceCheck:
    def on_device() -> Backend:
        from edge_reclass.backends.tensorrt import TensorRTBackend

        return TensorRTBackend(flavour=library.flavour)

    return DeviceCheck(bundle, target, gpu, on_device, lambda: open_backend("cpu", threads=usable_cpus()))


def profiled(stage: EngineStage, encoder: Encoder, batches: tuple[int, ...]) -> EngineStage:
    """``stage`` for the batch sizes that are measured, where the runtime's own plan would ask for fewer windows."""
    ordered = sorted(batches)
    profile = Profile(INPUT, encoder.window, 1, ordered[len(ordered) // 2], ordered[-1])
    candidates = tuple(
        replace(candidate, key=msgspec.structs.replace(candidate.key, profile=profile))
        for candidate in stage.candidates
    )
    return replace(stage, profile=profile, candidates=candidates)


def _probe(settings: Settings) -> dict[str, Any]:
    """What ``rtx_probe`` found out; its steps up to the one in which it died, if it did."""
    done = subprocess.run(
        [sys.executable, "-m", "gpu_check.rtx_probe", settings.device],
        capture_output=True,
        text=True,
        timeout=_PROBE_SECONDS,
        check=False,
    )
    steps = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            steps.update(json.loads(line))
    if done.returncode != 0:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        steps["ended"] = f"{how}: {done.stderr.strip()[-400:]}"
    return steps
