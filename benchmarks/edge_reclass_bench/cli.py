"""``edge-reclass bench``: measure, compare, report. Heavy imports wait until a command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_reclass.errors import UsageError
from edge_reclass_bench.peers.command import peers
from edge_reclass_bench.report.command import report

__all__ = ["app"]

REGRESSION = 1

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure a bundle on this device, compare two measurements, report them.",
)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print(text: str) -> None:
    from edge_reclass.run import lenient

    lenient(sys.stdout)
    sys.stdout.write(text)
    sys.stdout.flush()


@app.command()
def run(
    paths: Annotated[
        list[str], typer.Argument(help="Audio files, and folders that are searched for them.", metavar="PATH...")
    ],
    bundle: Annotated[Path | None, typer.Option(help="Bundle directory. [default: the starter bundle]")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, tensorrt or auto.")] = "cpu",
    policy: Annotated[
        str | None, typer.Option(help="Policy of the bundle, or a preset. [default: the bundle's]")
    ] = None,
    engines: Annotated[Path | None, typer.Option(help="Folder of the engines. [default: as classify]")] = None,
    scenario: Annotated[
        str,
        typer.Option(help="Some of stage,single-stream,offline,cold-start,build,null, comma-separated; or all."),
    ] = "all",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the record (JSON) to this file.", metavar="FILE.json")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV with the columns path (or file) and genre (or label, top_genre).")
    ] = None,
    labels_from_folders: Annotated[
        bool, typer.Option("--labels-from-folders", help="Each track's folder is named after its genre.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take this many tracks, evenly spread over those found.")
    ] = None,
    min_seconds: Annotated[
        float, typer.Option(min=0, help="Measure each subject for at least this long (and --min-count).")
    ] = 10.0,
    min_count: Annotated[
        int, typer.Option(min=1, help="Measure each subject on at least this many tracks (and --min-seconds).")
    ] = 100,
    warm_up: Annotated[int, typer.Option(min=1, help="Passes over the tracks before, not counted.")] = 1,
    baselines: Annotated[
        bool, typer.Option(help="Also measure the full ensemble and every single stage in single-stream.")
    ] = True,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Lanes of offline. [default: as classify]")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads per track. [default: as classify]")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Most windows that an encoder takes at once.")] = 16,
    processes: Annotated[int, typer.Option(min=1, help="Processes of cold-start.")] = 7,
    sm: Annotated[
        str | None,
        typer.Option(help="Compute capability for build where there is no GPU (TensorRT-RTX).", metavar="X.Y"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of tracks and of the bootstrap.")] = 20_070_518,
    allow_random: Annotated[
        bool, typer.Option("--allow-random", help="Take stages with untrained weights too.")
    ] = False,
    synthetic: Annotated[
        str | None,
        typer.Option(help="Measure a full-size bundle with untrained weights, such as mert-330m,openjmla."),
    ] = None,
    synthetic_folder: Annotated[
        Path | None, typer.Option(help="Where --synthetic makes and keeps its bundles.", metavar="DIR")
    ] = None,
) -> None:
    """Measure a bundle on this device over these tracks, print the tables, and keep the record.

    Scenarios: stage (each stage alone, part by part), single-stream (one track after another; the cascade beside the
    full ensemble and each single stage), offline (throughput of the pool), cold-start (a fresh process to its first
    verdict), build (TensorRT engines from nothing), null (the overhead of harness and cascade).

    Exit codes: 0 measured, 2 wrong usage or no audio found, 4 the bundle is invalid, 5 the device cannot be used.
    """
    from edge_reclass.cascade import Options
    from edge_reclass.run import refuse_inputs
    from edge_reclass_bench import record as records
    from edge_reclass_bench.harness import Request
    from edge_reclass_bench.harness import run as measure
    from edge_reclass_bench.labels import from_csv, from_folders
    from edge_reclass_bench.tables import record_text
    from edge_reclass_bench.tracks import find

    scenarios = _scenarios(scenario)
    if labels is not None and labels_from_folders:
        raise UsageError("--labels and --labels-from-folders: expected one of them, got both")
    if synthetic is not None and bundle is not None:
        raise UsageError("--synthetic and --bundle: expected one of them, got both")
    if output is not None and not output.absolute().parent.is_dir():
        raise UsageError(f"--output {output}: there is no folder {output.absolute().parent}")
    tracks = find(paths, limit)
    refuse_inputs(output, None, tracks.paths)
    known: list[str | None] = []
    if labels is not None:
        known = from_csv(labels, tracks.paths)
    elif labels_from_folders:
        known = from_folders(tracks.paths)
    if synthetic is not None:
        bundle, allow_random = _synthetic(synthetic, synthetic_folder, tracks.paths), True
    record = measure(
        Request(
            tracks=tracks,
            scenarios=scenarios,
            bundle=bundle,
            device=device,
            policy=policy,
            labels=known,
            # Every audible track gets a genre, so that answers of different policies can be compared.
            options=Options(
                threads=threads, batch=batch, allow_random=allow_random, engines=engines, min_confidence=0.0
            ),
            min_seconds=min_seconds,
            min_count=min_count,
            warm_up=warm_up,
            baselines=baselines,
            jobs=jobs,
            processes=processes,
            build_sm=sm,
            seed=seed,
            say=_say,
        )
    )
    if output is not None:
        records.save(record, output)
    _print(record_text(record))


def _scenarios(text: str) -> list[str]:
    from edge_reclass_bench.scenarios import SCENARIOS

    wanted = list(SCENARIOS) if text == "all" else [word.strip() for word in text.split(",")]
    unknown = [word for word in wanted if word not in SCENARIOS]
    if unknown:
        raise UsageError(f"--scenario: expected some of {', '.join(SCENARIOS)}, or all, got {', '.join(unknown)}")
    return [name for name in SCENARIOS if name in wanted]


def _synthetic(names: str, folder: Path | None, audio: tuple[Path, ...]) -> Path:
    from edge_reclass_bench.synthetic import make

    if folder is None:
        raise UsageError("--synthetic: name a folder with --synthetic-folder; its bundles are large, and kept there")
    return make([name.strip() for name in names.split(",")], folder, audio=audio, say=_say)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="The record to compare with.", metavar="A.json")],
    b: Annotated[Path, typer.Argument(help="The record in question.", metavar="B.json")],
    threshold: Annotated[
        float, typer.Option(min=0, help="A headline measure that is slower by this share or more is a regression.")
    ] = 0.05,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare although what was measured differs, and say in what.")
    ] = False,
    all_measures: Annotated[bool, typer.Option("--all", help="Show parts that do not differ, too.")] = False,
) -> None:
    """Say of every measure whether B is slower, faster, or no different, with an interval of the ratio.

    Compared are records of the same bundle, policy, tracks, device, machine, scenarios and threads.

    Exit codes: 0 no regression, 1 a regression, 2 not comparable or wrong usage.
    """
    from edge_reclass_bench.compare import compare as compare_records
    from edge_reclass_bench.compare import mismatches
    from edge_reclass_bench.record import load
    from edge_reclass_bench.tables import comparison_text

    first, second = load(a), load(b)
    wrong = mismatches(first, second)
    if wrong and not anyway:
        raise UsageError(
            f"{a} and {b} are not comparable: " + "; ".join(wrong) + "; --anyway compares them all the same"
        )
    for line in wrong:
        _say(f"warning: compared although different: {line}")
    comparisons = list(compare_records(first, second))
    if not comparisons:
        raise UsageError(f"{a} and {b} have no measure in common")
    _print(comparison_text(comparisons, threshold, all_measures))
    if any(comparison.regression(threshold) for comparison in comparisons):
        raise typer.Exit(REGRESSION)


@app.command()
def order(
    file: Annotated[Path, typer.Argument(help="A record with the scenarios stage and single-stream.", metavar="FILE")],
    target: Annotated[
        list[float] | None,
        typer.Option(help="Agreement with the full ensemble, 0 to 1; may be repeated. [default: the policy's own]"),
    ] = None,
) -> None:
    """Ask a record whether another order of the stages costs less at equal agreement with the full ensemble.

    Replays the recorded answers of every stage; nothing is run.
    """
    from edge_reclass_bench.orders import study
    from edge_reclass_bench.record import load
    from edge_reclass_bench.tables import orders_text

    _print(orders_text(study(load(file), target or ())))


@app.command()
def null(
    bundle: Annotated[Path | None, typer.Option(help="Bundle directory. [default: the starter bundle]")] = None,
    min_seconds: Annotated[float, typer.Option(min=0, help="Measure for at least this long.")] = 5.0,
    min_count: Annotated[int, typer.Option(min=1, help="Measure at least this many tracks.")] = 1000,
) -> None:
    """Measure what is left when the device answers at once: the overhead of harness and cascade per track."""
    from edge_reclass.cascade import Options, choose_policy, load_bundle
    from edge_reclass_bench.harness import null_outcome
    from edge_reclass_bench.record import Settings
    from edge_reclass_bench.scenarios.context import Context
    from edge_reclass_bench.statistics import RESAMPLES, SEED
    from edge_reclass_bench.tables import null_text

    loaded = load_bundle(bundle)
    settings = Settings(
        min_seconds=min_seconds,
        min_count=min_count,
        warm_up=1,
        jobs=0,
        threads=1,
        batch=16,
        seed=SEED,
        resamples=RESAMPLES,
    )
    context = Context(loaded, choose_policy(loaded), "null", Options(allow_random=True), (), settings)
    outcome = null_outcome(context, most_seconds=min_seconds)
    _print(null_text(outcome.measures))
    for warning in outcome.warnings:
        _say(f"warning: {warning}")


app.command(name="report")(report)
app.command(name="peers")(peers)
