"""``edge-reclass verify``: does this device give the numbers that the bundle promises? Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import msgspec
import typer

from edge_reclass.errors import UsageError

if TYPE_CHECKING:
    from edge_reclass_export.engine.audit import Finding
    from edge_reclass_export.engine.cascade_reference import CascadeFinding

__all__ = ["verify"]

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
    from edge_reclass.backends import Backend, open_backend
    from edge_reclass.engines import describe_target, engines_folder, target_for
    from edge_reclass.host import probe_gpu, usable_cpus
    from edge_reclass_export.engine import audit as audits
    from edge_reclass_export.engine.cascade_reference import check_cascade
    from edge_reclass_export.engine.library import open_library
    from edge_reclass_export.engine.report import say
    from edge_reclass_export.engine.stages import FALLBACKS
    from edge_reclass_export.engine.store import EngineStore

    if format not in {"table", "json"}:
        raise UsageError(f"--format: expected table or json, got {format!r}")
    known = FALLBACKS if device == "tensorrt" else get_args(bundles.Precision)
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
        subjects = audits.engine_subjects(loaded, target, store.root, names=names, precision=precision)
    else:
        with on_device() as backend:
            subjects = audits.cpu_subjects(loaded, backend, names=names, precision=precision)
    findings = []
    for finding in audits.audit(
        loaded,
        subjects,
        device=on_device,
        cpu=lambda: open_backend("cpu", threads=usable_cpus()),
        audio=tuple(reference_audio or ()),
    ):
        findings.append(finding)
        remark = audits.settle(loaded, store, finding)
        for note in [*finding.notes, *([remark] if remark else [])]:
            say(f"{finding.subject.stage}: {note}")
    wrong = any(finding.status not in ("ok", "not verified") for finding in findings)
    heard: list[CascadeFinding] = []
    if not wrong:
        with open_backend("cpu", threads=usable_cpus()) as cpu:
            heard = check_cascade(loaded, on_device(), cpu, names=names, engines=engines, precision=precision)
    _print(findings, heard, format)
    if wrong or any(finding.status == "mismatch" for finding in heard):
        raise typer.Exit(MISMATCH)
    if "ok" not in {*(finding.status for finding in findings), *(one.status for one in heard)}:
        raise UsageError(
            f"nothing of {loaded.name} could be compared, although every stage answers: it has no references; "
            f"write them:  edge-reclass export reference {bundle}"
        )


def _print(findings: list[Finding], heard: list[CascadeFinding], format: str) -> None:
    from edge_reclass_export.engine.report import json_text, table

    if format == "json":
        print(json_text([*map(_plain, findings), *map(_plain_cascade, heard)]))
        return
    rows = []
    for finding in findings:
        subject = finding.subject
        where = "engine" if subject.engine else "onnx"
        if not finding.checks:
            rows.append((subject.stage, subject.precision, where, *["–"] * 5, _result(finding)))
        for check in finding.checks:
            top = f"{check.heads_agree}/{check.heads}" if check.heads else "–"
            rows.append(
                (
                    subject.stage,
                    subject.precision,
                    where,
                    str(check.batch),
                    f"{check.cosine:.7f}",
                    f"{check.median_cosine:.7f}",
                    f"{check.relative:.2e}",
                    top,
                    _result(finding),
                )
            )
    for one in heard:
        row = [one.cosine, None, one.relative, None]
        cells = ["–" if value is None else f"{value:.7f}" if value is one.cosine else f"{value:.2e}" for value in row]
        detail = one.detail or ("" if one.probability is None else f"probabilities within {one.probability:.1e}")
        rows.append((one.stage, one.precision, "cascade", "–", *cells, f"{one.status}: {detail}"))
    print(
        table(("stage", "precision", "runs as", "batch", "cosine", "median", "rel. error", "top genre", "result"), rows)
    )


def _plain_cascade(finding: CascadeFinding) -> dict[str, Any]:
    return {
        "stage": finding.stage,
        "precision": finding.precision,
        "cascade": True,
        "status": finding.status,
        "detail": finding.detail or None,
        "cosine": finding.cosine,
        "relative": finding.relative,
        "probability": finding.probability,
    }


def _result(finding: Finding) -> str:
    return f"{finding.status}: {finding.detail}" if finding.detail else finding.status


def _plain(finding: Finding) -> dict[str, Any]:
    subject = finding.subject
    return {
        "stage": subject.stage,
        "precision": subject.precision,
        "file": None if subject.file is None else str(getattr(subject.file, "path", subject.file)),
        "engine": subject.engine is not None,
        "status": finding.status,
        "detail": finding.detail or None,
        "checks": msgspec.to_builtins(finding.checks),
        "notes": finding.notes,
    }
