"""``edge-reclass bench peers``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_reclass.errors import UsageError

TASKS = ("features", "encoders", "files", "service")
RATES = (44_100, 22_050)
WORKER = "edge_reclass_bench.peers.worker"


def peers(
    paths: Annotated[
        list[str], typer.Argument(help="Audio files, and folders that are searched for them.", metavar="PATH...")
    ],
    bundle: Annotated[Path | None, typer.Option(help="Bundle directory. [default: the starter bundle]")] = None,
    tasks: Annotated[str, typer.Option(help="Some of features,encoders,files,service; or all.")] = "all",
    encoders: Annotated[
        str | None, typer.Option(help="Stages whose encoders are compared, comma-separated. [default: all]")
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="Take this many tracks, evenly spread over those found.")] = 3,
    repeats: Annotated[int, typer.Option(min=1, help="Measured passes over the clips, per process.")] = 3,
    processes: Annotated[int, typer.Option(min=1, help="At least so many processes; 5 for an interval.")] = 5,
    max_seconds: Annotated[float, typer.Option(min=1, help="Start no further process after so long.")] = 600.0,
    warm_up: Annotated[int, typer.Option(min=1, help="Passes before, not counted.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of encoders. [default: all]")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Write the record (JSON) to this file.", metavar="FILE.json")
    ] = Path("peers.json"),
) -> None:
    """Measure other programs for the same task in turn with edge-reclass, and print the ratios.

    features: the 518 features by librosa, one thread. encoders: MERT and OpenJMLA with a bundle's untrained weights in
    transformers and torch, eager, sdpa and bfloat16, on as many threads as ours. files: a loop over files with
    librosa.load, librosa's features and new ONNX Runtime sessions. service: edge-reclass serve and a new process for
    each track, beside the loop in one process; one track at a time, and as many as there are threads. Everybody's
    answers have to agree. Set OMP_NUM_THREADS=1 to hold numpy's products on one thread too.

    Exit codes: 0 measured, 1 answers differ, 2 wrong usage or no audio found, 4 the bundle is invalid.
    """
    from edge_reclass.cascade import choose_policy, load_bundle
    from edge_reclass.host import usable_cpus
    from edge_reclass.run import refuse_inputs
    from edge_reclass_bench import environment
    from edge_reclass_bench.cli import finish, finite, needs_extra, reporter
    from edge_reclass_bench.conduct import conduct, process_events
    from edge_reclass_bench.harness import header_of
    from edge_reclass_bench.peers.worker import PeersTask
    from edge_reclass_bench.record import Settings
    from edge_reclass_bench.statistics import SEED
    from edge_reclass_bench.tracks import find

    needs_extra()
    finite(max_seconds=max_seconds)
    wanted = list(TASKS) if tasks == "all" else [name.strip() for name in tasks.split(",")]
    if unknown := [name for name in wanted if name not in TASKS]:
        raise UsageError(f"--tasks: expected some of {', '.join(TASKS)}, or all, got {', '.join(unknown)}")
    loaded, tracks = load_bundle(bundle), find(paths, clips)
    refuse_inputs(output, None, tracks.paths)
    before = environment.beginning([loaded.root])
    settings = Settings(
        processes=processes,
        precision=1.0,
        max_seconds=max_seconds,
        min_passes=repeats,
        warm_up=warm_up,
        jobs=1,
        threads=threads or usable_cpus(),
        batch=1,
        seed=SEED,
    )
    task = PeersTask(
        bundle=str(loaded.root),
        paths=[str(path) for path in tracks.paths],
        tasks=wanted,
        encoders=[name.strip() for name in encoders.split(",")] if encoders else [],
        rates=list(RATES),
        threads=settings.threads,
        warm_up=warm_up,
        repeats=repeats,
    )
    record = conduct(
        header_of(loaded, choose_policy(loaded), tracks, settings, before, command=sys.argv),
        lambda process, seconds: process_events(WORKER, task),  # noqa: ARG005 - a contest is not cut short
        lambda: environment.environment(before),
        output=output,
        reporter=reporter(),
    )
    finish(record, output)
