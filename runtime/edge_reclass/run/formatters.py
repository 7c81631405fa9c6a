"""Verdicts as a table for people, or as JSON, JSON lines or CSV for machines."""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from edge_reclass.errors import Status, UsageError
from edge_reclass.run.text import json_text, printable

if TYPE_CHECKING:
    from edge_reclass.verdict import StageReport, Verdict


@dataclass
class Formatter(ABC):
    """Text for the start, for each verdict as it comes, and for the end.

    ``genres`` and ``stages`` are those of the bundle; ``top`` genres are shown; ``utf8`` says whether the stream can
    take every character.
    """

    genres: Sequence[str]
    stages: Sequence[str]
    top: int
    explain: bool
    utf8: bool

    def begin(self) -> str:
        """What comes before the first verdict."""
        return ""

    @abstractmethod
    def verdict(self, verdict: Verdict) -> str:
        """One verdict, with the end of its line."""

    def end(self) -> str:
        """What comes behind the last verdict."""
        return ""


@dataclass
class _Table(Formatter):
    def __post_init__(self) -> None:
        genres = [self._safe(name) for name in self.genres]
        named = (*genres, *(_unsure(name) for name in genres), *Status)
        self._genre = max(map(_width, named))
        self._stage = max(_width(self._safe(name)) for name in (*self.stages, "decided by"))
        self._dash = "–" if self.utf8 else "-"

    def begin(self) -> str:
        return self._row("genre", "score", "decided by", "track")

    def verdict(self, verdict: Verdict) -> str:
        genre, score, stage = str(verdict.status), self._dash, self._dash
        if verdict.confidence is not None and verdict.top:
            best = self._safe(verdict.top[0].genre)
            genre = best if verdict.status == "ok" else _unsure(best)
            score, stage = f"{verdict.confidence:.2f}", self._safe(verdict.decided_by or self._dash)
        text = self._row(genre, score, stage, self._safe(verdict.path))
        if verdict.error:
            text += f"    {self._safe(verdict.error)}\n"
        if self.explain:
            return text + explain(verdict, max(self.top, 5), self._safe)
        others = verdict.top[1 : self.top]
        if others:
            text += "    then " + ", ".join(f"{self._safe(s.genre)} {s.score:.2f}" for s in others) + "\n"
        return text

    def _row(self, genre: str, score: str, stage: str, track: str) -> str:
        return f"{_padded(genre, self._genre)}  {score:>5}  {_padded(stage, self._stage)}  {track}\n"

    def _safe(self, text: str) -> str:
        return printable(_escapable(text, self.utf8))


def _unsure(genre: str) -> str:
    return f"unsure ({genre}?)"


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _width(text: str) -> int:
    """Columns of a terminal that ``text`` takes; a CJK character takes two."""
    from rich.cells import cell_len

    return cell_len(text)


def _escapable(text: str, utf8: bool) -> str:
    """Where the stream writes what it cannot encode as backslash escapes, a backslash of the name is doubled."""
    return text if utf8 else text.replace("\\", "\\\\")


@dataclass
class _Json(Formatter):
    """One array.

    Every piece ends with a line's end: a progress bar below it disturbs nothing, and of a run that was killed only the
    closing bracket is missing.
    """

    _separator: str = ""

    def begin(self) -> str:
        return "[\n"

    def verdict(self, verdict: Verdict) -> str:
        separator, self._separator = self._separator, ","
        return separator + _json(verdict, self.top, self.utf8)

    def end(self) -> str:
        return "]\n"


class _JsonLines(Formatter):
    def verdict(self, verdict: Verdict) -> str:
        return _json(verdict, self.top, self.utf8)


def _json(verdict: Verdict, top: int, utf8: bool) -> str:
    return json_text(verdict.to_json(top), utf8) + "\n"


def _csv_columns() -> list[str]:
    from edge_reclass.verdict import Verdict

    return [key for key in Verdict("", Status.OK, "", "").to_dict() if key != "stages"]


@dataclass
class _Csv(Formatter):
    """RFC 4180: the keys of the JSON without the stages.

    The best genres are in one column as ``Rock=0.61;Pop=0.20``, unless that only repeats the genre; the damage is the
    share of the excerpt that is missing.
    """

    _columns: list[str] = field(default_factory=_csv_columns)

    def begin(self) -> str:
        return _csv_line(self._columns)

    def verdict(self, verdict: Verdict) -> str:
        plain = verdict.to_dict(self.top)
        scores = [] if self.top == 1 and verdict.status == "ok" else plain["top"] or []
        plain["top"] = ";".join(f"{s['genre']}={s['score']:.6f}" for s in scores)
        if verdict.confidence is not None:
            plain["confidence"] = f"{verdict.confidence:.6f}"
        if verdict.damage is not None:
            plain["damage"] = f"{verdict.damage.missing:.6f}"
        cells = ("" if plain[name] is None else str(plain[name]) for name in self._columns)
        return _csv_line([_escapable(cell, self.utf8) for cell in cells])


def _csv_line(values: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue()


FORMATS: Final[Mapping[str, type[Formatter]]] = {"table": _Table, "json": _Json, "jsonl": _JsonLines, "csv": _Csv}


def formatter(
    name: str, *, genres: Sequence[str], stages: Sequence[str], top: int, explain: bool = False, utf8: bool = True
) -> Formatter:
    """The formatter called ``name``; see :class:`Formatter`.

    Raises:
        UsageError: no such format, or ``explain`` with a format other than the table.
    """
    if explain and name != "table":
        raise UsageError(f"--explain goes with the table; json and jsonl have the stages' answers already, got {name}")
    if name not in FORMATS:
        raise UsageError(f"--format: expected one of {', '.join(FORMATS)}, got {name!r}")
    return FORMATS[name](genres, stages, top, explain, utf8)


def explain(verdict: Verdict, top: int = 5, safe: Callable[[str], str] = printable) -> str:
    """What each stage said, why the cascade stopped, how long each part took, and the best ``top`` genres.

    ``safe`` makes a name fit to be printed.
    """
    lines = []
    if verdict.decode_milliseconds is not None:
        lines.append(f"decode {verdict.decode_milliseconds:.1f} ms")
    if (damage := verdict.damage) is not None:
        bad = f"{damage.bad_packets} of {damage.packets} packets are bad"
        ends = "" if damage.declared is None else f", the file ends before its {damage.declared:.1f} s"
        lines.append(f"damaged: {bad}, {damage.missing:.1%} of the excerpt is missing{ends}")
    if verdict.channel is not None:
        lines.append(f"channel {verdict.channel} was heard alone, because the mix of all cancels")
    for stage in verdict.stages:
        end = stage.excerpt.start + stage.excerpt.seconds
        said = "silence" if stage.genre is None else f"{safe(stage.genre)} {stage.confidence:.3f}"
        line = f"{safe(stage.name)}: {said}, {stage.milliseconds:.1f} ms, heard {_windows(stage)}"
        line += f"{stage.excerpt.start:.2f}–{end:.2f} s"
        none = ", abstains: it took this for a genre that the bundle does not have" if stage.abstains else ""
        lines.append(line + none + _range(stage))
    if verdict.reason is not None:
        lines.append(f"{'unsure' if verdict.status == 'unsure' else 'stopped'}: {safe(verdict.reason)}")
    if verdict.top:
        lines.append("scores: " + ", ".join(f"{safe(s.genre)} {s.score:.3f}" for s in verdict.top[:top]))
    return "".join(f"    {line}\n" for line in lines)


def _windows(stage: StageReport) -> str:
    """How much of its excerpt a stage heard; empty where it takes all at once."""
    if stage.windows is None or stage.windows.of == 1:
        return ""
    return f"{stage.windows.heard} of {stage.windows.of} windows of "


def _range(stage: StageReport) -> str:
    """How like what its head was fitted on a stage found the track; empty where there is no test."""
    distance = "" if stage.distance is None else f" ({stage.distance:.2f} of the limit)"
    if stage.outside:
        return f", unlike anything that it was fitted on{distance}"
    return f", like what it was fitted on{distance}" if distance else ""
