"""``classify --remote``: the tracks are found here and classified by a service."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge_reclass.audio.decode import open_regular
from edge_reclass.client import Client
from edge_reclass.errors import RequestRefusedError, Status, TrackError, UsageError
from edge_reclass.run.lanes import all_done
from edge_reclass.verdict import Verdict

PATIENCE: Final = 3600.0
"""Seconds that a busy service is asked again: others may have filled its queue, and this run can wait."""

_REFUSED: Final = {"outside-roots": Status.UNREADABLE, "not-a-file": Status.UNSUPPORTED, "too-large": Status.UNREADABLE}
"""Refusals of one track, by the end of the problem's type, and what its verdict's status is; others end the run."""


def connect(address: str, token_file: Path | None) -> Client:
    """The client of the service at ``address``, the path of a socket or a URL.

    Raises:
        UsageError: there can be no such address, or the token cannot be read.
    """
    token = None
    if token_file is not None:
        try:
            token = token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--token-file {token_file}: cannot be read ({error})") from error
    if "://" in address:
        return Client(url=address, token=token, patience=PATIENCE)
    return Client(address, token=token, patience=PATIENCE)


class RemotePool:
    """A service as the pool of a :class:`edge_reclass.run.lanes.LaneRunner`.

    Args:
        lanes: requests at a time; None: as many as the service works on at a time.
        send_files: send the files themselves, which the service then need not be able to read.

    Raises:
        ServiceError: the service cannot be reached.
    """

    def __init__(self, client: Client, lanes: int | None, send_files: bool) -> None:
        self._client, self._send_files = client, send_files
        self.version = client.version()
        self.lanes = lanes or max(1, self.version.workers)
        self._threads = ThreadPoolExecutor(self.lanes, thread_name_prefix="edge-reclass-remote")
        self._unfinished: set[Future[Verdict]] = set()

    @property
    def described(self) -> str:
        """The service, in a line."""
        about = self.version
        device = "" if about.device is None else f", device {about.device}"
        return f"service: {self._client.address} ({about.program}, bundle {about.bundle.name}, {about.policy}{device})"

    def submit(self, path: str | os.PathLike[str]) -> Future[Verdict]:
        """See :meth:`edge_reclass.CascadePool.submit`; the future may raise ServiceError."""
        future = self._threads.submit(self._classify, path)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future

    def close(self, timeout: float | None = None) -> bool:
        """See :meth:`edge_reclass.CascadePool.close`."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if not all_done(self._unfinished, timeout):
            return False
        self._threads.shutdown(wait=True)
        return True

    def _classify(self, path: str | os.PathLike[str]) -> Verdict:
        try:
            verdict, known = self._send(path) if self._send_files else (self._client.classify(path), {})
        except TrackError as error:
            return self._failed(path, error.status, str(error))
        except RequestRefusedError as error:
            kind = error.type.rpartition(":")[2]
            if kind not in _REFUSED:
                raise
            mend = "; --send-files sends its content" if kind == "outside-roots" else ""
            return self._failed(path, _REFUSED[kind], f"the service refuses it: {error.detail}{mend}")
        return replace(verdict, path=os.fspath(path), **known)

    def _send(self, path: str | os.PathLike[str]) -> tuple[Verdict, dict[str, Any]]:
        """The verdict, and what is known here of the file that was sent."""
        with open_regular(os.fspath(path)) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
            status = os.fstat(descriptor)
            try:
                verdict = self._client.classify_stream(file, os.fspath(path))
            except OSError as error:
                raise TrackError(Status.UNREADABLE, f"cannot be read: {error.strerror or error}") from error
        return verdict, {"size": status.st_size, "mtime_ns": status.st_mtime_ns}

    def _failed(self, path: str | os.PathLike[str], status: Status, error: str) -> Verdict:
        about = self.version
        return Verdict(
            os.fspath(path),
            status,
            about.bundle.name,
            about.policy,
            error=error,
            bundle_digest=about.bundle.digest,
            program=about.program,
        )
