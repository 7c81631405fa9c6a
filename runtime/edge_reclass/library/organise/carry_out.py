"""A plan carried out, and taken back; what a kill left half done is finished or undone first."""

from __future__ import annotations

import filecmp
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_reclass.errors import UsageError
from edge_reclass.library.journal import Journal, sweep, sync_folder
from edge_reclass.library.organise import transfer
from edge_reclass.library.organise.noted import COMMAND, Noted, note
from edge_reclass.library.organise.plan import By, Plan

if TYPE_CHECKING:
    from edge_reclass.library.state import State

_BATCH: Final = 64
_SECONDS: Final = 1.0
"""What was done is committed so often; a kill in between leaves it for :func:`recover`."""

_UNITS: Final = (1, 100, 1_000, 1_000_000, 10_000_000, 1_000_000_000, 2_000_000_000)
"""Of time, in nanoseconds: of ext4, NTFS, exFAT, FAT, and what lies between."""

_GONE: Final = "it is not there any more"


@dataclass
class Outcome:
    """What was done, and what could not be."""

    run: int | None = None
    done: Counter[By] = field(default_factory=Counter)
    failed: list[tuple[Path, str]] = field(default_factory=list)


def made_by(state: State) -> dict[Path, list[Path]]:
    """For each source the links and copies that were made of it, and are still there."""
    origin: dict[Path, Path] = {}
    for entry in reversed(Journal.of_state(state).to_undo(COMMAND)):
        step = Noted.of(entry)
        if step.by is not By.MOVE:
            origin[step.target] = step.source
        elif step.source in origin:  # a copy that followed its genre
            origin[step.target] = origin.pop(step.source)
    made: dict[Path, list[Path]] = {}
    for target, source in origin.items():
        if os.path.lexists(target):
            made.setdefault(source, []).append(target)
    return made


def carry_out(state: State, plan: Plan, told: Callable[[], None] = lambda: None) -> Outcome:
    """Do what is planned, each step noted in the journal before it is taken; ``told`` is called after each.

    Raises:
        UsageError: there is too little room.
    """
    _check_room(plan)
    log, outcome = Journal.of_state(state), Outcome()
    if not plan.steps:
        return outcome
    outcome.run = run = log.begin(COMMAND)
    for at in range(0, len(plan.steps), _BATCH):
        with _Marks(state, log) as marks:
            for step in note(log, run, plan.steps[at : at + _BATCH]):
                try:
                    transfer.make_folders(plan.root, step.target.parent)
                    transfer.bring(step.by, step.source, step.target)
                except OSError as error:
                    outcome.failed.append((step.source, error.strerror or str(error)))
                    marks.dropped(step)
                else:
                    outcome.done[step.by] += 1
                    marks.done(step)
                told()
    log.tidy(COMMAND)
    return outcome


def recover(state: State) -> Outcome:
    """Settle the steps that a killed run left open: each is done to its end, or undone.

    Open are steps that were about to be done, and steps that were about to be taken back. Those of which it cannot be
    told what happened, because a disk or the file is not there, are listed, and stay open.
    """
    log, outcome = Journal.of_state(state), Outcome()
    steps = [Noted.of(entry) for entry in log.unfinished(COMMAND)]
    for folder in {folder for step in steps for folder in (step.source.parent, step.target.parent)}:
        sweep(folder)
    with _Marks(state, log) as marks:
        for step in steps:
            if (reason := _why_it_stays_open(step)) is not None:
                outcome.failed.append((step.source, reason))
                continue
            outcome.done[step.by] += 1
            row = state.track(step.target)
            was_done = row is not None and row.id == step.track
            if _settled(step, was_done):
                marks.done(step)
            elif was_done:
                marks.undone(step)
            else:
                marks.dropped(step)
    log.tidy(COMMAND)
    return outcome


def undo(state: State, run: int | None = None) -> Outcome:
    """Take back what one run, or all runs, did, newest first. What cannot be is listed, and stays.

    Raises:
        UsageError: there is no such run.
    """
    log, outcome = Journal.of_state(state), Outcome(run)
    steps = [Noted.of(entry) for entry in log.to_undo(COMMAND, run)]
    for at in range(0, len(steps), _BATCH):
        with _Marks(state, log) as marks:
            possible = []
            for step in steps[at : at + _BATCH]:
                if (reason := _why_it_stays(step)) is None:
                    possible.append(step)
                else:
                    outcome.failed.append((step.target, reason))
            marks.reopen(possible)
            for step in possible:
                try:
                    _take_back(step)
                except FileNotFoundError:
                    outcome.failed.append((step.target, _GONE))
                    marks.done(step)
                except OSError as error:
                    outcome.failed.append((step.target, error.strerror or str(error)))
                    marks.done(step)
                else:
                    outcome.done[step.by] += 1
                    marks.undone(step)
    return outcome


def _why_it_stays_open(step: Noted) -> str | None:
    if (mount := step.unmounted()) is not None:
        return f"the disk of {mount} is not mounted; mount it, and run this again"
    if step.by is By.MOVE and not os.path.lexists(step.source) and not os.path.lexists(step.target):
        return f"it is not there any more, and not at {step.target} either"
    return None


def _why_it_stays(step: Noted) -> str | None:
    if (mount := step.unmounted()) is not None:
        return f"the disk of {mount} is not mounted; mount it, and take it back then"
    if not os.path.lexists(step.target):
        # A link or copy that was moved later comes back by the steps before this one.
        return _GONE if step.by is By.MOVE else None
    if step.by is By.MOVE:
        return f"there is another file at {step.source} now" if os.path.lexists(step.source) else None
    if not step.source.exists():
        return "its original is gone: it is the last one, and stays"
    unchanged = step.source.samefile(step.target) or _is_as_noted(step.target, step)
    return None if unchanged else "it has changed since, and stays"


def _take_back(step: Noted) -> None:
    if step.by is By.MOVE:
        step.source.parent.mkdir(parents=True, exist_ok=True)
        transfer.move(step.target, step.source)
    else:
        step.target.unlink()


def _settled(step: Noted, was_done: bool) -> bool:
    """Whether the file is at the target of a step that was cut off; where it is at both ends, one of them goes."""
    if not os.path.lexists(step.target):
        return False
    if step.by is not By.MOVE:
        return _is_as_noted(step.target, step) or (step.source.exists() and step.source.samefile(step.target))
    if not os.path.lexists(step.source):
        return True
    if step.source.is_symlink() or not filecmp.cmp(step.source, step.target, shallow=False):
        return was_done  # somebody's other file: both stay
    step.source.unlink()
    return True


def _is_as_noted(file: Path, step: Noted) -> bool:
    """Size and time of the source when the step was planned; the time as exactly as the file system keeps it."""
    try:
        status = file.lstat()
    except OSError:
        return False
    times = {step.mtime_ns // unit * unit for unit in _UNITS}
    return status.st_size == step.size and status.st_mtime_ns in times


def _check_room(plan: Plan) -> None:
    """Raises: UsageError, before anything is copied to a disk that has no room for all of it."""
    there = next(parent for parent in (plan.root, *plan.root.parents) if parent.exists())
    device = there.stat().st_dev
    copies = (
        step.status.st_size
        for step in plan.steps
        if step.by is By.COPY or (step.by is By.MOVE and step.status.st_dev != device)
    )
    needed, room = sum(copies), os.statvfs(there)
    free = room.f_bavail * room.f_frsize
    if needed > free:
        raise UsageError(
            f"{plan.root}: the copies need {needed / 1e9:.2f} GB, there are {free / 1e9:.2f} GB; make room, or take"
            " --by link or reflink on the disk of the music"
        )


class _Marks:
    """Commits what became of steps, and the rows of tracks that moved, together and about once a second."""

    def __init__(self, state: State, log: Journal) -> None:
        self._state, self._log = state, log
        self._done: list[Noted] = []
        self._dropped: list[Noted] = []
        self._undone: list[Noted] = []
        self._folders: set[Path] = set()
        self._last = time.monotonic()

    def done(self, step: Noted) -> None:
        """It is done, or is still."""
        self._done.append(step)
        self._commit_sometimes()

    def dropped(self, step: Noted) -> None:
        """It was never done."""
        self._dropped.append(step)
        self._folders |= set(step.made)
        self._commit_sometimes()

    def undone(self, step: Noted) -> None:
        """It is taken back."""
        self._undone.append(step)
        self._folders |= set(step.made)
        self._commit_sometimes()

    def reopen(self, steps: list[Noted]) -> None:
        """They are about to be taken back."""
        with self._log.transaction():
            for step in steps:
                self._log.reopen(step.entry)

    def _remove_folders(self) -> None:
        """Those that were made for steps that are not, or no longer, done, unless something is in them."""
        for folder in sorted(self._folders, reverse=True):  # the inner ones first
            with suppress(OSError):
                folder.rmdir()

    def _commit_sometimes(self) -> None:
        if time.monotonic() - self._last >= _SECONDS:
            self._commit()

    def _commit(self) -> None:
        self._last = time.monotonic()
        self._remove_folders()  # first: once the journal has forgotten a step, nobody knows who made its folder
        changed = [*self._done, *self._undone]
        for folder in {folder for step in changed for folder in (step.source.parent, *step.made, step.above)}:
            with suppress(OSError):  # it is gone; or a file system that cannot
                sync_folder(folder)  # the names are on the disk before the journal says so
        with self._log.transaction():
            for step in self._done:
                self._log.done(step.entry)
                self._follow(step, step.source, step.target)
            for step in self._dropped:
                self._log.drop(step.entry)
            for step in self._undone:
                self._log.done(step.entry)
                self._log.undone(step.entry)
                self._follow(step, step.target, step.source)
        self._done, self._dropped, self._undone = [], [], []

    def _follow(self, step: Noted, old: Path, new: Path) -> None:
        """What is known of a track goes with it, if it is known where the step left it."""
        row = self._state.track(old)
        if step.by is By.MOVE and row is not None and row.id == step.track:
            with suppress(FileNotFoundError):  # gone again already: the next search says so
                self._state.moved(step.track, new, new.lstat())
                self._log.moved(old, new, but=COMMAND)

    def __enter__(self) -> _Marks:
        return self

    def __exit__(self, *_: object) -> None:
        self._commit()
