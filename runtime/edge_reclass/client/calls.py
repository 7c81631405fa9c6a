"""What can be asked of a service: each call is a request and how its answer is read, without any input or output."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from edge_reclass.client.address import Address
from edge_reclass.client.http import Answer
from edge_reclass.client.records import (
    KnownTrack,
    Page,
    Scan,
    Version,
    page_of,
    plain,
    scan_of,
    track_of,
    verdict_of,
    version_of,
)
from edge_reclass.errors import RequestRefusedError, ServiceBusyError, ServiceError, UsageError
from edge_reclass.verdict import Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

JSON: Final = "application/json"
FILE: Final = "application/octet-stream"
PCM: Final = "audio/pcm"
EVENTS: Final = "text/event-stream"
MOST_PATHS: Final = 2000
"""Of a scan, as the service takes them."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and ``read``, which makes of the body of a good answer what the caller gets."""

    method: str
    target: str
    read: Callable[[bytes], T]
    body: bytes | BinaryIO = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Problem(msgspec.Struct, frozen=True):
    """A problem document (RFC 9457), as far as we read it."""

    type: str = "about:blank"
    title: str = ""
    detail: str = ""


def failure(address: Address, answer: Answer, content: bytes) -> ServiceError:
    """The error that an answer with another status than 2xx means."""
    try:
        problem = msgspec.json.decode(content, type=Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # something else than our service: a proxy
        problem = Problem(title=content[:80].decode("utf-8", "replace"))
    kind = ServiceError
    if 400 <= answer.status < 500:
        kind = RequestRefusedError
    elif answer.status == 503 and "retry-after" in answer.headers:
        kind = ServiceBusyError
    said = problem.detail or problem.title or "without a reason"
    text = f"the service at {address}: {said} (status {answer.status})"
    if answer.status == 401:
        text += "; it wants a token: Client(token=…), or --token-file FILE"
    return kind(text, status=answer.status, type=problem.type, title=problem.title, detail=problem.detail)


def seconds_to_wait(answer: Answer) -> float | None:
    """What ``Retry-After`` asks for, None where it says nothing; a date counts as a second."""
    value = answer.headers.get("retry-after")
    if answer.status != 503 or value is None:
        return None
    return float(value) if value.isascii() and value.isdigit() else 1.0


def path_fields(path: str | os.PathLike[str]) -> dict[str, str]:
    """How a path is sent: absolute, as ``path``, or as ``path_bytes`` (Base64) where it is not valid UTF-8."""
    full = absolute(path)
    try:
        full.encode()
    except UnicodeEncodeError:
        return {"path_bytes": base64.b64encode(os.fsencode(full)).decode()}
    return {"path": full}


def target(route: str, /, **query: Any) -> str:
    """``route`` with what of ``query`` is not None; a value may be a str, a number or bytes."""
    given = {name: value for name, value in query.items() if value is not None}
    return f"{route}?{urlencode(given)}" if given else route


def send_json(
    method: str, path: str, values: Any, read: Callable[[bytes], T], headers: Mapping[str, str] | None = None
) -> Call[T]:
    """A call with a JSON body."""
    return Call(method, path, read, msgspec.json.encode(values), {"Content-Type": JSON, **(headers or {})})


def read_verdict(content: bytes) -> Verdict:
    """The body of an answer as a verdict."""
    return verdict_of(plain(content))


def classify(path: str | os.PathLike[str]) -> Call[Verdict]:
    """Have the service read and classify a file that it can see."""
    return send_json("POST", "/v1/classify", path_fields(path), read_verdict)


def classify_content(content: bytes | BinaryIO, name: str | None) -> Call[Verdict]:
    """Send the bytes of an audio file."""
    headers = {"Content-Type": FILE}
    if name is not None:
        headers["X-File-Name"] = quote(os.fsencode(os.path.basename(name)), safe="")  # noqa: PTH119
    return Call("POST", "/v1/classify", read_verdict, content, headers)


def classify_pcm(samples: NDArray[Any], rate: int) -> Call[Verdict]:
    """Send samples: ``[n]`` or ``[n, channels]``, int16 as they are, int32 and floating point as float32.

    Raises:
        ValueError: another shape or type.
    """
    import numpy as np

    array = np.asarray(samples)
    if array.ndim not in (1, 2) or (array.ndim == 2 and not array.shape[1]):
        raise ValueError(f"expected samples [n] or [n, channels], got shape {array.shape}")
    if array.dtype == np.int16:
        kind, sent = "s16le", array.astype("<i2", copy=False)
    elif array.dtype == np.int32:
        kind, sent = "f32le", (array / 2.0**31).astype("<f4")
    elif np.issubdtype(array.dtype, np.floating):
        kind, sent = "f32le", array.astype("<f4", copy=False)
    else:
        raise ValueError(f"expected samples of floating point, int16 or int32, got {array.dtype}")
    where = target("/v1/classify", rate=rate, channels=1 if array.ndim == 1 else array.shape[1], format=kind)
    return Call("POST", where, read_verdict, sent.tobytes(), {"Content-Type": PCM})


def events(since: int | None) -> Call[None]:
    """Open the stream of events behind the cursor ``since``; None: from now on."""
    headers = {"Accept": EVENTS} | ({} if since is None else {"Last-Event-ID": str(since)})
    return Call("GET", "/v1/events", lambda _: None, headers=headers)


def version() -> Call[Version]:
    """What the service is."""
    return Call("GET", "/v1/version", lambda content: version_of(plain(content)))


def ready() -> Call[dict[str, Any]]:
    """Whether tracks can be classified."""
    return Call("GET", "/health/ready", _object)


def verdict_page(since: int, **query: Any) -> Call[Page]:
    """What was recorded behind a cursor."""
    return Call("GET", target("/v1/verdicts", since=since, **query), lambda content: page_of(plain(content)))


def track(path: str | os.PathLike[str]) -> Call[KnownTrack]:
    """What is known of a track."""
    where = target("/v1/tracks", path=os.fsencode(absolute(path)))
    return Call("GET", where, lambda content: track_of(plain(content)))


def start_scan(
    paths: Iterable[str | os.PathLike[str]] | None, redo: bool, retry_failed: bool, key: str | None
) -> Call[Scan]:
    """Scan folders and files below the roots; None: all roots. A ``key`` makes a repeated call the same scan.

    Raises:
        UsageError: a path that is not valid UTF-8, or more paths than a service takes.
    """
    wanted: dict[str, Any] = {"redo": redo, "retry_failed": retry_failed}
    if paths is not None:
        wanted["paths"] = named = [_utf8(absolute(path)) for path in paths]
        if len(named) > MOST_PATHS:
            raise UsageError(
                f"{len(named)} paths: a scan takes at most {MOST_PATHS}; name the folders in which the files are"
            )
    return send_json("POST", "/v1/scans", wanted, _scan, {} if key is None else {"Idempotency-Key": key})


def scans() -> Call[list[Scan]]:
    """All scans, the newest first."""
    return Call("GET", "/v1/scans", lambda content: [scan_of(one) for one in _listed(plain(content), "scans")])


def scan(number: int) -> Call[Scan]:
    """One scan."""
    return Call("GET", f"/v1/scans/{number:d}", _scan)


def cancel_scan(number: int) -> Call[Scan]:
    """Cancel a scan."""
    return Call("DELETE", f"/v1/scans/{number:d}", _scan)


def correct(path: str | os.PathLike[str], genre: str) -> Call[None]:
    """Say what genre a track has."""
    return send_json("PUT", "/v1/corrections", {**path_fields(path), "genre": genre}, lambda _: None)


def uncorrect(path: str | os.PathLike[str]) -> Call[None]:
    """Take a correction back."""
    return send_json("DELETE", "/v1/corrections", path_fields(path), lambda _: None)


def skip(path: str | os.PathLike[str], skipped: bool) -> Call[None]:
    """Say that a track is left for later, or is not any more."""
    return send_json("PUT" if skipped else "DELETE", "/v1/skipped", path_fields(path), lambda _: None)


def lend_state() -> Call[None]:
    """Ask the service to stop writing for as long as the connection is open."""
    return Call("POST", "/v1/state/lend", lambda _: None, headers={"X-Borrower": f"process {os.getpid()}"})


def absolute(path: str | os.PathLike[str]) -> str:
    """A path as the service is told of it: links in it are the service's to judge."""
    return os.path.abspath(path)  # noqa: PTH100


def _object(content: bytes) -> dict[str, Any]:
    values = plain(content)
    if not isinstance(values, dict):
        raise ServiceError(f"expected an object of JSON from the service, got {content[:80]!r}")
    return values


def _listed(values: Any, key: str) -> list[Any]:
    found = values.get(key) if isinstance(values, dict) else None
    if not isinstance(found, list):
        raise ServiceError(f"expected a list of {key} from the service, got {str(values)[:80]!r}")
    return found


def _scan(content: bytes) -> Scan:
    return scan_of(plain(content))


def _utf8(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{path!r}: a scan takes only paths that are valid UTF-8; scan the folder above") from error
    return path
