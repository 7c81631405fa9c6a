"""``edge-reclass classify``: find the tracks, open the bundle, write a verdict for each, and stop in good order."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass.cli.progress import KINDS, Progress, check_kind
from edge_reclass.cli.stopping import say
from edge_reclass.cli.summary import counted, skipped
from edge_reclass.errors import StateBusyError, UsageError
from edge_reclass.run import notify
from edge_reclass.run.formatters import FORMATS
from edge_reclass.run.output import Output, descriptor_of, open_output
from edge_reclass.run.output_file import refuse_inputs
from edge_reclass.run.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from edge_reclass.bundle import Bundle
    from edge_reclass.library.basis import Again
    from edge_reclass.run.lanes import CascadePool
    from edge_reclass.run.sources import Track, TrackSearch
    from edge_reclass.verdict import Verdict

SOME_FAILED = 3
FEW = 8
"""So many tracks at least are worth the second or two until worker processes have begun."""

STOP_SECONDS = 10
"""How long a run that is stopped waits for the tracks that are being classified."""


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
            "--jobs",
            "-j",
            min=1,
            metavar="N",
            help="Tracks to work on at a time without worker processes. [default: 1; on a GPU, 2 per CPU]",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            "-w",
            min=0,
            metavar="N",
            help="Worker processes that decode, so that a file which crashes or hangs a decoder costs no other; "
            f"0: none. [default: from {FEW} tracks on, one per CPU as memory allows]",
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
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep verdicts in this file, made where it is not there, and pass over what has not changed.",
        ),
    ] = None,
    redo: Annotated[bool, typer.Option("--redo", help="With --state: classify what has not changed, too.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --state: try again what failed, in whatever way.")
    ] = False,
    keep_embeddings: Annotated[
        bool,
        typer.Option(
            "--keep-embeddings", help="With --state: keep what the encoders make of a track, 2 bytes a number."
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Take part I of N of the tracks, for several machines; see library merge."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what each stage answered and why it stopped.")
    ] = False,
    progress: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help=f"{' | '.join(KINDS)}, on standard error: a bar (on a terminal only), or a line of JSON each second.",
        ),
    ] = "bar",
    allow_random: Annotated[
        bool, typer.Option("--allow-random", help="Take stages with untrained weights too, for measurements.")
    ] = False,
    remote: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Have a service (edge-reclass serve) classify: path of its socket, or http://host:port.",
        ),
    ] = None,
    send_files: Annotated[
        bool,
        typer.Option(
            "--send-files", help="With --remote: send the files. [default: send paths, and the service reads the files]"
        ),
    ] = False,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --remote: file with the service's token.")
    ] = None,
) -> None:
    """Classify audio files and print one verdict for each.

    Folders are searched recursively; hidden and non-audio files are skipped and counted. The verdicts go to standard
    output, everything else to standard error. With --state, these are the verdicts made now: what is known stays in
    the file, for library list, show and export.

    Exit codes: 0 all tracks have an answer, 2 wrong usage or no audio found, 3 some tracks failed, 4 the bundle is
    invalid or an engine is missing, 5 the device or the service cannot be used or was lost, 129 hung up, 130
    interrupted, 143 terminated.
    """
    from edge_reclass.cascade.plan import DEFAULT_BATCH
    from edge_reclass.cli.library.updating import LibraryRun
    from edge_reclass.cli.remote import RemotePool, connect
    from edge_reclass.library.basis import Again
    from edge_reclass.library.scanning import Shard
    from edge_reclass.run.lanes import CascadePool, LaneRunner
    from edge_reclass.run.runner import run
    from edge_reclass.run.sinks import TextSink
    from edge_reclass.run.sources import TrackSearch, listed_paths
    from edge_reclass.run.workers.pool import WorkerPool, default_workers

    if state is None and (redo or retry_failed or keep_embeddings):
        raise UsageError("--redo, --retry-failed and --keep-embeddings go with --state")
    if state is not None and output is not None:
        raise UsageError(
            "--output does not go with --state, where a run classifies only what has changed; all tracks:"
            f" edge-reclass library export {printable(str(state))} -o {printable(str(output))}"
        )
    if format not in FORMATS:
        raise UsageError(f"--format: expected one of {', '.join(FORMATS)}, got {format!r}")
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise UsageError(f"--min-confidence: expected a number from 0 to 1, got {min_confidence:g}")
    if workers and jobs is not None:
        raise UsageError("--jobs is without worker processes, and --workers with; expected one of them")
    if remote is None and (send_files or token_file is not None):
        raise UsageError("--send-files and --token-file go with --remote")
    if remote is not None:
        _leave_to_the_service(
            "with --remote; see edge-reclass serve --help",
            bundle=bundle,
            device=None if device == "auto" else device,
            policy=policy,
            min_confidence=min_confidence,
            workers=workers,
            threads=threads,
            batch=batch,
            engines=engines,
            state=state,
            allow_random=allow_random or None,
        )
    check_kind(progress)
    given = paths or []
    if "" in given:
        raise UsageError("expected files or folders, got an empty path (an unset variable?)")
    if files_from is None and (null or not given):
        raise UsageError("--null goes with --files-from" if null else "expected a PATH, or --files-from FILE")
    part = None if shard is None else Shard.parse(shard)
    wanted = given if files_from is None else [*given, *listed_paths(files_from, null)]

    with ExitStack() as resources:
        library = None
        if state is not None:
            try:
                library = LibraryRun.open(
                    *(state, bundle, policy, min_confidence),
                    again=Again(redo, retry_failed, keep_embeddings),
                    shard=part,
                )
            except StateBusyError as busy:
                if busy.socket is None:
                    raise
                _leave_to_the_service(
                    f"while the service at {busy.socket} holds {state}; leave it out, or stop the service",
                    bundle=bundle,
                    device=None if device == "auto" else device,
                    policy=policy,
                    min_confidence=min_confidence,
                    jobs=jobs,
                    workers=workers,
                    threads=threads,
                    batch=batch,
                    engines=engines,
                    keep_embeddings=keep_embeddings or None,
                    shard=shard,
                    allow_random=allow_random or None,
                )
                again = Again(redo, retry_failed)
                _by_service(busy.socket, wanted, again, state, format, top, explain, progress)
                return
            resources.enter_context(library)
            search = library.look(wanted)
            tracks = library.work.all_tracks
        else:
            search = TrackSearch(wanted)
            tracks = list(search)
        for folder, reason in search.problems:
            say(f"warning: {printable(str(folder))}: cannot be searched: {reason}")
        if not tracks and (library is None or not library.work.found):
            raise UsageError(_nothing(given, files_from, search))
        if library is None and part is not None:  # which may be empty
            tracks = [track for track in tracks if part.holds(os.fsencode(track.path))]
        _refuse_inputs(output, files_from, bundle, tracks)
        if library is not None and not tracks:
            notify.ready("nothing to do")  # else systemd takes a run without work for one that failed
            library.nothing_to_do(format, top)
            failed = 0
        else:
            with open_output(output) as out:
                pool: CascadePool | RemotePool
                if remote is not None:
                    pool = RemotePool(connect(remote, token_file), jobs, send_files)
                    say(pool.described)
                    genres, stages = pool.version.bundle.genres, list(pool.version.bundle.stages)
                else:
                    opened: Callable[..., CascadePool] = CascadePool.open
                    if library is not None and library.work.suspects:
                        # One of them may have killed the run before: it must not be able to kill this one.
                        workers = workers or jobs or default_workers()
                    elif workers is None and jobs is None and len(tracks) >= FEW:
                        workers = default_workers()
                    if workers:
                        opened, jobs = WorkerPool.open, workers
                    pool = opened(
                        None if jobs is None else max(1, min(jobs, len(tracks))),
                        bundle if library is None else library.bundle,
                        device,
                        policy,
                        threads=threads,
                        batch=DEFAULT_BATCH if batch is None else batch,
                        allow_random=allow_random,
                        engines=engines,
                        min_confidence=min_confidence,
                        keep_embeddings=keep_embeddings,
                    )
                    say(_device(pool, device))
                    if explain:
                        for line in _certified(pool, bundle if library is None else library.bundle):
                            say(line)
                    genres, stages = pool.plan.genres, [stage.name for stage in pool.plan.stages]
                sink = TextSink(format, out, genres=genres, stages=stages, top=top, explain=explain)
                with _Watch(Progress(progress, len(tracks), out), out) as watch:
                    if library is None:
                        run(tracks, LaneRunner(pool), sink, watch, patience=STOP_SECONDS)
                    else:
                        alone = pool.classify_alone if isinstance(pool, WorkerPool) else None
                        watch.progress.unchanged = library.work.unchanged
                        library.run(LaneRunner(pool), sink, watch, patience=STOP_SECONDS, alone=alone)
            for line in watch.progress.summary.lines(search):
                say(line)
            failed = watch.progress.summary.failed
        if library is not None and (left := library.left_alone()):
            say(left)
    if failed or search.problems:
        raise typer.Exit(SOME_FAILED)


def _by_service(
    socket: str, wanted: list[str], again: Again, state: Path, format: str, top: int, explain: bool, progress: str
) -> None:
    """What ``classify --state`` does where a service holds the state: the service scans."""
    from edge_reclass.cli.library.served import ServedScan
    from edge_reclass.client import Client
    from edge_reclass.run.sinks import TextSink

    client = Client(socket)
    bundle = client.version().bundle
    with open_output(None) as out:
        sink = TextSink(format, out, genres=bundle.genres, stages=bundle.stages, top=top, explain=explain)
        scan = ServedScan(client, wanted, redo=again.everything, retry_failed=again.failed)
        say(printable(f"{state}: the service at {socket} holds it, and scans"))
        with _Watch(Progress(progress, None, out), out) as watch:
            scan.follow(sink, watch.progress, watch.wrote)
            if watch.progress.summary.total or format != "table":  # a program expects an empty list, people nothing
                sink.finish()
    search, summary = scan.search, watch.progress.summary
    for folder, reason in search.problems:
        say(f"warning: {printable(str(folder))}: cannot be searched: {reason}")
    if summary.total:
        for line in summary.lines(search):
            say(line)
    if left := scan.left_alone(state):
        say(left)
    scan.check()
    if not scan.found:
        raise UsageError(_nothing(wanted, None, search))
    if summary.failed or search.problems:
        raise typer.Exit(SOME_FAILED)


def _leave_to_the_service(when: str, **asked: object) -> None:
    """Refuse what a service was started with and a request cannot change."""
    names = [f"--{name.replace('_', '-')}" for name, value in asked.items() if value is not None]
    if names:
        raise UsageError(f"{' and '.join(names)}: the service decides that, {when}")


def _nothing(given: list[str], files_from: Path | None, search: TrackSearch) -> str:
    places = [printable(path) for path in given]
    if files_from is not None:
        places.append(f"the list {printable(str(files_from))}")
    return f"no audio found in {', '.join(places)}{skipped(search)}"


def _refuse_inputs(output: Path | None, files_from: Path | None, bundle: Path | None, tracks: list[Track]) -> None:
    """Before anything is read or opened: the output must not overwrite a track, the list of tracks, or the bundle."""
    from edge_reclass.bundle.loading import starter_path

    if str(output) == "-":
        output = None
    descriptor = 1 if output is None else descriptor_of(output)
    lists = [] if files_from is None or str(files_from) == "-" else [files_from]
    refuse_inputs(output, descriptor, [*(track.path for track in tracks), *lists])
    if output is not None and descriptor is None:
        root = (starter_path() if bundle is None else bundle).resolve()
        if root.is_dir() and output.absolute().parent.resolve().is_relative_to(root):
            raise UsageError(f"--output {output}: it is inside the bundle {root}; name a file elsewhere")


def _device(pool: CascadePool, asked: str) -> str:
    from edge_reclass.host.gpu import has_nvidia_gpu

    # Where there is no GPU, the reason is not repeated with every run; doctor gives it.
    notes = () if asked == "auto" and pool.device == "cpu" and not has_nvidia_gpu() else pool.notes
    return f"device: {'; '.join((pool.device, *notes))}"


def _certified(pool: CascadePool, bundle: Path | Bundle | None) -> Iterator[str]:
    """What is certified of the verdicts that this pool gives."""
    from edge_reclass.bundle.certificate import told
    from edge_reclass.cascade.opening import load_bundle

    plan = pool.plan
    manifest = load_bundle(bundle).manifest
    if plan.policy.name in manifest.policies:
        for line in told(manifest, plan.policy.name, plan.ran(pool.device), plan.min_confidence):
            yield printable(f"{plan.policy.name}: {line}")


class _Watch:
    """Tells people and systemd how the run goes; a context manager around it."""

    def __init__(self, progress: Progress, output: Output) -> None:
        self.progress = progress
        output.before_write = progress.clear

    def wrote(self, verdict: Verdict) -> None:
        """See :class:`edge_reclass.run.runner.Observer`."""
        self.progress.add(verdict)
        notify.alive(f"{self._done}, {self.progress.summary.failed} failed")

    def stopping(self, error: BaseException, running: int) -> None:
        """See :class:`edge_reclass.run.runner.Observer`."""
        how, tracks = _how(error), counted(running, "running track")
        self.progress.hide()
        notify.stopping(how)
        say(f"{how}: waiting at most {STOP_SECONDS} s for {tracks}; again: leave now")

    def stopped(self, error: BaseException, kept: str | None) -> None:
        """See :class:`edge_reclass.run.runner.Observer`."""
        self.progress.close()
        done = f"{_how(error)} after {self._done}"
        say(done if kept is None else f"{done}; their verdicts are in {printable(kept)}")

    @property
    def _done(self) -> str:
        done, total = self.progress.summary.total, self.progress.total
        return counted(done, "track") if total is None else f"{done} of {counted(total, 'track')}"

    def __enter__(self) -> _Watch:
        total = self.progress.total
        notify.ready("classifying" if total is None else f"classifying {counted(total, 'track')}")
        self.progress.draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.close()
        notify.stopping("done" if value is None else None)


def _how(error: BaseException) -> str:
    return "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "stopped"
