"""``edge-reclass serve``: check what was asked for, bind the sockets, and serve."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    import socket

_SPOOL = ".spool"


def serve(
    socket_path: Annotated[
        Path | None,
        typer.Option(
            "--socket",
            metavar="PATH",
            help="Unix socket to listen on, with mode 0660. [default: edge-reclass.sock in $RUNTIME_DIRECTORY, else in"
            " $XDG_RUNTIME_DIR]",
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Listen on TCP, too; beyond loopback only with --token-file."),
    ] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Folder of music; requests may name files below it. May be given repeatedly."),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The state file; it is made where it is not there.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Bundle directory. [default: the starter bundle]")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Policy of the bundle, or a preset. [default: the bundle's]")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto | cpu | cuda | tensorrt.")] = "auto",
    min_confidence: Annotated[
        float | None, typer.Option(metavar="X", help="Answer unsure below this confidence. [default: the bundle's]")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            "-w",
            min=1,
            metavar="N",
            help="Worker processes that decode, one track at a time each. [default: one per CPU as memory allows]",
        ),
    ] = None,
    queue: Annotated[
        int,
        typer.Option(min=1, max=1024, metavar="N", help="Requests for a verdict that are worked on or wait at a time."),
    ] = 32,
    max_upload_mb: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most megabytes (2^20 bytes) of audio in a request's body.")
    ] = 512,
    spool: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for audio that is received, until it is classified. [default: beside the state, else one of"
            " its own below /var/tmp]",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Requests over TCP have to bring what is in this file as a bearer token."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name by which clients reach the service over TCP. Repeatable."),
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="NAME", help="Group of the Unix socket: its members may ask.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Classify what is new or changed below the roots, as watch does.")
    ] = False,
    write_tags: Annotated[
        bool,
        typer.Option(
            "--write-tags",
            help="Carry out tag plans that were approved. Without it no track is opened for writing, and"
            " edge-reclass tag STATE --apply-approved does that.",
        ),
    ] = False,
    settle: Annotated[
        float, typer.Option(metavar="SECONDS", help="With --watch: a file is finished when it has not changed so long.")
    ] = 10,
    rescan: Annotated[float, typer.Option(metavar="HOURS", help="With --watch: search the roots so often, too.")] = 24,
    poll: Annotated[
        float,
        typer.Option(metavar="MINUTES", help="With --watch: search a root so often where no events come (network)."),
    ] = 15,
    idle: Annotated[
        float, typer.Option(metavar="MINUTES", help="Close the encoders after so long without anything to do.")
    ] = 5,
) -> None:
    """Stay, and classify tracks for other programs, over HTTP on a Unix socket.

    See docs/service.md. A socket that systemd hands over is taken in place of --socket and --listen. Needs the extra
    "service".

    Exit codes: 0 terminated, 2 wrong usage, 4 the bundle is invalid or an engine is missing, 5 the device cannot be
    used or was lost, 129 hung up, 130 interrupted.
    """
    _need_extra()
    from edge_reclass.cascade import choose_policy, load_bundle
    from edge_reclass.library import Habits
    from edge_reclass.run import default_workers
    from edge_reclass_service import listening, serving
    from edge_reclass_service.settings import Settings

    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise UsageError(f"--min-confidence: expected a number from 0 to 1, got {min_confidence:g}")
    for name, value in (("idle", idle), ("settle", settle), ("rescan", rescan), ("poll", poll)):
        if not 0 < value < float("inf"):
            raise UsageError(f"--{name}: expected a number above 0, got {value:g}")
    if write_tags and state is None:
        raise UsageError("--write-tags: expected --state FILE, too")
    if watch and (state is None or not root):
        raise UsageError("--watch: expected --state FILE and --root DIR, too")
    token = None if token_file is None else _token(token_file)
    roots = tuple(_root(given) for given in root or ())
    loaded = load_bundle(bundle)
    chosen = choose_policy(loaded, policy)
    with ExitStack() as resources:
        sockets = _sockets(resources, socket_path, listen, group)
        for one in sockets:
            if not listening.is_loopback(one) and token is None:
                raise UsageError(
                    f"{listening.named(one)} can be reached from other machines: expected --token-file FILE with a"
                    " secret in it, e.g. made by  openssl rand -hex 32 > FILE"
                )
        settings = Settings(
            loaded,
            chosen,
            workers or default_workers(),
            queue,
            _spool(resources, spool, state),
            device,
            min_confidence,
            roots,
            None if state is None else Path(os.path.abspath(state)),  # noqa: PTH100 - links are kept
            token,
            frozenset(name.lower() for name in allow_host or ()),
            max_upload_mb << 20,
            idle * 60,
            Habits(settle, rescan * 3600, poll * 60) if watch else None,
            write_tags,
        )
        code = serving.serve(settings, sockets)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)  # all is closed; to take a Python with its libraries apart can take seconds on a busy machine


def _need_extra() -> None:
    try:
        import prometheus_client  # noqa: F401
        import sse_starlette  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the service needs {error.name}, which is not installed", "service") from error


def _token(file: Path) -> bytes:
    try:
        token = file.read_bytes().strip()
    except OSError as error:
        raise UsageError(f"--token-file {file}: {error.strerror}") from error
    if len(token) < 16 or not token.isascii() or len(token.split()) != 1:
        raise UsageError(
            f"--token-file {file}: expected one word of at least 16 ASCII characters, e.g. from  openssl rand -hex 32"
        )
    return token


def _root(given: Path) -> Path:
    path = Path(os.path.abspath(given))  # noqa: PTH100 - a link may come to lead elsewhere
    if path.exists() and not path.is_dir():
        raise UsageError(f"--root {given}: expected a folder, got a file")
    return path


def _sockets(resources: ExitStack, path: Path | None, listen: str | None, group: str | None) -> list[socket.socket]:
    from edge_reclass_service import listening

    if sockets := listening.inherited():
        for one in sockets:
            resources.callback(one.close)
        return sockets
    if listen is not None:
        sockets.append(resources.enter_context(listening.bind_tcp(listen)))
    wanted = path or listening.default_socket()
    if wanted is not None:
        unix = listening.UnixSocket(Path(os.path.abspath(wanted)), group)  # noqa: PTH100
        resources.callback(unix.close)
        sockets.append(unix.socket)
    if not sockets:
        raise UsageError("neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR is set; name the socket with --socket PATH")
    return sockets


def _spool(resources: ExitStack, given: Path | None, state: Path | None) -> Path:
    """The folder for what is received: beside the state, where there is room, and never in memory."""
    from edge_reclass_service.files import own_folder

    if given is None and state is None:
        made = tempfile.TemporaryDirectory(prefix="edge-reclass-", dir="/var/tmp")
        return Path(resources.enter_context(made))
    folder = given if given is not None else state.with_name(state.name + _SPOOL)  # type: ignore[union-attr]
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder = folder.resolve(strict=True)
    except OSError as error:
        raise UsageError(
            f"{folder}: no folder can be made there ({error.strerror}); --spool DIR names another"
        ) from error
    return resources.enter_context(own_folder(folder))
