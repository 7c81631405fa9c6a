"""``edge-reclass verify``: does this device give the numbers that the bundle promises? Needs no torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import msgspec
import typer

from edge_reclass.errors import UsageError

if TYPE_CHECKING:
    from edge_reclass_export.engine.audit import GraphResult
    from edge_reclass_export.engine.cascade_reference import CascadeResult

MISMATCH = 4


def verify(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.", metavar="BUNDLE")],
    device: Annotated[str, typer.Option(help="cpu or cuda (ONNX Runtime), or tensorrt.")] = "cpu",
    engines: Annotated[
        Path | None,
        typer.Option(help="Folder of the engines. [default: $EDGE_RECLASS_ENGINES, else a state folder]"),
    ] = None,
    stage: Annotated[list[str] | None, typer.Option(help="Only this stage; may be repeated.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or fp16. [default: what the device uses]")] = None,
    reference_audio: Annotated[
        list[Path] | None,
        typer.Option(help="Compare on this audio file too, with the FP32 file on the CPU; may be repeated."),
    ] = None,
    flavour: Annotated[str, typer.Option(help="With --device tensorrt: auto, tensorrt or tensorrt-rtx.")] = "auto",
    format: Annotated[str, typer.Option("--format", "-f", help="table | json.")] = "table",
) -> None:
    """Compare this device's sessions or engines with the bundle's reference vectors, then the whole cascade.

    Every encoder runs at its smallest, usual and largest batch (an engine: its own); cosine and relative error are the
    worst row's, "median" is the median row's cosine, and "top genre" says on how many reference inputs the heads still
    choose the same genre. What is found is written into an engine's record; an engine
    that disagrees is not used again. In the lines "cascade", every stage, fma518 and heads included and whatever the
    policy, hears synthesised audio as classify does; where the bundle has no references, it has to answer at all.

    Exit codes: 0 everything that could be compared agrees; 2 wrong usage, or nothing could be compared; 4 a mismatch,
    an engine that is missing, stale or damaged, or an invalid bundle; 5 the device cannot be used.
    """
    from edge_reclass import bundle as bundles
    from edge_reclass.backends import Backend, open_backend, open_library
    from edge_reclass.engines import ENGINE_PRECISIONS, describe_target, engines_folder, target_for
    from edge_reclass.host import probe_gpu, usable_cpus
    from edge_reclass_export.engine import audit as audits
    from edge_reclass_export.engine.cascade_reference import check_cascade
    from edge_reclass_export.engine.report import say
    from edge_reclass_export.engine.store import EngineStore

    if format not in {"table", "json"}:
        raise UsageError(f"--format: expected table or json, got {format!r}")
    known = ENGINE_PRECISIONS if device == "tensorrt" else get_args(bundles.Precision)
    if precision is not None and precision not in known:
        raise UsageError(f"--precision: expected one of {', '.join(known)}, got {precision!r}")
    loaded = bundles.load(bundle)
    loaded.verify()
    names = tuple(stage or ())
    store = EngineStore(engines_folder(loaded.digest, engines))

    def on_device() -> Backend:
        own: dict[str, Any] = {"flavour": flavour} if device == "tensorrt" else {}
        return open_backend(device, threads=usable_cpus(), **own)

    if device == "tensorrt":
        library = open_library(flavour)
        flavour = library.flavour
        target = target_for(library.flavour, library.version, gpu=probe_gpu())
        say(f"verifying engines for {describe_target(target)} in {store.root}")
        cases = audits.engine_cases(loaded, target, store.root, names=names, precision=precision)
    else:
        with on_device() as backend:
            cases = audits.onnx_cases(loaded, backend, names=names, precision=precision)
    results = []
    for result in audits.audit(
        loaded,
        cases,
        device=on_device,
        cpu=lambda: open_backend("cpu", threads=usable_cpus()),
        audio=tuple(reference_audio or ()),
    ):
        results.append(result)
        remark = audits.record_result(loaded, store, result)
        for note in [*result.notes, *([remark] if remark else [])]:
            say(f"{result.case.stage}: {note}")
    wrong = any(result.status not in ("ok", "not verified") for result in results)
    heard: list[CascadeResult] = []
    if not wrong:
        with open_backend("cpu", threads=usable_cpus()) as cpu:
            heard = check_cascade(loaded, on_device(), cpu, names=names, engines=engines, precision=precision)
    _print(results, heard, format)
    if wrong or any(result.status == "mismatch" for result in heard):
        raise typer.Exit(MISMATCH)
    if "ok" not in {*(result.status for result in results), *(one.status for one in heard)}:
        raise UsageError(
            f"nothing of {loaded.name} could be compared, although every stage answers: it has no references; "
            f"write them:  edge-reclass export reference {bundle}"
        )


def _print(results: list[GraphResult], heard: list[CascadeResult], format: str) -> None:
    from edge_reclass_export.engine.report import json_text, table

    if format == "json":
        cascade = ({**asdict(one), "cascade": True, "detail": one.detail or None} for one in heard)
        print(json_text([*map(_plain, results), *cascade]))
        return
    rows: list[tuple[str, ...]] = []
    for result in results:
        head = (result.case.stage, result.case.precision, "engine" if result.case.engine else "onnx")
        for check in result.checks:
            figures = (f"{check.cosine:.7f}", f"{check.median_cosine:.7f}", f"{check.relative:.2e}")
            top = f"{check.heads_agree}/{check.heads}" if check.heads else "–"
            rows.append((*head, str(check.batch), *figures, top, _result(result)))
        if not result.checks:
            rows.append((*head, *["–"] * 5, _result(result)))
    for one in heard:
        cosine = "–" if one.cosine is None else f"{one.cosine:.7f}"
        relative = "–" if one.relative is None else f"{one.relative:.2e}"
        detail = one.detail or ("" if one.probability is None else f"probabilities within {one.probability:.1e}")
        rows.append((one.stage, one.precision, "cascade", "–", cosine, "–", relative, "–", f"{one.status}: {detail}"))
    print(
        table(("stage", "precision", "runs as", "batch", "cosine", "median", "rel. error", "top genre", "result"), rows)
    )


def _result(result: GraphResult) -> str:
    return f"{result.status}: {result.detail}" if result.detail else result.status


def _plain(result: GraphResult) -> dict[str, Any]:
    case = result.case
    return {
        "stage": case.stage,
        "precision": case.precision,
        "file": None if case.file is None else str(getattr(case.file, "path", case.file)),
        "engine": case.engine is not None,
        "status": result.status,
        "detail": result.detail or None,
        "checks": msgspec.to_builtins(result.checks),
        "notes": result.notes,
    }
