"""``edge-reclass classify``: find the tracks, open the bundle, write a verdict for each, and stop in good order."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass import notify
from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass.formatters import FORMATS, Formatter, formatter
from edge_reclass.output import Output, ReaderLeft, descriptor_of, open_output, printable
from edge_reclass.output_file import refuse_inputs
from edge_reclass.progress import ProgressBar
from edge_reclass.stopping import abandon_running_tracks, say
from edge_reclass.summary import Summary, counted, skipped

if TYPE_CHECKING:
    from concurrent.futures import Future

    from edge_reclass.library import Found
    from edge_reclass.parallel import CascadePool
    from edge_reclass.verdict import Verdict

__all__ = ["classify"]

SOME_FAILED = 3
STOP_SECONDS = 10
"""How long a run that is stopped waits for the tracks that are being classified."""

_AHEAD = 4
"""Tracks waiting per lane: enough that a slow track at the front does not leave the other lanes idle."""


def classify(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Audio files, and folders that are searched for them.", metavar="PATH..."),
    ] = None,
    files_from: Annotated[
        Path | None,
        typer.Option("--files-from", metavar="FILE", help="Take paths from this file too, one a line; - is stdin."),
    ] = None,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="The paths of --files-from end with a NUL byte (find -print0).")
    ] = False,
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Bundle directory. [default: the starter bundle]")
    ] = None,
    device: Annotated[
        str,
        typer.Option(metavar="NAME", help="auto | cpu | cuda | tensorrt; auto takes the best that can be used."),
    ] = "auto",
    policy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Policy of the bundle, or a preset. [default: the bundle's]")
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Answer unsure below this confidence, 0 to 1; 0: every audible track gets a genre. "
            "[default: the bundle's]",
        ),
    ] = None,
    format: Annotated[str, typer.Option("--format", "-f", metavar="NAME", help=f"{' | '.join(FORMATS)}.")] = "table",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to this file; - is standard output, the default."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Show this many genres per track.")] = 1,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", min=1, metavar="N", help="Tracks to work on at a time. [default: 1; on a GPU, 2 per CPU]"
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads per track. [default: the CPUs shared by the jobs]")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Most windows that an encoder takes at once; on a GPU, of several tracks. [default: 16]",
        ),
    ] = None,
    engines: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the TensorRT engines. [default: $EDGE_RECLASS_ENGINES, else a state folder]",
        ),
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
    invalid or an engine is missing, 5 the device cannot be used or was lost, 129 hung up, 130 interrupted, 143
    terminated.
    """
    from edge_reclass.library import find_tracks, listed_paths
    from edge_reclass.parallel import CascadePool
    from edge_reclass.plan import DEFAULT_BATCH

    if format not in FORMATS:
        raise UsageError(f"--format: expected one of {', '.join(FORMATS)}, got {format!r}")
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise UsageError(f"--min-confidence: expected a number from 0 to 1, got {min_confidence:g}")
    given = paths or []
    if "" in given:
        raise UsageError("expected files or folders, got an empty path (an unset variable?)")
    if files_from is None and (null or not given):
        raise UsageError("--null goes with --files-from" if null else "expected a PATH, or --files-from FILE")
    found = find_tracks(given if files_from is None else [*given, *listed_paths(files_from, null)])
    for folder, reason in found.problems:
        say(f"warning: {printable(str(folder))}: cannot be searched: {reason}")
    if not found.tracks:
        raise UsageError(_nothing(given, files_from, found))
    _refuse_inputs(output, files_from, bundle, found)
    with open_output(output) as write:
        pool = CascadePool.open(
            None if jobs is None else min(jobs, len(found.tracks)),
            bundle,
            device,
            policy,
            threads=threads,
            batch=DEFAULT_BATCH if batch is None else batch,
            allow_random=allow_random,
            engines=engines,
            min_confidence=min_confidence,
        )
        say(_device(pool, device))
        view = formatter(
            format,
            genres=pool.plan.genres,
            stages=[stage.name for stage in pool.plan.stages],
            top=top,
            explain=explain,
            utf8=write.utf8,
        )
        summary = _Run(pool, view, write, len(found.tracks)).all(found.tracks)
    for line in summary.lines(found):
        say(line)
    if summary.failed or found.problems:
        raise typer.Exit(SOME_FAILED)


def _nothing(given: list[str], files_from: Path | None, found: Found) -> str:
    places = [printable(path) for path in given]
    if files_from is not None:
        places.append(f"the list {printable(str(files_from))}")
    return f"no audio found in {', '.join(places)}{skipped(found)}"


def _refuse_inputs(output: Path | None, files_from: Path | None, bundle: Path | None, found: Found) -> None:
    """Before anything is read or opened: the output must not overwrite a track, the list of tracks, or the bundle."""
    from edge_reclass.bundle import starter_path

    if str(output) == "-":
        output = None
    descriptor = 1 if output is None else descriptor_of(output)
    lists = [] if files_from is None or str(files_from) == "-" else [files_from]
    refuse_inputs(output, descriptor, [*found.tracks, *lists])
    if output is not None and descriptor is None:
        root = (starter_path() if bundle is None else bundle).resolve()
        if root.is_dir() and output.absolute().parent.resolve().is_relative_to(root):
            raise UsageError(f"--output {output}: it is inside the bundle {root}; name a file elsewhere")


def _device(pool: CascadePool, asked: str) -> str:
    from edge_reclass.device import has_nvidia_gpu

    # Where there is no GPU, why none can be used is nothing to be told with every run; doctor tells it.
    notes = () if asked == "auto" and pool.device == "cpu" and not has_nvidia_gpu() else pool.notes
    return f"device: {'; '.join((pool.device, *notes))}"


class _Run:
    """One run: verdicts in the order of the tracks, written as they come, and kept when it is stopped."""

    def __init__(self, pool: CascadePool, view: Formatter, output: Output, total: int) -> None:
        self._pool, self._view, self._output, self._total = pool, view, output, total
        self._summary = Summary()
        self._waiting: deque[Future[Verdict]] = deque()
        self._head = view.begin()  # written with the first verdict, so that a run without one replaces nothing

    def all(self, tracks: list[Path]) -> Summary:
        """Classify ``tracks``; what was classified is written even if a signal or an error ends the run early.

        Raises:
            KeyboardInterrupt, SystemExit: a signal came.
            DeviceError: the device is lost.
            EdgeReclassError, ReaderLeft: see :class:`Output`.
        """
        try:
            with ProgressBar(self._total, self._output) as bar:
                notify.ready(f"classifying {self._total} tracks")
                for track in tracks:
                    self._waiting.append(self._pool.submit(track))
                    if len(self._waiting) > _AHEAD * len(self._pool.cascades):
                        self._next(bar)
                while self._waiting:
                    self._next(bar)
            self._output(self._head + self._view.end())
        except ReaderLeft:
            self._close(finished=False)
            raise
        except BaseException as error:
            try:
                self._stop("interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "stopped")
            except (KeyboardInterrupt, SystemExit):
                # Where this signal came, a lock of the pool may be held for good: the pool is not touched again.
                abandon_running_tracks()
                raise
            self._close(finished=False)
            raise
        self._close(finished=True)
        return self._summary

    def _next(self, bar: ProgressBar) -> None:
        verdict = self._waiting[0].result()
        self._waiting.popleft()
        self._write(verdict, bar)
        bar.advance()
        notify.alive(f"{self._summary.total} of {self._total} tracks, {self._summary.failed} failed")

    def _write(self, verdict: Verdict, bar: ProgressBar | None = None) -> None:
        head, self._head = self._head, ""
        (self._output if bar is None else bar.write)(head + self._view.verdict(verdict))
        self._summary.add(verdict)

    def _stop(self, how: str) -> None:
        """Write what is finished, then give the tracks that are being classified some time; say what is kept."""
        notify.stopping(how)
        try:
            self._write_finished()
            running = sum(not future.cancel() for future in self._waiting)
            if running:
                say(
                    f"{how}: waiting at most {STOP_SECONDS} s for {counted(running, 'running track')}; again: leave now"
                )
                self._pool.close(timeout=STOP_SECONDS)
                self._write_finished()
            if not self._head:
                self._output(self._view.end())
        except (EdgeReclassError, ReaderLeft):
            pass  # the terminal or the disk is gone too; what counts is why we stop
        finally:
            done = f"{how} after {self._summary.total} of {counted(self._total, 'track')}"
            kept = self._output.partial if not self._head else None
            say(done if kept is None else f"{done}; their verdicts are in {printable(str(kept))}")

    def _write_finished(self) -> None:
        for future in [future for future in self._waiting if future.done()]:
            self._waiting.remove(future)
            if not future.cancelled() and future.exception() is None:
                self._write(future.result())

    def _close(self, finished: bool) -> None:
        """Close the pool. After a stop the running tracks had their time."""
        if not self._pool.close(timeout=None if finished else 0):
            abandon_running_tracks()
        if finished:
            notify.stopping("done")
