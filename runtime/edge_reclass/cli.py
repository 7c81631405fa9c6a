"""The command line: ``edge-reclass``. Mounts the commands that other packages offer as entry points."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from edge_reclass import __version__, notify
from edge_reclass.doctor import doctor
from edge_reclass.errors import DeviceError, EdgeReclassError, UsageError
from edge_reclass.output import FORMATS, Formatter, ReaderLeft, formatter, open_output, printable

if TYPE_CHECKING:
    from edge_reclass.library import Found
    from edge_reclass.parallel import CascadePool
    from edge_reclass.verdict import Verdict

__all__ = ["app", "main"]

ENTRY_POINTS = "edge_reclass.commands"
SOME_FAILED = 3
INTERRUPTED = 130
TERMINATED = 143

app = typer.Typer(
    name="edge-reclass",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Classify the genre of music files, offline, with a staged cascade that leaves early when it is sure.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"edge-reclass {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Options that stand before the command."""


@app.command()
def classify(
    paths: Annotated[
        list[str],
        typer.Argument(help="Audio files, and folders that are searched for them.", metavar="PATH..."),
    ],
    bundle: Annotated[Path | None, typer.Option(help="Bundle directory. [default: the starter bundle]")] = None,
    device: Annotated[
        str, typer.Option(help="auto | cpu | cuda | tensorrt; auto takes the best that can be used, and says why.")
    ] = "auto",
    policy: Annotated[
        str | None, typer.Option(help="Policy of the bundle, or a preset. [default: the bundle's]")
    ] = None,
    format: Annotated[str, typer.Option("--format", "-f", help=f"{' | '.join(FORMATS)}.")] = "table",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file, not to standard output.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Show this many genres per track.")] = 1,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Tracks to work on at a time. [default: 1; on a GPU, 2 per CPU]"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads per track. [default: the CPUs shared by the jobs]")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Most windows that an encoder takes at once; on a GPU, of several tracks. [default: 16]"
        ),
    ] = None,
    engines: Annotated[
        Path | None,
        typer.Option(help="Folder of the TensorRT engines. [default: EDGE_RECLASS_ENGINES, else the bundle's engines]"),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what each stage answered and why it stopped.")
    ] = False,
    allow_random: Annotated[
        bool, typer.Option("--allow-random", help="Take stages with untrained weights too, for measurements.")
    ] = False,
) -> None:
    """Classify audio files and print one verdict for each.

    Folders are searched recursively; hidden and non-audio files are skipped and counted. The verdicts go to standard
    output, everything else to standard error.

    Exit codes: 0 all tracks have an answer, 2 wrong usage or no audio found, 3 some tracks failed, 4 the bundle is
    invalid or an engine is missing, 5 the device cannot be used or was lost, 130 interrupted, 143 terminated.
    """
    from edge_reclass.library import find_tracks
    from edge_reclass.parallel import CascadePool
    from edge_reclass.plan import DEFAULT_BATCH

    if format not in FORMATS:
        raise UsageError(f"--format: expected one of {', '.join(FORMATS)}, got {format!r}")
    if "" in paths:
        raise UsageError("expected files or folders, got an empty path (an unset variable?)")
    found = find_tracks(paths)
    for folder, reason in found.problems:
        _say(f"warning: {printable(str(folder))}: cannot be searched: {reason}")
    if not found.tracks:
        raise UsageError(f"no audio found in {', '.join(map(printable, paths))}{_skipped(found)}")
    with (
        open_output(output) as write,
        CascadePool.open(
            None if jobs is None else min(jobs, len(found.tracks)),
            bundle,
            device,
            policy,
            threads=threads,
            batch=DEFAULT_BATCH if batch is None else batch,
            allow_random=allow_random,
            engines=engines,
        ) as pool,
    ):
        plan = pool.plan
        _say(f"device: {'; '.join((pool.device, *pool.notes))}")
        view = formatter(
            format,
            genres=plan.genres,
            stages=[stage.name for stage in plan.stages],
            top=top,
            explain=explain,
        )
        counts = _run(pool, found, view, write, output is None)
    _summary(found, counts)
    if counts.failed or found.problems:
        raise typer.Exit(SOME_FAILED)


class _Counts:
    """What a run gave, for the summary and the exit code."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.decided_by: Counter[str] = Counter()
        self.failed = 0
        self.began = time.perf_counter()

    def add(self, verdict: Verdict) -> None:
        self.statuses[verdict.status] += 1
        self.failed += verdict.failed
        if verdict.decided_by is not None:
            self.decided_by[verdict.decided_by] += 1


def _run(
    pool: CascadePool, found: Found, view: Formatter, to_output: Callable[[str], None], on_stdout: bool
) -> _Counts:
    counts = _Counts()
    with _progress(len(found.tracks), to_output, on_stdout) as (write, advance):
        write(view.begin())
        notify.ready(f"classifying {len(found.tracks)} tracks")
        try:
            for verdict in pool.classify_many(found.tracks):
                counts.add(verdict)
                write(view.verdict(verdict))
                advance()
                notify.alive(f"{counts.statuses.total()} of {len(found.tracks)} tracks, {counts.failed} failed")
        except (KeyboardInterrupt, SystemExit, DeviceError) as error:
            how = "stopped" if isinstance(error, DeviceError) else "interrupted"
            notify.stopping(how)
            _say(f"{how} after {counts.statuses.total()} of {len(found.tracks)} tracks")
            write(view.end())
            raise
        write(view.end())
        notify.stopping("done")
    return counts


@contextmanager
def _progress(
    total: int, write: Callable[[str], None], on_stdout: bool
) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """A progress bar, if standard error is a terminal; gives how to write verdicts, and how to count one.

    Where the verdicts go to the terminal too, both do so through standard output, the verdicts above the bar.
    """
    if not sys.stderr.isatty() or total < 2:
        yield write, lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("classify"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    same_terminal = on_stdout and sys.stdout.isatty()
    console = Console(stderr=not same_terminal)

    def above_the_bar(text: str) -> None:
        console.print(text, end="", markup=False, highlight=False, emoji=False, soft_wrap=True)

    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("classify", total=total)
        yield above_the_bar if same_terminal else write, lambda: bar.advance(task)


def _summary(found: Found, counts: _Counts) -> None:
    seconds = time.perf_counter() - counts.began
    total = counts.statuses.total()
    parts = [f"{n} {status}" for status, n in sorted(counts.statuses.items(), key=lambda item: -item[1])]
    _say(f"{total} tracks in {seconds:.1f} s: {', '.join(parts)}{_skipped(found)}")
    answered = counts.decided_by.total()
    if answered:
        exits = ", ".join(f"{stage} {n} ({n / answered:.0%})" for stage, n in counts.decided_by.most_common())
        _say(f"decided by: {exits}")


def _skipped(found: Found) -> str:
    parts = []
    if found.skipped_hidden:
        parts.append(f"{found.skipped_hidden} hidden")
    if found.skipped_other:
        parts.append(f"{found.skipped_other} non-audio")
    return f"; skipped {' and '.join(parts)} files" if parts else ""


@app.command()
def inspect(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle directory. [default: the starter bundle]")] = None,
    format: Annotated[str, typer.Option("--format", "-f", help="text | json.")] = "text",
) -> None:
    """Verify every file of a bundle and print what is in it."""
    from edge_reclass.bundle import load, starter_path
    from edge_reclass.inspection import describe, describe_json
    from edge_reclass.plan import choose_policy

    if format not in {"text", "json"}:
        raise UsageError(f"--format: expected text or json, got {format!r}")
    loaded = load(starter_path() if bundle is None else bundle)
    loaded.verify()
    choose_policy(loaded)
    with open_output(None) as write:
        write((describe_json(loaded) if format == "json" else describe(loaded)) + "\n")


app.command()(doctor)


def _say(text: str) -> None:
    with suppress(OSError):  # a closed standard error is no reason to lose the verdicts
        print(text, file=sys.stderr)


def _mount(arguments: Sequence[str]) -> None:
    """Add the commands of other packages, unless one of our own is called: importing them costs time.

    An entry point is a Typer app with commands of its own, or a function, which is one command.
    """
    own = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    if arguments and arguments[0] in own:
        return
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        offered = entry.load()
        if isinstance(offered, typer.Typer):
            app.add_typer(offered, name=entry.name)
        else:
            app.command(name=entry.name)(offered)


def main() -> None:
    """Run the command line; every error that is raised on purpose ends as one message and its exit code."""
    _repair_streams()
    # A service that is stopped ends as orderly as one that is interrupted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        _mount(sys.argv[1:])
        app()
    except EdgeReclassError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_code)
    except SystemExit as error:
        if error.code in {INTERRUPTED, TERMINATED}:
            _leave(error.code)
        raise
    except KeyboardInterrupt:
        _leave(INTERRUPTED)
    except ReaderLeft:
        # What Python would flush at exit goes where nobody misses it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _leave(code: int) -> NoReturn:
    """End, also where a second Ctrl-C came before the lanes had ended.

    Python itself would then wait for them all the same, or take their threads away inside ONNX Runtime, which aborts.
    """
    if any(thread.name.startswith("edge-reclass") for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _repair_streams() -> None:
    """A service may start us with standard streams closed; then there is nowhere to write, which is no error."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - as long as the process


if __name__ == "__main__":
    main()
