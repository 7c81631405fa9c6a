"""``edge-reclass bench``: measure, compare, report. Heavy imports wait until a command runs."""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass.errors import MissingExtraError, UsageError
from edge_reclass_bench.order.command import order
from edge_reclass_bench.peers.command import peers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_reclass_bench.conduct import Reporter
    from edge_reclass_bench.record import Record
    from edge_reclass_learn.pages.table import Table

REGRESSION = 1
CANNOT_TELL = 3

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure a bundle on this device, compare two measurements, report them.",
)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _progress(text: str) -> None:
    """One line that is written over, on a terminal; nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)


def finite(**options: float) -> None:
    """Refuse infinity and what is no number. Raises ``UsageError``."""
    for name, value in options.items():
        if not math.isfinite(value):
            raise UsageError(f"--{name.replace('_', '-')}: expected a finite number, got {value}")


def needs_extra(*more: str) -> None:
    """Raise ``MissingExtraError`` where what measuring needs, and ``more``, is not installed."""
    if missing := [name for name in ("onnx", "scipy", *more) if find_spec(name) is None]:
        raise MissingExtraError(f"bench needs {', '.join(missing)}", "bench")


def reporter() -> Reporter:
    """Tells people on standard error; progress on a terminal alone."""
    from edge_reclass_bench.conduct import Reporter

    return Reporter(_say, _progress)


def finish(record: Record, output: Path) -> None:
    """Print a record's tables and warnings, and write it, whatever becomes of these.

    What was kept while it was measured is removed then.

    Raises:
        EdgeReclassError: it cannot be written; the tables are out by then.
        Exit: 130, where the run was broken off.
    """
    from edge_reclass_bench import record as records
    from edge_reclass_bench.books import Books
    from edge_reclass_bench.doubts import doubts
    from edge_reclass_bench.report import tables
    from edge_reclass_bench.report.sources import Source

    try:
        source = [Source(output.name, Books(record))]
        show([*tables.numbers(source), tables.absent(source), tables.answer(source)])
        for line in doubts(source[0].books):
            _say(f"warning: {line}")
    finally:
        records.save(record, output)
        output.with_name(output.name + ".partial").unlink(missing_ok=True)
        _say(f"record: {output}")
    if not record.complete:
        raise typer.Exit(130)


def show(tables: Sequence[Table]) -> None:
    """Print those of the tables that have rows."""
    from shutil import get_terminal_size

    from edge_reclass.run import lenient
    from edge_reclass_learn.pages.table import terminal

    lenient(sys.stdout)
    width = get_terminal_size((160, 40)).columns if sys.stdout.isatty() else 160
    sys.stdout.write(terminal([table for table in tables if table.rows], width))
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
        str | None,
        typer.Option(
            help="Some of stage,single-stream,offline,cold-start,build,agreement,ceilings,sweep,energy,sustained,"
            " or all. [default: the first six]"
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Write the record (JSON) to this file.", metavar="FILE.json")
    ] = Path("bench.json"),
    labels: Annotated[
        Path | None, typer.Option(help="CSV with the columns path (or file) and genre (or label, top_genre).")
    ] = None,
    labels_from_folders: Annotated[
        bool, typer.Option("--labels-from-folders", help="Each track's folder is named after its genre.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take this many tracks, evenly spread over those found.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="At least so many processes; 5 for a measurement error.")] = 5,
    precision: Annotated[
        float, typer.Option(min=0, help="More processes, until the headlines' error is at most this share.")
    ] = 0.02,
    max_seconds: Annotated[
        float, typer.Option(min=1, help="Start no further process after so long; what is done once comes behind it.")
    ] = 600.0,
    min_passes: Annotated[
        int, typer.Option(min=1, help="Passes over the tracks, per process and subject; 4 show a drift.")
    ] = 4,
    warm_up: Annotated[int, typer.Option(min=1, help="Passes over the tracks before, not counted.")] = 1,
    baselines: Annotated[
        bool, typer.Option(help="Also measure the full ensemble and every single stage in single-stream.")
    ] = True,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Lanes of offline. [default: as classify]")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads per track. [default: as classify]")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Most windows that an encoder takes at once.")] = 16,
    batches: Annotated[str, typer.Option(help="Batches of the scenario sweep.")] = "1,2,4,8,16",
    jobs_swept: Annotated[str, typer.Option("--sweep-jobs", help="Lanes of the scenario sweep.")] = "1,2,4",
    energy_seconds: Annotated[float, typer.Option(min=1, help="How long energy runs back to back.")] = 60.0,
    sustained_seconds: Annotated[float, typer.Option(min=1, help="How long sustained runs back to back.")] = 600.0,
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
    verdict), build (TensorRT engines from nothing), agreement (each precision against FP32), ceilings (what the device
    can do at most), sweep (throughput by batch and by lanes), energy, sustained (minutes).

    Every pass is in FILE.json.partial at once. Ctrl-C ends the run and keeps what was measured.

    Exit codes: 0 measured, 2 wrong usage or no audio found, 4 the bundle is invalid, 5 the device cannot be used, 130
    interrupted.
    """
    from edge_reclass.cascade import Options
    from edge_reclass.run import refuse_inputs
    from edge_reclass_bench.harness import Request
    from edge_reclass_bench.harness import run as measure
    from edge_reclass_bench.labels import from_csv, from_folders
    from edge_reclass_bench.tracks import find

    needs_extra()
    scenarios = _scenarios(scenario)
    finite(precision=precision, max_seconds=max_seconds, energy_seconds=energy_seconds)
    finite(sustained_seconds=sustained_seconds)
    if labels is not None and labels_from_folders:
        raise UsageError("--labels and --labels-from-folders: expected one of them, got both")
    if synthetic is not None and bundle is not None:
        raise UsageError("--synthetic and --bundle: expected one of them, got both")
    if output.is_dir():
        raise UsageError(f"--output {output}: expected a file, got a folder; name a file in it")
    tracks = find(paths, limit)
    refuse_inputs(output, None, [*tracks.paths, *filter(None, [labels])])
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
            options=Options(threads=threads, batch=batch, allow_random=allow_random, engines=engines),
            processes=processes,
            precision=precision,
            max_seconds=max_seconds,
            min_passes=min_passes,
            warm_up=warm_up,
            baselines=baselines,
            jobs=jobs,
            batches=whole(batches, "--batches"),
            jobs_swept=whole(jobs_swept, "--sweep-jobs"),
            energy_seconds=energy_seconds,
            sustained_seconds=sustained_seconds,
            build_sm=sm,
            seed=seed,
            output=output,
        ),
        reporter(),
    )
    finish(record, output)


def _scenarios(text: str | None) -> list[str]:
    from edge_reclass_bench.scenarios import DEFAULT, SCENARIOS

    if text is None:
        return list(DEFAULT)
    wanted = list(SCENARIOS) if text == "all" else [word.strip() for word in text.split(",")]
    unknown = [word for word in wanted if word not in SCENARIOS]
    if unknown:
        raise UsageError(f"--scenario: expected some of {', '.join(SCENARIOS)}, or all, got {', '.join(unknown)}")
    return [name for name in SCENARIOS if name in wanted]


def whole(text: str, option: str) -> list[int]:
    """The numbers of a comma-separated list. Raises ``UsageError``."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() and int(word) for word in words):
        raise UsageError(f"{option}: expected whole numbers above 0, comma-separated, got {text!r}")
    return [int(word) for word in words]


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
        float, typer.Option(min=0, help="Tolerate headlines that are slower by this share, with their whole interval.")
    ] = 0.0,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare although what was measured differs, and say in what.")
    ] = False,
    all_measures: Annotated[bool, typer.Option("--all", help="Show parts that do not differ, too.")] = False,
) -> None:
    """Say of every measure whether B is slower, faster, or no different, with a 99 % interval of the ratio.

    Compared are records of the same bundle, policy, tracks, device, machine and threads, of at least five processes.

    Exit codes: 0 no regression, 1 a regression, 2 not comparable or wrong usage, 3 these records cannot tell.
    """
    from edge_reclass_bench.compare import also_differs, mismatches, worst
    from edge_reclass_bench.compare import compare as compare_records
    from edge_reclass_bench.record import load
    from edge_reclass_bench.report.tables import comparison

    finite(threshold=threshold)
    needs_extra()
    first, second = load(a), load(b)
    wrong = mismatches(first, second)
    if wrong and not anyway:
        listed = "".join(f"\n  {line}" for line in wrong)
        raise UsageError(f"{a} and {b} are not comparable:{listed}\n--anyway compares them all the same")
    for line in wrong:
        _say(f"warning: compared although different: {line}")
    comparisons = list(compare_records(first, second))
    if not comparisons:
        raise UsageError(f"{a} and {b} have no measure in common")
    for line in also_differs(first, second):
        _say(f"what else differs: {line}")
    show([comparison(comparisons, all_measures, threshold)])
    result = worst(comparisons, threshold)
    if result != "fine":
        raise typer.Exit(REGRESSION if result == "regression" else CANNOT_TELL)


@app.command()
def report(
    files: Annotated[list[Path], typer.Argument(help="Records of bench run or bench peers.", metavar="FILE...")],
    html: Annotated[
        Path | None, typer.Option(help="Write a page that opens offline, with pictures.", metavar="OUT.html")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
) -> None:
    """Show records: the answer, every number, what was measured and on what; several files side by side.

    The page holds everything, the raw records too: no script, no net.

    Exit codes: 0 good, 2 a file is no record, or the page cannot be written.
    """
    from edge_reclass_bench.doubts import doubts_of
    from edge_reclass_bench.report import tables
    from edge_reclass_bench.report.sources import read
    from edge_reclass_learn.pages.table import escaped
    from edge_reclass_learn.pages.table import markdown as as_markdown

    needs_extra(*([] if html is None else ["matplotlib"]))
    sources = read(files)
    every = [tables.answer(sources), *tables.numbers(sources), tables.absent(sources), tables.facts(sources)]
    if html is not None:
        from edge_reclass.host import write_whole
        from edge_reclass.run import refuse_inputs
        from edge_reclass_bench.report.page import page

        refuse_inputs(html, None, files)
        write_whole(html, page(sources).encode(errors="backslashreplace"))
        _say(f"wrote {html}")
    if markdown:
        sys.stdout.write(
            "\n\n".join(f"## {escaped(table.title)}\n\n{as_markdown(table)}" for table in every if table.rows) + "\n"
        )
    elif html is None:
        show(every)
    for line in doubts_of([(source.tag, source.books) for source in sources]):
        _say(f"warning: {line}")


app.command(name="peers")(peers)
app.command(name="order")(order)
