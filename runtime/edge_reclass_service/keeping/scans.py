"""Scans: what the service was asked to look at. One runs at a time; what a kill cut off goes on at the next start."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from edge_reclass import CascadePool, Verdict
from edge_reclass.errors import DeviceError, EdgeReclassError, EngineError
from edge_reclass.library import Basis, State, now
from edge_reclass_service.keeping.running import Cancelled, Running
from edge_reclass_service.keeping.wire import Counts, Scan, ScanRequest
from edge_reclass_service.keeping.writer import Writer, passes

_COLUMNS: Final = "id, status, request, asked, began, ended, since, counts, error"


class DifferentRequestError(Exception):
    """An Idempotency-Key came again with another request."""


class CannotGoOn(Exception):
    """The encoders cannot be opened: the service ends, and the scan goes on at the next start."""


class Scans:
    """Takes scans, and has the writer do them in order.

    Args:
        roots: what is looked at where a scan names nothing.
        pool: the open pool, which stays open within.
        told: is told of each verdict, on the writer's thread.
    """

    def __init__(
        self,
        writer: Writer,
        basis: Basis,
        roots: Sequence[Path],
        pool: Callable[[], AbstractContextManager[CascadePool]],
        told: Callable[[Verdict], None] = lambda _: None,
    ) -> None:
        self._told = told
        self._writer, self._basis, self._pool = writer, basis, pool
        self._roots = [os.fspath(root) for root in roots]
        self._cancelled: int | None = None
        self._running: Running | None = None

    @property
    def running(self) -> int | None:
        """The scan that runs."""
        running = self._running
        return None if running is None else running.id

    def resume(self, state: State) -> None:
        """At the start: take up what was left."""
        for (number,) in state.connection.execute(
            "SELECT id FROM scan WHERE status IN ('running', 'waiting') ORDER BY id"
        ).fetchall():
            self._later(number)

    def add(self, state: State, request: ScanRequest, key: str | None) -> tuple[int, bool]:
        """Take a scan; its number, and whether it is new: a ``key`` that came before names the scan of then.

        Raises:
            DifferentRequestError: it named another one.
        """
        text = msgspec.json.encode(request).decode()
        if key is not None:
            known = state.connection.execute(
                "SELECT id, request FROM scan WHERE idempotency_key = ?", (key,)
            ).fetchone()
            if known is not None:
                if known[1] != text:
                    raise DifferentRequestError(
                        f"the Idempotency-Key {key!r} was used for another request, scan {known[0]}; take a new one"
                    )
                return int(known[0]), False
        with state.transaction():
            (number,) = state.connection.execute(
                "INSERT INTO scan (idempotency_key, request, status, asked, since) VALUES (?, ?, 'waiting', ?, ?)"
                " RETURNING id",
                (key, text, now(), state.last_change()),
            ).fetchone()
        self._later(number)
        return int(number), True

    def cancel(self, state: State, number: int) -> None:
        """Take a scan back; one that runs ends at the next track. One that has ended stays as it is."""
        with state.transaction():
            done = state.connection.execute(
                "UPDATE scan SET status = 'cancelled', ended = ? WHERE id = ? AND status IN ('waiting', 'running')",
                (now(), number),
            ).rowcount
        if done and self.running == number:
            self._cancelled = number

    def listed(self, state: State, limit: int = 100) -> list[Scan]:
        """The latest scans, newest first."""
        rows = state.connection.execute(f"SELECT {_COLUMNS} FROM scan ORDER BY id DESC LIMIT ?", (limit,)).fetchall()
        return [self._scan(row) for row in rows]

    def one(self, state: State, number: int) -> Scan | None:
        """A scan, None where there is none of this number."""
        row = state.connection.execute(f"SELECT {_COLUMNS} FROM scan WHERE id = ?", (number,)).fetchone()
        return None if row is None else self._scan(row)

    def _scan(self, row: tuple[Any, ...]) -> Scan:
        number, status, request, asked, began, ended, since, counts, error = row
        asked_for = msgspec.json.decode(request, type=ScanRequest)
        saved = {} if counts is None else json.loads(counts)
        problems = saved.pop("problems", [])
        scan = Scan(
            id=number,
            status=status,
            paths=asked_for.paths or self._roots,
            redo=asked_for.redo,
            retry_failed=asked_for.retry_failed,
            asked=asked,
            began=began,
            ended=ended,
            since=since,
            counts=msgspec.convert(saved, Counts),
            problems=problems,
            error=error,
        )
        running = self._running
        if running is not None and running.id == number and status == "running":
            scan.counts, scan.problems = replace(running.counts), list(running.problems)
        elif status == "running":  # it was interrupted, and goes on when its turn comes
            scan.status = "waiting"
        return scan

    def _later(self, number: int) -> None:
        self._writer.later(lambda state: self._run(state, number))

    def _run(self, state: State, number: int) -> None:
        """Do it, or what is left of it.

        Raises:
            Interrupted: it goes on later.
            EdgeReclassError: the state cannot be written; it goes on when that is mended.
            DeviceError, EngineError, CannotGoOn: nothing can be classified; it goes on at the next start.
        """
        row = state.connection.execute(
            "SELECT request FROM scan WHERE id = ? AND status IN ('waiting', 'running')", (number,)
        ).fetchone()
        if row is None:
            return
        _note(state, number, "running")
        request = msgspec.json.decode(row[0], type=ScanRequest)
        running = Running(number, request, self._roots, self._between, self._told)
        self._running = running
        try:
            with ExitStack() as held:
                running.run(state, request.paths or self._roots, self._basis, lambda: held.enter_context(self._pool()))
            status, error = ("failed", running.error) if running.error else ("done", None)
        except Cancelled:
            status, error = "cancelled", None
        except (DeviceError, EngineError):
            raise
        except EdgeReclassError as reason:
            if passes(reason):
                raise
            status, error = "failed", str(reason)
        finally:
            self._running = self._cancelled = None
        counts = {**msgspec.to_builtins(running.counts), "problems": running.problems}
        _note(state, number, status, error, json.dumps(counts))

    def _between(self) -> None:
        self._writer.between()
        if self._cancelled is not None:
            raise Cancelled


def _note(state: State, number: int, status: str, error: str | None = None, counts: str | None = None) -> None:
    with state.transaction():
        state.connection.execute(
            # One that somebody took back at its last track stays cancelled.
            "UPDATE scan SET status = CASE WHEN status = 'cancelled' THEN status ELSE ?1 END,"
            " error = ?2, counts = ?3, began = coalesce(began, ?4),"
            " ended = CASE WHEN ?1 = 'running' THEN NULL ELSE ?4 END"
            " WHERE id = ?5",
            (status, error, counts, now(), number),
        )
