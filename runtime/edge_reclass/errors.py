"""Every exception that edge-reclass raises on purpose, and the exit code that each one means.

    EdgeReclassError                    exit 1
    ├── UsageError                      exit 2   the command or the call was wrong
    │   ├── MissingExtraError           exit 2   an optional dependency is needed; the message has the pip line
    │   └── StateBusyError              exit 2   another process writes the state file
    ├── BundleError                     exit 4   a bundle cannot be used
    ├── EngineError                     exit 4   an engine or session failed or does not match its bundle
    │   └── WorkerError                 exit 4   a worker process cannot be started
    ├── DeviceError                     exit 5   the requested device cannot be used
    ├── ServiceError                    exit 5   a service cannot be reached, or did not answer as it should
    │   ├── ServiceBusyError            exit 5   its queue stayed full
    │   └── RequestRefusedError         exit 2   it refuses the request: outside its roots, a wrong token, …
    └── TrackError                      never ends a run: it becomes the status of one track's verdict

A message says what was wrong, what was expected against what was found, and the command that fixes it.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from edge_reclass.installing import install_command


class Word(str, Enum):
    """Words of which one is meant; each equals its text, and is printed and written as it."""

    __str__ = str.__str__

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


class Status(Word):
    """What became of a track."""

    OK = "ok"
    UNSURE = "unsure"
    SILENT = "silent"
    TOO_SHORT = "too_short"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    UNSUPPORTED = "unsupported"
    CORRUPT = "corrupt"
    EMPTY = "empty"
    TOO_LONG = "too_long"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    ERROR = "error"
    QUARANTINED = "quarantined"


ANSWER_STATUSES: Final = (Status.OK, Status.UNSURE, Status.SILENT, Status.TOO_SHORT)
"""Statuses that are an answer about the music; they do not change the exit code."""

FAILURE_STATUSES: Final = tuple(status for status in Status if status not in ANSWER_STATUSES)
"""Statuses that mean the track could not be classified; a run with any of them exits with 3."""


class EdgeReclassError(Exception):
    """Base of all errors raised on purpose; ``exit_code`` is what the command line exits with."""

    exit_code: int = 1


class UsageError(EdgeReclassError):
    """The command line or the call asked for something that does not exist or cannot be done."""

    exit_code = 2


class MissingExtraError(UsageError):
    """An optional dependency is not installed; ``extra`` names the extra that brings it."""

    def __init__(self, what: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{what}: install it with  {install_command(extra)}")


class StateBusyError(UsageError):
    """Another process writes the state file.

    ``socket`` is that of the service that does, or that lent it; None where it is none. ``holder`` names the process.
    """

    def __init__(self, message: str, socket: str | None = None, holder: str = "another process") -> None:
        self.socket, self.holder = socket, holder
        super().__init__(message)


class BundleError(EdgeReclassError):
    """A bundle is missing, malformed, altered, or does not fit together."""

    exit_code = 4


class EngineError(EdgeReclassError):
    """An encoder or head could not be opened or run, or gave an output of the wrong shape or dtype."""

    exit_code = 4


class WorkerError(EngineError):
    """A worker process cannot be started: no track's fault, and no other track would fare better."""


class DeviceError(EdgeReclassError):
    """The requested device cannot be used on this machine."""

    exit_code = 5


class ServiceError(EdgeReclassError):
    """A service cannot be reached, or did not answer as it should.

    ``status`` is the HTTP status (None where there was no answer), ``type``, ``title`` and ``detail`` what the
    service's problem document (RFC 9457) says.
    """

    exit_code = 5

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str = "about:blank",
        title: str = "",
        detail: str = "",
    ) -> None:
        self.status, self.type, self.title, self.detail = status, type, title, detail
        super().__init__(message)


class ServiceBusyError(ServiceError):
    """The service's queue is full, and stayed so for as long as the client was to wait."""


class RequestRefusedError(ServiceError):
    """The service understood the request and refuses it: status 400 to 499."""

    exit_code = 2


class TrackError(EdgeReclassError):
    """One track cannot be classified. ``status`` is ``silent``, ``too_short`` or one of FAILURE_STATUSES."""

    exit_code = 3

    def __init__(self, status: Status, message: str) -> None:
        self.status = Status(status)
        super().__init__(message)
