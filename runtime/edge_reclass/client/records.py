"""What a service tells, as objects, every type checked; keys that we do not know are passed over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from edge_reclass.errors import ServiceError
from edge_reclass.verdict import FORMAT, Verdict

T = TypeVar("T")


class BundleServed(msgspec.Struct, frozen=True):
    """The bundle that a service has open, and the stages of its policy in running order."""

    name: str
    digest: str
    genres: tuple[str, ...]
    stages: tuple[str, ...]


class Version(msgspec.Struct, frozen=True):
    """What a service is; ``workers`` is how many tracks it works on at a time.

    ``device`` is None as long as the encoders have not been opened.
    """

    program: str
    bundle: BundleServed
    policy: str
    device: str | None
    workers: int


@dataclass(frozen=True)
class Change:
    """A verdict as it was recorded, and where it stands among all: ``cursor`` is what ``since`` takes to go on.

    ``verdict`` has a person's correction where there is one (``corrected``). ``absent_since``: the file was not found
    since then. ``scan`` is the scan that recorded it, None where none did.
    """

    cursor: int
    verdict: Verdict
    corrected: str | None = None
    absent_since: str | None = None
    scan: int | None = None


@dataclass(frozen=True)
class KnownTrack:
    """What a service knows of a track, as :class:`Change`; before it is classified, ``verdict`` is None.

    ``cursor`` is that of its last change, None where there was none. ``first_seen`` and ``last_seen``: times, UTC.
    """

    verdict: Verdict | None
    cursor: int | None
    first_seen: str
    last_seen: str
    corrected: str | None = None
    absent_since: str | None = None
    scan: int | None = None


@dataclass(frozen=True)
class Page:
    """Changes in the order of recording; ``next`` is the cursor behind them, ``more`` whether there are others."""

    changes: tuple[Change, ...]
    next: int
    more: bool


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """A scan of folders: ``status`` is ``waiting``, ``running``, ``done``, ``failed`` or ``cancelled``.

    ``since`` is the cursor at which it was asked for, ``counts`` what it found and did so far, ``problems`` the folders
    that could not be searched, each with its reason.
    """

    id: int
    status: str
    since: int
    paths: tuple[str, ...] = ()
    redo: bool = False
    retry_failed: bool = False
    asked: str | None = None
    began: str | None = None
    ended: str | None = None
    counts: Mapping[str, int] | None = None
    problems: tuple[tuple[str, str], ...] = ()
    error: str | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status not in ("waiting", "running")


def plain(content: bytes) -> Any:
    """JSON as plain values; names that are not UTF-8 keep their stray bytes as lone surrogates.

    Raises:
        ServiceError: it is no JSON.
    """
    try:
        return json.loads(content)  # msgspec refuses lone surrogates
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"expected JSON from the service, got {content[:80]!r} ({error})") from error


def verdict_of(values: Any) -> Verdict:
    """The verdict of which ``values`` is the :meth:`Verdict.to_dict`.

    Raises:
        ServiceError: another format, or a key that is missing or of a wrong type.
    """
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        got = values.get("format") if isinstance(values, dict) else values
        raise ServiceError(f"expected a verdict of format {FORMAT} from the service, got {str(got)[:80]!r}")
    return _convert({**values, "top": values.get("top") or (), "stages": values.get("stages") or ()}, Verdict)


def change_of(values: Any) -> Change:
    """The :class:`Change` that a verdict's JSON with further keys beside its own says.

    Raises:
        ServiceError: a key is missing or of a wrong type.
    """
    return _convert({**values, "verdict": verdict_of(values)} if isinstance(values, dict) else values, Change)


def track_of(values: Any) -> KnownTrack:
    """The :class:`KnownTrack` that an answer of ``/v1/tracks`` says.

    Raises:
        ServiceError: a key is missing or of a wrong type.
    """
    if isinstance(values, dict):
        values = {**values, "verdict": verdict_of(values) if "format" in values else None}
    return _convert(values, KnownTrack)


def page_of(values: Any) -> Page:
    """The :class:`Page` that an answer of ``/v1/verdicts`` says.

    Raises:
        ServiceError: a key is missing or of a wrong type.
    """
    page = _convert(values, _Page)
    return Page(tuple(map(change_of, page.verdicts)), page.next, page.more)


def version_of(values: Any) -> Version:
    """The :class:`Version` that an answer says.

    Raises:
        ServiceError: a key is missing or of a wrong type.
    """
    return _convert(values, Version)


def scan_of(values: Any) -> Scan:
    """The :class:`Scan` that an answer says.

    Raises:
        ServiceError: a key is missing or of a wrong type.
    """
    return _convert(values, Scan)


class _Page(msgspec.Struct):
    verdicts: list[dict[str, Any]]
    next: int
    more: bool


def _convert(values: Any, wanted: type[T]) -> T:
    try:
        return msgspec.convert(values, wanted)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ServiceError(f"expected a {wanted.__name__.strip('_').lower()} from the service: {error}") from error
