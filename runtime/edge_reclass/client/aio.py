"""The client for asyncio."""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
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


class AsyncClient(BaseClient):
    """:class:`Client` for asyncio: the same arguments, methods and errors; each method is a coroutine.

    Any number of tasks may use one client. A cancelled call hangs up, and the service stops to wait for it.
    """

    async def classify(self, path: str | os.PathLike[str]) -> Verdict:
        """See :meth:`Client.classify`."""
        return await self._call(calls.classify(path))

    async def classify_bytes(self, content: bytes, name: str | None = None) -> Verdict:
        """See :meth:`Client.classify_bytes`."""
        return await self._call(calls.classify_content(content, name))

    async def classify_stream(self, file: BinaryIO, name: str | None = None) -> Verdict:
        """See :meth:`Client.classify_stream`; the file is read in a thread."""
        return await self._call(calls.classify_content(file, name))

    async def classify_pcm(self, samples: NDArray[Any], rate: int) -> Verdict:
        """See :meth:`Client.classify_pcm`."""
        return await self._call(calls.classify_pcm(samples, rate))

    async def version(self) -> Version:
        """See :meth:`Client.version`."""
        return await self._call(calls.version())

    async def ready(self) -> dict[str, Any]:
        """See :meth:`Client.ready`."""
        return await self._call(calls.ready())

    async def events(self, since: int | None = None) -> AsyncIterator[Event]:
        """See :meth:`Client.events`."""
        cursor, resuming = since, Resuming(self.patience)
        while True:
            reader = EventReader(cursor)
            try:
                async for piece in self._stream(calls.events(cursor)):
                    resuming.opened()
                    for event in reader.feed(piece):
                        cursor = event.cursor
                        yield event
                raise ServiceError(f"the service at {self.address} ended the stream of events")
            except ServiceError as error:
                await asyncio.sleep(resuming.pause(error))

    async def verdicts(
        self,
        since: int = 0,
        *,
        status: str | None = None,
        genre: str | None = None,
        path_prefix: str | None = None,
        scan: int | None = None,
    ) -> AsyncIterator[Change]:
        """See :meth:`Client.verdicts`."""
        more = True
        while more:
            page = await self._call(
                calls.verdict_page(since, status=status, genre=genre, path_prefix=path_prefix, scan=scan)
            )
            for change in page.changes:
                yield change
            since, more = page.next, page.more

    async def track(self, path: str | os.PathLike[str]) -> KnownTrack:
        """See :meth:`Client.track`."""
        return await self._call(calls.track(path))

    async def start_scan(
        self,
        paths: Iterable[str | os.PathLike[str]] | None = None,
        *,
        redo: bool = False,
        retry_failed: bool = False,
        key: str | None = None,
    ) -> Scan:
        """See :meth:`Client.start_scan`."""
        return await self._call(calls.start_scan(paths, redo, retry_failed, key))

    async def scans(self) -> list[Scan]:
        """See :meth:`Client.scans`."""
        return await self._call(calls.scans())

    async def scan(self, number: int) -> Scan:
        """See :meth:`Client.scan`."""
        return await self._call(calls.scan(number))

    async def cancel_scan(self, number: int) -> Scan:
        """See :meth:`Client.cancel_scan`."""
        return await self._call(calls.cancel_scan(number))

    async def correct(self, path: str | os.PathLike[str], genre: str) -> None:
        """See :meth:`Client.correct`."""
        await self._call(calls.correct(path, genre))

    async def uncorrect(self, path: str | os.PathLike[str]) -> None:
        """See :meth:`Client.uncorrect`."""
        await self._call(calls.uncorrect(path))

    async def skip(self, path: str | os.PathLike[str], skipped: bool = True) -> None:
        """See :meth:`Client.skip`."""
        await self._call(calls.skip(path, skipped))

    async def _call(self, call: calls.Call[T]) -> T:
        upload, retries = Upload(call.body), Retries(self.patience)
        while True:
            try:
                answer, content = await asyncio.wait_for(self._exchange(call, upload), self.timeout)
            except asyncio.TimeoutError as late:  # TimeoutError itself from Python 3.11 on
                raise self._late() from late
            if 200 <= answer.status < 300:
                return call.read(content)
            error = calls.failure(self.address, answer, content)
            if not upload.again:
                raise error
            await asyncio.sleep(retries.pause(error, answer))

    async def _exchange(self, call: calls.Call[Any], upload: Upload) -> tuple[Answer, bytes]:
        answer, content = Answer(), bytearray()
        with await self._connect() as connection:
            await self._send(connection, self._head(call, upload.length), upload)
            while not answer.complete:
                content += answer.feed(await self._receive(connection))
                if len(content) > MOST_ANSWER:
                    raise self._too_large()
        return answer, bytes(content)

    async def _stream(self, call: calls.Call[Any]) -> AsyncIterator[bytes]:
        answer, refused, seconds = Answer(), bytearray(), self.timeout
        with await self._connect() as connection:
            await self._send(connection, self._head(call, 0), Upload(b""))
            while not answer.complete:
                try:
                    piece = answer.feed(await asyncio.wait_for(self._receive(connection), seconds))
                except asyncio.TimeoutError as error:
                    raise self._late(seconds) from error
                seconds = SILENCE
                if answer.begun and answer.status != 200:
                    refused += piece
                elif piece:
                    yield piece
        if answer.status != 200:
            raise calls.failure(self.address, answer, bytes(refused))

    async def _connect(self) -> sockets.socket:
        """A connected socket. Not asyncio's streams: they lose an answer that comes before the request is sent."""
        loop, where = asyncio.get_running_loop(), self.address
        try:
            if where.path is not None:
                return await self._connect_to(sockets.AF_UNIX, where.path)
            found = await loop.getaddrinfo(where.host, where.port, type=sockets.SOCK_STREAM)
            for family, _, _, _, place in found[:-1]:
                with suppress(OSError):
                    return await self._connect_to(family, place)
            family, _, _, _, place = found[-1]
            return await self._connect_to(family, place)
        except OSError as error:
            raise self._unreachable(error) from error

    async def _connect_to(self, family: int, place: Any) -> sockets.socket:
        connection = sockets.socket(family, sockets.SOCK_STREAM)
        connection.setblocking(False)
        try:
            if family != sockets.AF_UNIX:
                await asyncio.get_running_loop().sock_connect(connection, place)
                return connection
            while True:
                try:
                    connection.connect(place)
                    return connection
                except BlockingIOError:  # more connections wait than it takes; a Unix socket does not wait for a place
                    await asyncio.sleep(CROWDED)
        except BaseException:
            connection.close()
            raise

    async def _send(self, connection: sockets.socket, head: bytes, upload: Upload) -> None:
        """Send a request. A service that hangs up while it is sent has mostly answered: ``_receive`` tells."""
        loop, piece = asyncio.get_running_loop(), head
        upload.begin()
        with suppress(BrokenPipeError, ConnectionResetError):
            while piece:
                await loop.sock_sendall(connection, piece)
                piece = upload.next() if isinstance(upload.body, bytes) else await asyncio.to_thread(upload.next)

    async def _receive(self, connection: sockets.socket) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(connection, PIECE)
        except OSError as error:
            raise self._unreachable(error) from error
