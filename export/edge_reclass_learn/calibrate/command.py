"""``edge-reclass calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass.errors import UsageError
from edge_reclass_learn.progress import Progress

if TYPE_CHECKING:
    from edge_reclass_learn.calibrate.certify import Risk


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory; starter is the embedded one.", metavar="BUNDLE")],
    data: Annotated[
        Path,
        typer.Option(
            help="Tracks to count: a folder of music, a state file or a CSV; labelled as for fit, unless the risk is"
            " disagreement."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the new bundle.", metavar="NEW")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Policy of the bundle. [default: its default one]")] = None,
    risk: Annotated[
        str | None,
        typer.Option(
            help="disagreement: another answer than all stages give; error: a wrong genre. [default: disagreement]"
        ),
    ] = None,
    min_confidence: Annotated[
        bool,
        typer.Option(
            "--min-confidence",
            help="Certify the least confidence instead: at most epsilon wrong among the tracks that get a genre.",
        ),
    ] = False,
    epsilon: Annotated[float, typer.Option(help="Largest risk.")] = 0.05,
    delta: Annotated[float, typer.Option(help="Probability that the certificate is wrong.")] = 0.1,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Count BUNDLE's certificate again, with its own epsilon, delta and seed, on this device; add the"
            " device to it.",
        ),
    ] = False,
    windows: Annotated[
        str, typer.Option(help="After how many windows stages may be asked, beside those of the policies.")
    ] = "1,3",
    limit: Annotated[int | None, typer.Option(min=1, help="Take so many artists, drawn by chance.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which track of an artist, and for which part.")] = 0,
    cache: Annotated[
        Path | None, typer.Option(help="What was heard is kept here. [default: NEW.cache]", metavar="FILE")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, tensorrt or auto.")] = "cpu",
    engines: Annotated[Path | None, typer.Option(help="Folder of the engines. [default: as classify]")] = None,
) -> None:
    """Choose thresholds with a certificate of their risk.

    Of the thresholds and windows of a policy, those of least measured cost are taken whose risk is at most epsilon,
    with probability 1 - delta, on tracks like those of DATA. The certificate stands in the new bundle; inspect and
    classify --explain show it. It is void when policy, heads or encoders change, and on devices and precisions that
    it was not counted on. Needs the extra fit.

    Exit codes: 0 certified, 2 the data or a path cannot be used, too few tracks, or nothing can be certified, 4 the
    bundle is invalid, 5 the device cannot be used.
    """
    from edge_reclass.bundle import starter_path
    from edge_reclass_export.recipe import check_there, need

    need("scipy", "onnx", "sklearn", extra="fit")
    from edge_reclass_learn.calibrate import calibrating, checking, screen
    from edge_reclass_learn.calibrate.certify import Goal
    from edge_reclass_learn.hearing.cache import cache_of

    check_there(data)
    if min_confidence and risk is not None:
        raise UsageError("--risk and --min-confidence: expected one of them, got both")
    if (output is None) != check:
        raise UsageError("expected -o NEW, or --check, which changes BUNDLE itself")
    root = starter_path() if str(bundle) == "starter" and not bundle.is_dir() else bundle
    named = bundle if output is None else output
    goal = Goal(_risk(risk, min_confidence) or "disagreement", epsilon, delta)
    options = calibrating.Options(
        cache=cache_of(named) if cache is None else cache,
        goal=goal,
        policy=policy,
        windows=_counts(windows),
        seed=seed,
        limit=limit,
        device=device,
        engines=engines,
    )
    progress = Progress()
    if output is None:
        lines = screen.checked(checking.check(root, data, options, _risk(risk, min_confidence), progress))
    else:
        lines = screen.calibrated(calibrating.calibrate(root, data, output, options, progress))
    progress.done()
    for line in lines:
        print(line)
    print(f"done in {progress.seconds:.0f} s: {named}; next: edge-reclass inspect {named}")


def _risk(name: str | None, min_confidence: bool) -> Risk | None:
    if min_confidence:
        return "error_if_sure"
    risks: dict[str, Risk] = {"disagreement": "disagreement", "error": "error"}
    if name is not None and name not in risks:
        raise UsageError(f"--risk: expected {' or '.join(risks)}, got {name!r}")
    return None if name is None else risks[name]


def _counts(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = (0,)
    if any(count < 1 for count in found):
        raise UsageError(f"--windows: expected whole numbers from 1 on, with commas, got {text!r}")
    return found
