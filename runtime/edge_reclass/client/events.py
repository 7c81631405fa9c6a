"""Server-sent events: the text of a stream, taken apart as it comes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from edge_reclass.client.records import Change, Scan, change_of, scan_of
from edge_reclass.errors import ServiceError

MOST_EVENT: Final = 1024 * 1024
"""Bytes of one event."""


@dataclass(frozen=True)
class Event:
    """One event of a service: its ``name`` (``verdict``, ``scan``, ``state``), its JSON, and where it stands.

    ``cursor`` is what ``since`` takes to go on behind it; None where the service gave none yet. :meth:`change` and
    :meth:`scan` read ``data``; they raise ServiceError where it holds something else.
    """

    name: str
    data: Any
    cursor: int | None

    def change(self) -> Change:
        """What an event ``verdict`` says."""
        return change_of(self.data)

    def scan(self) -> Scan:
        """What an event ``scan`` says."""
        return scan_of(self.data)


class EventReader:
    """``feed`` takes bytes of a ``text/event-stream`` and gives the events that they complete."""

    def __init__(self, cursor: int | None = None) -> None:
        self._cursor = cursor
        self._buffer = bytearray()
        self._name, self._data = "", list[str]()

    def feed(self, data: bytes) -> list[Event]:
        r"""The events that ``data`` completes; lines end with ``\n``, ``\r\n`` or ``\r``.

        Raises:
            ServiceError: an event is larger than MOST_EVENT, or its data is no JSON.
        """
        self._buffer += data
        # A \r at the very end may be half of \r\n: what stands behind it decides.
        held = self._buffer.endswith(b"\r")
        lines = re.split(rb"\r\n|\n|\r", bytes(self._buffer[: len(self._buffer) - held]))
        self._buffer = bytearray(lines.pop()) + b"\r" * held
        events = []
        for line in lines:
            if (event := self._line(line.decode("utf-8", "replace"))) is not None:
                events.append(event)
        if len(self._buffer) + sum(map(len, self._data)) > MOST_EVENT:
            raise ServiceError(f"the service sends an event of more than {MOST_EVENT} bytes")
        return events

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._end()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and re.fullmatch(r"[0-9]{1,18}", value):
            self._cursor = int(value)
        return None  # a comment (the service is there), or a field that we do not need

    def _end(self) -> Event | None:
        name, text = self._name or "message", "\n".join(self._data)
        self._name, self._data = "", []
        if not text:
            return None
        try:
            return Event(name, json.loads(text), self._cursor)
        except (ValueError, RecursionError) as error:
            raise ServiceError(f"the service's event {name!r} holds no JSON ({error})") from error
