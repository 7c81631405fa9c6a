"""The verdict: the result for one track, and its JSON. Names and numbers only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from edge_reclass.errors import ANSWER_STATUSES, Status, Word

FORMAT: Final = 1
"""Of a verdict's JSON; raised when a key changes its meaning or goes."""


class ReasonCode(Word):
    """Why the cascade stopped: a stage was sure enough, or the last has answered; or why the verdict is unsure."""

    ACCEPTED = "accepted"
    LAST_STAGE = "last_stage"
    LOW_CONFIDENCE = "low_confidence"
    OUTSIDE_RANGE = "outside_range"


@dataclass(frozen=True)
class ExcerptSeen:
    """The part of the track that a stage looked at, in seconds."""

    start: float
    seconds: float


@dataclass(frozen=True)
class WindowsSeen:
    """How many windows of its excerpt a stage heard, ``of`` as many as the excerpt has; silent ones are not heard.

    A stage that takes the excerpt at once hears 1 of 1.
    """

    heard: int
    of: int


@dataclass(frozen=True)
class DamageSeen:
    """What is wrong with a file that could be decoded all the same.

    ``bad_packets`` of the ``packets`` that were read for the excerpt could not be decoded. ``missing`` is the share of
    its samples, 0 to 1, in whose place are zeros. ``declared`` is how long the file says it is, in seconds, where it
    ends earlier.
    """

    bad_packets: int
    packets: int
    missing: float
    declared: float | None = None


@dataclass(frozen=True)
class Score:
    """One genre and its score under the policy's vote, 0 to 1."""

    genre: str
    score: float


@dataclass(frozen=True)
class Part:
    """What one part of a stage's work on one track took.

    By the host's clock: ``resample`` (only where it was done), ``features`` (fma518), ``fill`` (the windows into the
    device's input), ``run`` (copy in, compute and copy out, to the end), ``batch`` (instead of fill and run where
    tracks share a batch: from asking to having, waiting included), ``head``, ``policy``. By the device's clock, where
    it was asked for, and within ``run``: ``copy_in``, ``compute``, ``copy_out``.
    """

    name: str
    milliseconds: float
    clock: Literal["host", "device"] = "host"


@dataclass(frozen=True)
class StageReport:
    """What one stage said, how long it took (resampling, encoder and head), and what it looked at.

    ``excerpt`` is what was located, ``windows`` how much of it was heard when the stage spoke last.

    ``genre`` and ``confidence`` are None where the stage heard only silence; it then has no part in the verdict.
    ``outside``: what it heard is unlike anything that its head was fitted on; ``distance`` is how far, as a multiple of
    the limit, and None where there is no test or nothing to measure. ``abstains``: its head took the track for a genre
    that the bundle does not have, and ``genre`` is the nearest that it has. ``parts`` is for measurements,
    ``embedding`` for those who asked for it (float16, little endian, the mean over the windows that were heard);
    neither is part of the JSON.
    """

    name: str
    genre: str | None
    confidence: float | None
    milliseconds: float
    excerpt: ExcerptSeen
    parts: tuple[Part, ...] = ()
    outside: bool = False
    distance: float | None = None
    windows: WindowsSeen | None = None
    embedding: bytes | None = field(default=None, compare=False, repr=False)
    abstains: bool = False


@dataclass(frozen=True)
class Verdict:
    """The result for one track.

    What does not apply to a status is None or empty. An ``unsure`` verdict has no genre; ``top`` says what it would
    have been, ``confidence`` with which score. ``reason`` says in words why the cascade stopped or is unsure.
    ``stages`` holds the stages that ran, also where a later one failed. ``damage`` is what could not be decoded of the
    excerpt; ``channel`` is the channel that was heard alone because the mix of all cancels.

    ``bundle_digest`` names the exact content of the bundle, ``program`` what classified, ``at`` when (UTC), ``size``
    (bytes) and ``mtime_ns`` the file as it was then; both are None for audio in memory and files that are not there.
    ``decode_milliseconds`` is for people (``--explain``) and not part of the JSON.
    """

    path: str
    status: Status
    bundle: str
    policy: str
    genre: str | None = None
    confidence: float | None = None
    decided_by: str | None = None
    reason: str | None = None
    reason_code: ReasonCode | None = None
    top: tuple[Score, ...] = ()
    stages: tuple[StageReport, ...] = ()
    damage: DamageSeen | None = None
    channel: int | None = None
    error: str | None = None
    bundle_digest: str | None = None
    program: str | None = None
    at: str | None = None
    size: int | None = None
    mtime_ns: int | None = None
    decode_milliseconds: float | None = None

    @property
    def ok(self) -> bool:
        """True if the track got a genre."""
        return self.status == Status.OK

    @property
    def failed(self) -> bool:
        """True if the track could not be classified (exit code 3), False for an answer."""
        return self.status not in ANSWER_STATUSES

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """The verdict as plain values, keys in the documented order; at most ``top`` genres if given."""
        scores = self.top if top is None else self.top[:top]
        return {
            "path": self.path,
            "status": self.status,
            "genre": self.genre,
            "confidence": _rounded(self.confidence, 6),
            "decided_by": self.decided_by,
            "reason": self.reason,
            "reason_code": self.reason_code,
            "top": [{"genre": s.genre, "score": _rounded(s.score, 6)} for s in scores] if scores else None,
            "stages": [_stage_dict(stage) for stage in self.stages] if self.stages else None,
            "damage": None if self.damage is None else _damage_dict(self.damage),
            "channel": self.channel,
            "bundle": self.bundle,
            "policy": self.policy,
            "error": self.error,
            "format": FORMAT,
            "bundle_digest": self.bundle_digest,
            "program": self.program,
            "at": self.at,
            "size": self.size,
            "mtime_ns": self.mtime_ns,
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Verdict:
        """The verdict of which ``plain`` is the :meth:`to_dict`, as far as it holds it.

        Raises:
            ValueError: another ``format``, or a key that is missing, unknown or of a wrong type.
        """
        if (got := plain.get("format")) != FORMAT:
            raise ValueError(f"a verdict of format {got!r}, expected {FORMAT}")
        try:
            values = dict(plain)
            del values["format"]
            values["status"] = Status(values["status"])
            values["reason_code"] = None if values["reason_code"] is None else ReasonCode(values["reason_code"])
            values["top"] = tuple(Score(**score) for score in values["top"] or ())
            values["stages"] = tuple(map(_stage_report, values["stages"] or ()))
            values["damage"] = None if values["damage"] is None else DamageSeen(**values["damage"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a verdict: {error}") from error

    @staticmethod
    def json_schema() -> dict[str, Any]:
        """The JSON Schema (2020-12) of :meth:`to_dict`, made from the types of these classes."""
        return _json_schema()

    def to_json(self, top: int | None = None) -> str:
        """One line of JSON. A path that is not valid UTF-8 is kept, its stray bytes as escapes of lone surrogates."""
        plain = self.to_dict(top)
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
        if any("\ud800" <= character <= "\udfff" for character in text):
            return json.dumps(plain, ensure_ascii=True, allow_nan=False)
        return text


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _json_schema() -> dict[str, Any]:
    import msgspec

    (schema,), parts = msgspec.json.schema_components([Verdict], ref_template="#/$defs/{name}")
    del parts["Part"], schema
    for name, hidden in (("Verdict", "decode_milliseconds"), ("StageReport", "parts"), ("StageReport", "embedding")):
        del parts[name]["properties"][hidden]
    verdict = parts.pop("Verdict")
    verdict["properties"] = {"format": {"const": FORMAT}, **verdict["properties"]}
    for part in (verdict, *parts.values()):
        part.pop("description", None)
        if "properties" in part:
            part["required"] = sorted(part["properties"])
            part["additionalProperties"] = False
            for property_ in part["properties"].values():
                property_.pop("default", None)
    for many in ("top", "stages"):  # empty ones are null
        verdict["properties"][many] = {"anyOf": [verdict["properties"][many], {"type": "null"}]}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**head, **verdict, "title": "What edge-reclass says of one track", "$defs": parts}


def _damage_dict(damage: DamageSeen) -> dict[str, Any]:
    return {
        "bad_packets": damage.bad_packets,
        "packets": damage.packets,
        "missing": _rounded(damage.missing, 6),
        "declared": _rounded(damage.declared, 3),
    }


def _stage_report(plain: Mapping[str, Any]) -> StageReport:
    windows = plain.get("windows")  # verdicts of 0.1 do not have it
    seen = ExcerptSeen(**plain["excerpt"]), None if windows is None else WindowsSeen(**windows)
    return StageReport(**{**plain, "excerpt": seen[0], "windows": seen[1]})


def _stage_dict(stage: StageReport) -> dict[str, Any]:
    return {
        "name": stage.name,
        "genre": stage.genre,
        "confidence": _rounded(stage.confidence, 6),
        "milliseconds": _rounded(stage.milliseconds, 3),
        "excerpt": {
            "start": _rounded(stage.excerpt.start, 6),
            "seconds": _rounded(stage.excerpt.seconds, 6),
        },
        "windows": None if stage.windows is None else {"heard": stage.windows.heard, "of": stage.windows.of},
        "outside": stage.outside,
        "distance": _rounded(stage.distance, 4),
        "abstains": stage.abstains,
    }
