"""Plans of genres to be written: made by one program, approved by a person, carried out by another program.

A plan lies in the state. Carrying it out writes what was approved and nothing else: each file is looked at again, and
one that would get another genre now, or that has changed, is left as it is.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from edge_reclass.errors import UsageError
from edge_reclass.library.journal import Journal
from edge_reclass.library.state import State, now
from edge_reclass.library.tags.plan import Candidate, Mode, Rules, named, of_state
from edge_reclass.library.tags.session import Fate, Outcome, Session
from edge_reclass.library.tags.writing import recover

Status = Literal["preparing", "ready", "failed", "approved", "applied"]

WRITTEN: Final = "written"
"""Outcome of a step."""

_Path = Annotated[str, msgspec.Meta(max_length=4096, pattern="^/[^\\x00]*$")]


class PlanRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which genres would go into which tracks of a state, by default into all that have none."""

    paths: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=4096, pattern="^/[^\\x00]*$")]], msgspec.Meta(max_length=2000)
    ] = []
    """Tracks, and folders; none: all tracks."""
    mode: Mode = "fill"
    min_confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0

    @property
    def rules(self) -> Rules:
        """As ``tag`` has them."""
        return Rules(self.mode, self.min_confidence)


class PlanStep(msgspec.Struct):
    """One file: the genres that it has, those that it is to have, and what became of it."""

    path: str
    before: list[str]
    genres: list[str]
    outcome: str | None = None
    """``written``, or why not; None before."""


class TagPlan(msgspec.Struct):
    """A plan; ``files`` is how many it would write."""

    id: int
    status: Status
    request: PlanRequest
    asked: str
    approved: str | None
    applied: str | None
    run: int | None
    """What ``tag STATE --undo --run`` takes."""
    error: str | None
    files: int


@dataclass(frozen=True)
class Applied:
    """What became of a plan's files."""

    written: int
    left: dict[str, str]
    """Paths that were left as they were, and why."""


class TagPlans:
    """The plans in a state that is open; for writing, but for :meth:`prepare`, :meth:`plans` and :meth:`steps`."""

    def __init__(self, state: State) -> None:
        self._state = state

    def add(self, request: PlanRequest) -> int:
        """A new plan, which is still to be prepared; its number."""
        with self._state.transaction():
            row = self._state.connection.execute(
                "INSERT INTO tag_plan (request, status, asked) VALUES (?, 'preparing', ?) RETURNING id",
                (msgspec.json.encode(request).decode(), now()),
            ).fetchone()
        return int(row[0])

    def prepare(
        self, request: PlanRequest, roots: Iterable[Path], goes_on: Callable[[], bool] = lambda: True
    ) -> list[PlanStep]:
        """What a plan is to hold; the state is only read, and so are the files.

        Args:
            roots: links that lead out of them are refused.
            goes_on: asked at each track; where it says no, what is there by then is given.

        Raises:
            MissingExtraError: mutagen is not installed.
        """
        from edge_reclass.library.tags.reading import import_mutagen

        import_mutagen()
        listed = of_state(self._state, map(Path, request.paths))
        log = Journal.of_state(self._state)
        session = Session(request.rules, roots, state=self._state, rows=listed, journal=log, by_another=True)
        steps = []
        for path, _ in listed:
            if not goes_on():
                break
            outcome = _decided(self._state, session, path)
            if outcome is not None and outcome.fate == Fate.CHANGE and outcome.change is not None and outcome.found:
                before = list(outcome.found.inventory.genres)
                steps.append(PlanStep(os.fspath(path), before, list(outcome.change.genres)))
        return steps

    def fill(self, number: int, steps: Sequence[PlanStep]) -> None:
        """The plan is prepared, and may be approved."""
        with self._state.transaction():
            self._state.connection.executemany(
                "INSERT INTO tag_plan_step (plan, number, path, before, genres) VALUES (?, ?, ?, ?, ?)",
                [
                    (number, at, os.fsencode(step.path), json.dumps(step.before), json.dumps(step.genres))
                    for at, step in enumerate(steps)
                ],
            )
            self._state.connection.execute("UPDATE tag_plan SET status = 'ready' WHERE id = ?", (number,))

    def fail(self, number: int | None, error: str) -> None:
        """A plan, or with None each that is being prepared, will not be."""
        with self._state.transaction():
            self._state.connection.execute(
                "UPDATE tag_plan SET status = 'failed', error = ? WHERE id = coalesce(?, id) AND status = 'preparing'",
                (error, number),
            )

    def approve(self, number: int) -> bool:
        """A person approves of a plan; False where it is not ready to be."""
        with self._state.transaction():
            return (
                self._state.connection.execute(
                    "UPDATE tag_plan SET status = 'approved', approved = ? WHERE id = ? AND status = 'ready'",
                    (now(), number),
                ).rowcount
                == 1
            )

    def plans(self, *, status: Status | None = None, number: int | None = None) -> list[TagPlan]:
        """The plans of a status, or all, or the one of a number; newest first."""
        rows = self._state.connection.execute(
            "SELECT id, status, request, asked, approved, applied, run, error,"
            " (SELECT count(*) FROM tag_plan_step WHERE plan = id) FROM tag_plan"
            " WHERE status = coalesce(?, status) AND id = coalesce(?, id) ORDER BY id DESC",
            (status, number),
        ).fetchall()
        return [
            TagPlan(
                number, kind, msgspec.json.decode(request, type=PlanRequest), asked, approved, applied, run, error, n
            )
            for number, kind, request, asked, approved, applied, run, error, n in rows
        ]

    def steps(self, number: int, offset: int = 0, limit: int = -1) -> list[PlanStep]:
        """The files of a plan; ``limit`` -1: all from ``offset`` on."""
        rows = self._state.connection.execute(
            "SELECT path, before, genres, outcome FROM tag_plan_step WHERE plan = ? AND number >= ?"
            " ORDER BY number LIMIT ?",
            (number, offset, limit),
        ).fetchall()
        return [
            PlanStep(os.fsdecode(path), json.loads(before), json.loads(genres), outcome)
            for path, before, genres, outcome in rows
        ]

    def carry_out(self, number: int, between: Callable[[], None] = lambda: None) -> Applied:
        """Write what was approved, where it is still what would be written; undoable as every run of ``tag``.

        Called again after a crash or an interruption, it goes on.

        Args:
            between: called before each file, never within a transaction; what it raises ends it.

        Raises:
            UsageError: there is no approved plan of this number.
            MissingExtraError: mutagen is not installed.
            EdgeReclassError: the state cannot be written.
        """
        from edge_reclass.library.tags.reading import import_mutagen

        import_mutagen()
        found = self.plans(status="approved", number=number)
        if not found:
            raise UsageError(f"{self._state.path}: there is no approved plan {number}")
        listed = of_state(self._state, [])
        journal = Journal.of_state(self._state)
        recover(journal)
        session = Session(
            found[0].request.rules, named(self._state, listed), state=self._state, rows=listed, journal=journal
        )
        try:
            for at, step in enumerate(self.steps(number)):
                between()
                if step.outcome is None:
                    _note(self._state, number, at, _carried_out(self._state, session, step), session.run)
        finally:
            recover(journal)
        with self._state.transaction():
            self._state.connection.execute(
                "UPDATE tag_plan SET status = 'applied', applied = ? WHERE id = ?", (now(), number)
            )
        outcomes = {step.path: step.outcome or "" for step in self.steps(number)}
        counts = Counter(outcomes.values())
        return Applied(counts[WRITTEN], {path: said for path, said in outcomes.items() if said != WRITTEN})


def _carried_out(state: State, session: Session, step: PlanStep) -> str:
    outcome = _decided(state, session, Path(step.path))
    if outcome is None:
        return "the state does not know it any more"
    if outcome.fate != Fate.CHANGE or outcome.change is None:
        return outcome.reason or {Fate.SAME: "it has this genre, or another one, by now"}.get(
            outcome.fate, outcome.fate
        )
    if list(outcome.change.genres) != step.genres:
        return f"it would get {', '.join(outcome.change.genres)} now, and {', '.join(step.genres)} was approved"
    written = session.write(outcome)
    return WRITTEN if written.fate == Fate.CHANGE else written.reason or str(written.fate)


def _decided(state: State, session: Session, path: Path) -> Outcome | None:
    row = state.track(path)
    if row is None:
        return None
    return session.decide(Candidate(path, row.verdict, row.corrected, row.size, row.mtime_ns, row.id))


def _note(state: State, number: int, at: int, outcome: str, run: int | None) -> None:
    with state.transaction():
        state.connection.execute(
            "UPDATE tag_plan_step SET outcome = ? WHERE plan = ? AND number = ?", (outcome, number, at)
        )
        state.connection.execute("UPDATE tag_plan SET run = coalesce(?, run) WHERE id = ?", (run, number))
