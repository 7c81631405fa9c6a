"""``edge-reclass build``: the bundle's ONNX files → engines for this device. Needs no torch."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_reclass.errors import UsageError

if TYPE_CHECKING:
    from edge_reclass.host import Gpu
    from edge_reclass_export.engine.build import BuildResult

FAILED = 4


def build(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.", metavar="BUNDLE")],
    engines: Annotated[
        Path | None,
        typer.Option(help="Folder for the engines. [default: $EDGE_RECLASS_ENGINES, else a state folder]"),
    ] = None,
    stage: Annotated[list[str] | None, typer.Option(help="Only this stage; may be repeated.")] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="fp16 or fp32, without a fallback. [default: fp16, then fp32, then the CPU]"),
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(min=1, help="Most windows at a time, of all tracks. [default: 16]")
    ] = None,
    workspace: Annotated[
        int | None,
        typer.Option(min=1, help="Limit of TensorRT's scratch memory, in MiB. [default: none]", metavar="MIB"),
    ] = None,
    flavour: Annotated[str, typer.Option(help="auto, tensorrt or tensorrt-rtx.")] = "auto",
    sm: Annotated[
        str | None,
        typer.Option(help="Compute capability, such as 8.6; TensorRT-RTX builds for it without a GPU.", metavar="X.Y"),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(help="TensorRT's measured times, read and written. [default: in the engines' folder]"),
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build also what is present or was rejected.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be built, and why; write nothing.")
    ] = False,
    format: Annotated[str, typer.Option("--format", "-f", help="table | json.")] = "table",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show TensorRT's own messages.")] = False,
) -> None:
    """Compile a bundle's encoders into TensorRT engines for this device, and verify each on it.

    An engine that disagrees with the bundle's reference vectors is not kept: FP16 falls back to FP32, and that to
    ONNX Runtime on the CPU; each choice is said, and recorded beside the engine. Without a GPU, TensorRT-RTX builds for
    the compute capability given with --sm, and the engine is marked as not verified: run verify on the device.

    Exit codes: 0 every stage has an engine, or falls back to the CPU; 2 wrong usage; 4 the bundle is invalid or an
    engine could not be built; 5 no TensorRT, or no GPU where one is needed; 130 interrupted.
    """
    from edge_reclass import bundle as bundles
    from edge_reclass.backends import open_backend, open_library
    from edge_reclass.engines import ENGINE_PRECISIONS, describe_target, engines_folder, target_for
    from edge_reclass.host import usable_cpus
    from edge_reclass_export.engine import build as builder
    from edge_reclass_export.engine.report import progress_bar, say
    from edge_reclass_export.engine.stages import engine_stages
    from edge_reclass_export.engine.store import EngineStore

    if format not in {"table", "json"}:
        raise UsageError(f"--format: expected table or json, got {format!r}")
    if precision is not None and precision not in ENGINE_PRECISIONS:
        raise UsageError(f"--precision: expected one of {', '.join(ENGINE_PRECISIONS)}, got {precision!r}")
    if sm is not None and re.fullmatch(r"\d{1,2}\.\d", sm) is None:
        raise UsageError(f"--sm: expected a compute capability such as 8.6, got {sm!r}")
    loaded = bundles.load(bundle)
    loaded.require_exact()
    library = open_library(flavour)
    gpu, no_gpu = _gpu()
    target = target_for(library.flavour, library.version, gpu=gpu, sm=sm)
    store = EngineStore(engines_folder(loaded.digest, engines))
    say(f"building with {describe_target(target)} into {store.root}")
    if gpu is None:
        say(f"engines will be built but not verified: {no_gpu}")
    stages = engine_stages(loaded, target, names=tuple(stage or ()), precision=precision, max_batch=max_batch)
    if not stages:
        raise UsageError(f"nothing to build: no stage of {loaded.name} has a graph")
    if dry_run:
        outcomes = list(builder.dry_run(loaded, library, store, stages, rebuild=rebuild))
        _print(outcomes, format, dry=True)
        return
    store.require_writable()
    run = builder.EngineBuild(
        bundle=loaded,
        library=library,
        target=target,
        store=store,
        check=builder.DeviceCheck(
            loaded,
            target,
            gpu,
            lambda: open_backend("tensorrt", threads=usable_cpus(), flavour=library.flavour),
            lambda: open_backend("cpu", threads=usable_cpus()),
        ),
        timing_cache=_timing_cache(timing_cache, builder.default_timing_cache(store.root, target)),
        rebuild=rebuild,
        fallback=precision is None,
        workspace=None if workspace is None else workspace << 20,
    )
    outcomes = []
    with _terminated_as_interrupted():
        for each in stages:
            with progress_bar(each.name, verbose=verbose) as on_event:
                outcomes.append(run.run(each, on_event))
            for line in _remarks(outcomes[-1], loaded.root):
                say(line)
    _print(outcomes, format, dry=False)
    if any(outcome.action == "failed" for outcome in outcomes):
        raise typer.Exit(FAILED)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """A service that is stopped during a build leaves as little behind as one that is interrupted by hand."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _gpu() -> tuple[Gpu | None, str]:
    from edge_reclass.errors import DeviceError
    from edge_reclass.host import probe_gpu

    try:
        return probe_gpu(), ""
    except DeviceError as error:
        return None, str(error)


def _timing_cache(given: Path | None, default: Path | None) -> Path | None:
    from edge_reclass_export.engine.report import say

    if default is None and given is not None:
        say(f"--timing-cache {given}: left alone, TensorRT-RTX measures nothing while it builds")
        return None
    if given is not None and not given.absolute().parent.is_dir():
        raise UsageError(f"--timing-cache {given}: there is no folder {given.absolute().parent}")
    return given or default


def _remarks(outcome: BuildResult, root: Path) -> list[str]:
    lines = [f"{outcome.stage}: {one.precision} was not taken: {one.reason}" for one in outcome.rejected]
    if outcome.action == "cpu":
        lines.append(f"warning: {outcome.stage} has no engine on this device and runs with ONNX Runtime on the CPU")
    elif outcome.action == "failed":
        lines.append(f"error: {outcome.detail}")
    elif not outcome.verified and outcome.record is not None:
        lines.append(
            f"warning: {outcome.stage}: the engine was built for SM {outcome.record.key.target.sm} but not verified:"
            f" {outcome.record.not_verified}; on the device, run"
            f"  edge-reclass verify {shlex.quote(str(root))} --device tensorrt"
        )
    return lines


def _print(outcomes: list[BuildResult], format: str, *, dry: bool) -> None:
    from edge_reclass_export.engine.report import json_text, table

    if format == "json":
        print(json_text([_plain(outcome, dry) for outcome in outcomes]))
        return
    rows = [(outcome.stage, outcome.precision or "–", _word(outcome, dry), outcome.detail) for outcome in outcomes]
    print(table(("stage", "precision", "engine", "why" if dry else "result"), rows))


def _word(outcome: BuildResult, dry: bool) -> str:
    words = {"build": "would build" if dry else "built", "keep": "kept", "cpu": "ORT CPU", "failed": "failed"}
    return words[outcome.action]


def _plain(outcome: BuildResult, dry: bool) -> dict[str, Any]:
    record = outcome.record
    return {
        "stage": outcome.stage,
        "action": outcome.action,
        "done": not dry,
        "precision": outcome.precision,
        "detail": outcome.detail,
        "verified": outcome.verified,
        "folder": None if outcome.folder is None else str(outcome.folder),
        "bytes": None if record is None else record.bytes,
        "build_seconds": None if record is None else record.build_seconds,
        "build_peak_bytes": None if record is None else record.build_peak_bytes,
        "rejected": [{"precision": one.precision, "reason": one.reason} for one in outcome.rejected],
    }
