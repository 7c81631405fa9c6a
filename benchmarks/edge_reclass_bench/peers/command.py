"""``edge-reclass bench peers``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_reclass.errors import UsageError

__all__ = ["peers"]


def peers(
    paths: Annotated[
        list[str], typer.Argument(help="Audio files, and folders that are searched for them.", metavar="PATH...")
    ],
    bundle: Annotated[Path | None, typer.Option(help="Bundle directory. [default: the starter bundle]")] = None,
    tasks: Annotated[str, typer.Option(help="Some of features,encoders,files, comma-separated; or all.")] = "all",
    encoders: Annotated[
        str | None, typer.Option(help="Stages whose encoders are compared, comma-separated. [default: all]")
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="Take this many tracks, evenly spread over those found.")] = 3,
    repeats: Annotated[int, typer.Option(min=2, help="Measured passes over the clips.")] = 7,
    warm_up: Annotated[int, typer.Option(min=1, help="Passes before, not counted.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of encoders. [default: all]")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the record (JSON) to this file.", metavar="FILE.json")
    ] = None,
) -> None:
    """Measure other programs for the same task in turn with edge-reclass, and print the ratios as Markdown.

    features: the 518 features by librosa, one thread. encoders: MERT and OpenJMLA with a bundle's untrained weights in
    transformers and torch, eager, sdpa and bfloat16, on as many threads as ours. files: a loop over files with
    librosa.load, librosa's features and new ONNX Runtime sessions. Everybody's answers have to agree. Set
    OMP_NUM_THREADS=1 to hold numpy's products on one thread too.

    Exit codes: 0 measured, 1 answers differ, 2 wrong usage or no audio found, 4 the bundle is invalid.
    """
    from edge_reclass.cascade import load_bundle
    from edge_reclass.host import usable_cpus
    from edge_reclass.run import refuse_inputs
    from edge_reclass_bench.peers.session import measure_peers
    from edge_reclass_bench.peers.tasks import TASKS
    from edge_reclass_bench.record import Settings, save
    from edge_reclass_bench.report import markdown_report, tagged
    from edge_reclass_bench.statistics import RESAMPLES, SEED
    from edge_reclass_bench.tracks import find

    wanted = list(TASKS) if tasks == "all" else [name.strip() for name in tasks.split(",")]
    if unknown := [name for name in wanted if name not in TASKS]:
        raise UsageError(f"--tasks: expected some of {', '.join(TASKS)}, or all, got {', '.join(unknown)}")
    settings = Settings(
        min_seconds=0.0,
        min_count=repeats,
        warm_up=warm_up,
        jobs=1,
        threads=threads or usable_cpus(),
        batch=1,
        seed=SEED,
        resamples=RESAMPLES,
    )
    tracks = find(paths, clips)
    refuse_inputs(output, None, tracks.paths)
    record = measure_peers(
        load_bundle(bundle),
        tracks,
        settings,
        tasks=wanted,
        encoders=[name.strip() for name in encoders.split(",")] if encoders else (),
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if output is not None:
        save(record, output)
    sys.stdout.write(markdown_report(tagged([(output.name if output else "not saved", record)])))
