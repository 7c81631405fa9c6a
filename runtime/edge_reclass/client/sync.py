"""The client for programs with threads, or with none."""

from __future__ import annotations

import socket as sockets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from edge_reclass.client import calls
from edge_reclass.client.base import CROWDED, MOST_ANSWER, PIECE, SILENCE, BaseClient, Resuming, Retries, Upload
from edge_reclass.client.events import Event, EventReader
from edge_reclass.client.http import Answer
from edge_reclass.errors import ServiceError

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from edge_reclass.client.records import Change, KnownTrack, Scan, Version
    from edge_reclass.verdict import Verdict

T = TypeVar("T")


class Client(BaseClient):
    """A client of ``edge-reclass serve``: ``Client("/run/edge-reclass/edge-reclass.sock")``.

    Nothing is kept open between two calls, so there is nothing to close, and any number of threads may use one client.

    Args:
        socket: path of the service's Unix socket.
        url: or its URL, ``http://host:8080``.
        token: what the service's ``--token-file`` holds.
        timeout: seconds for one request, with the time that the track waits for its turn.
        patience: seconds that a busy service (503 with ``Retry-After``) is asked again, and that a stream of events is
            opened again; 0: not at all.

    Raises (every method):
        ServiceError: the service cannot be reached, did not answer in time, or not as it should.
        ServiceBusyError: its queue stayed full.
        RequestRefusedError: it refuses the request: a path outside its roots, a wrong token, a file too large, …
    """

    def classify(self, path: str | os.PathLike[str]) -> Verdict:
        """Have the service read and classify a file below its roots; a bad file is a verdict whose status says so."""
        return self._call(calls.classify(path))

    def classify_bytes(self, content: bytes, name: str | None = None) -> Verdict:
        """Send the content of an audio file. ``name`` is what the verdict calls it."""
        return self._call(calls.classify_content(content, name))

    def classify_stream(self, file: BinaryIO, name: str | None = None) -> Verdict:
        """Send an audio file from where ``file`` (opened for reading bytes) stands, without reading it at once."""
        return self._call(calls.classify_content(file, name))

    def classify_pcm(self, samples: NDArray[Any], rate: int) -> Verdict:
        """Send samples, ``[n]`` or ``[n, channels]``: floating point with full scale 1, int16 or int32.

        Raises:
            ValueError: another shape or type.
        """
        return self._call(calls.classify_pcm(samples, rate))

    def version(self) -> Version:
        """What the service is: program, bundle, policy, device, workers."""
        return self._call(calls.version())

    def ready(self) -> dict[str, Any]:
        """Wait, for as long as ``patience``, until the service is ready; what it measured of each stage.

        Raises:
            ServiceBusyError: it is not ready by then.
        """
        return self._call(calls.ready())

    def events(self, since: int | None = None) -> Iterator[Event]:
        """Events as they come, behind the cursor ``since``, without an end.

        A stream that is lost is opened again behind the last event, for as long as ``patience``.
        """
        cursor, resuming = since, Resuming(self.patience)
        while True:
            reader = EventReader(cursor)
            try:
                for piece in self._stream(calls.events(cursor)):
                    resuming.opened()
                    for event in reader.feed(piece):
                        cursor = event.cursor
                        yield event
                raise ServiceError(f"the service at {self.address} ended the stream of events")
            except ServiceError as error:
                time.sleep(resuming.pause(error))

    def verdicts(
        self,
        since: int = 0,
        *,
        status: str | None = None,
        genre: str | None = None,
        path_prefix: str | None = None,
        scan: int | None = None,
    ) -> Iterator[Change]:
        """What the service has recorded behind the cursor ``since``, in that order; page after page, to the end.

        Keep the last change's ``cursor``: it is the next call's ``since``.
        """
        more = True
        while more:
            page = self._call(calls.verdict_page(since, status=status, genre=genre, path_prefix=path_prefix, scan=scan))
            yield from page.changes
            since, more = page.next, page.more

    def track(self, path: str | os.PathLike[str]) -> KnownTrack:
        """What the service knows of a track; its ``verdict`` is None before it is classified."""
        return self._call(calls.track(path))

    def start_scan(
        self,
        paths: Iterable[str | os.PathLike[str]] | None = None,
        *,
        redo: bool = False,
        retry_failed: bool = False,
        key: str | None = None,
    ) -> Scan:
        """Have folders and files below the roots looked through, and classified where they are new or have changed.

        Args:
            paths: None: all roots.
            redo: classify what has not changed, too.
            retry_failed: try again what failed.
            key: two calls with the same key are one scan.
        """
        return self._call(calls.start_scan(paths, redo, retry_failed, key))

    def scans(self) -> list[Scan]:
        """All scans, the newest first."""
        return self._call(calls.scans())

    def scan(self, number: int) -> Scan:
        """How a scan stands."""
        return self._call(calls.scan(number))

    def cancel_scan(self, number: int) -> Scan:
        """Cancel a scan; what it has recorded stays."""
        return self._call(calls.cancel_scan(number))

    def correct(self, path: str | os.PathLike[str], genre: str) -> None:
        """Say what genre a track has; it wins over every verdict."""
        self._call(calls.correct(path, genre))

    def uncorrect(self, path: str | os.PathLike[str]) -> None:
        """Take a correction back."""
        self._call(calls.uncorrect(path))

    def skip(self, path: str | os.PathLike[str], skipped: bool = True) -> None:
        """Say that a track is left for later in review, or is not any more."""
        self._call(calls.skip(path, skipped))

    @contextmanager
    def borrow_state(self) -> Iterator[None]:
        """The service does not write its state file as long as this context lasts; only over its Unix socket."""
        call, answer, content = calls.lend_state(), Answer(), bytearray()
        with _Connection(self, self.timeout) as connection:
            connection.send(self._head(call, 0), Upload(b""))
            while not answer.begun or (answer.status != 200 and not answer.complete):
                content += answer.feed(connection.receive())
            if answer.status != 200:
                raise calls.failure(self.address, answer, bytes(content))
            yield

    def _call(self, call: calls.Call[T]) -> T:
        upload, retries = Upload(call.body), Retries(self.patience)
        while True:
            answer, content = self._exchange(call, upload)
            if 200 <= answer.status < 300:
                return call.read(content)
            error = calls.failure(self.address, answer, content)
            if not upload.again:
                raise error
            time.sleep(retries.pause(error, answer))

    def _exchange(self, call: calls.Call[Any], upload: Upload) -> tuple[Answer, bytes]:
        answer, content = Answer(), bytearray()
        with _Connection(self, self.timeout) as connection:
            connection.send(self._head(call, upload.length), upload)
            while not answer.complete:
                content += answer.feed(connection.receive())
                if len(content) > MOST_ANSWER:
                    raise self._too_large()
        return answer, bytes(content)

    def _stream(self, call: calls.Call[Any]) -> Iterator[bytes]:
        """Pieces of the body of an answer as they come."""
        answer, refused = Answer(), bytearray()
        with _Connection(self, self.timeout) as connection:
            connection.send(self._head(call, 0), Upload(b""))
            while not answer.complete:
                piece = answer.feed(connection.receive())
                connection.limit(SILENCE)
                if answer.begun and answer.status != 200:
                    refused += piece
                elif piece:
                    yield piece
        if answer.status != 200:
            raise calls.failure(self.address, answer, bytes(refused))


class _Connection:
    """A socket to the service, with a time by which everything is to be done; a context manager."""

    def __init__(self, client: BaseClient, seconds: float) -> None:
        self._client = client
        self.limit(seconds)

    def limit(self, seconds: float) -> None:
        """From now on there are so many seconds left."""
        self._seconds, self._until = seconds, time.monotonic() + seconds

    def __enter__(self) -> _Connection:
        where = self._client.address
        try:
            if where.path is None:
                self._socket = sockets.create_connection((where.host, where.port), self._left())
                self._socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
            else:
                self._socket = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
                self._connect(where.path)
        except OSError as error:
            raise self._client._unreachable(error) from error
        return self

    def _connect(self, path: str) -> None:
        try:
            self._socket.settimeout(self._left())
            while True:
                try:
                    return self._socket.connect(path)
                except BlockingIOError:  # more connections wait than it takes; a Unix socket does not wait for a place
                    time.sleep(min(CROWDED, self._left()))
        except BaseException:
            self._socket.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise self._client._late(self._seconds)
        return left

    def send(self, head: bytes, upload: Upload) -> None:
        """Send a request. A service that hangs up while it is sent has mostly answered: ``receive`` tells."""
        upload.begin()
        piece = head
        with suppress(BrokenPipeError, ConnectionResetError):
            while piece:
                self._socket.settimeout(self._left())
                try:
                    self._socket.sendall(piece)
                except TimeoutError as error:
                    raise self._client._late(self._seconds) from error
                piece = upload.next()

    def receive(self) -> bytes:
        """The next bytes, ``b""`` at the end of the connection."""
        self._socket.settimeout(self._left())
        try:
            return self._socket.recv(PIECE)
        except TimeoutError as error:
            raise self._client._late(self._seconds) from error
        except OSError as error:
            raise self._client._unreachable(error) from error
