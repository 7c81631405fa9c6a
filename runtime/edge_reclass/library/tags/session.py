"""One run of ``tag``: what becomes of each candidate, and writing those that are to be written."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from edge_reclass.audio import audio_hash
from edge_reclass.errors import EdgeReclassError, Word
from edge_reclass.library.journal import Journal
from edge_reclass.library.state import State
from edge_reclass.library.tags.content import Change, Refused
from edge_reclass.library.tags.names import NameRefused
from edge_reclass.library.tags.plan import Candidate, Rules
from edge_reclass.library.tags.writing import COMMAND, Found, check_writable, look, write, written_by_us


class Fate(Word):
    """What becomes of a file."""

    CHANGE = "change"
    SAME = "same"
    """It has this genre, or with ``fill`` another one."""
    UNSURE = "unsure"
    """There is no genre for it, or none that is sure enough."""
    TWICE = "twice"
    """Another path leads to the same file."""
    LINKED = "linked"
    """It has several names (hard links), which would no longer be one file."""
    REFUSED = "refused"


@dataclass(frozen=True)
class Outcome:
    """What becomes of one candidate: ``change`` and ``found`` where its file changes, ``reason`` where it does not."""

    candidate: Candidate
    fate: Fate
    reason: str | None = None
    found: Found | None = None
    change: Change | None = None


class Session:
    """Decides about one file after another, and writes.

    Args:
        rules: which genres go where.
        roots: what the user named; links that lead out of it are refused.
        state: where the candidates come from, if it is a state.
        rows: paths and rows of the state's tracks: those that lead to one file are noted together.
        journal: for writing; None for a dry run.
        break_links: write files that have several names, under the one that is listed.
        keep_mtime: leave the times of files as they were.
        by_another: another user writes, so that it is not asked whether we may.
    """

    def __init__(
        self,
        rules: Rules,
        roots: Iterable[Path],
        *,
        state: State | None = None,
        rows: Sequence[tuple[Path, int]] = (),
        journal: Journal | None = None,
        break_links: bool = False,
        keep_mtime: bool = False,
        by_another: bool = False,
    ) -> None:
        self.rules = rules
        self._roots = {os.path.realpath(root) for root in roots}
        self._state = state
        self._journal = journal
        self._break_links, self._keep_mtime, self._by_another = break_links, keep_mtime, by_another
        self._rows: dict[Path, list[int]] = defaultdict(list)
        for path, row in rows:
            self._rows[_real(path)].append(row)
        self._done: set[Path] = set()
        self._watched: set[Path] = set()
        self.genres: set[str] = set()
        """The genres that tracks have had so far, and in ``names`` as they are written."""
        self.names: set[str] = set()
        self.run: int | None = None
        """Its number in the journal, once something was written."""

    def decide(self, candidate: Candidate) -> Outcome:
        """What is to become of a file. Nothing is written."""
        return _refused_where_it_fails(candidate, lambda: self._decide(candidate))

    def _decide(self, candidate: Candidate) -> Outcome:
        if (ours := candidate.genre) is not None:
            self.genres.add(ours)
        genres = self.rules.genres(candidate)
        self.names.update(genres)
        if not genres:
            return Outcome(candidate, Fate.UNSURE)
        path = _real(candidate.path)
        if path in self._done:
            return Outcome(candidate, Fate.TWICE)
        self._done.add(path)
        if self._roots.isdisjoint(map(str, (path, *path.parents))):
            raise Refused(f"it is a link that leads out of what was named, to {path}; name that")
        found = look(path)
        change = self.rules.change(found.inventory, genres)
        if change is None:
            return Outcome(candidate, Fate.SAME)
        change = self._with_original(change, found)
        if not self._by_another:
            check_writable(path, found.status)
        self._check_unchanged(candidate, found)
        if found.status.st_nlink > 1 and not self._break_links:
            return Outcome(candidate, Fate.LINKED, f"it has {found.status.st_nlink} names", found, change)
        return Outcome(candidate, Fate.CHANGE, None, found, change)

    def write(self, outcome: Outcome) -> Outcome:
        """Write what was decided; the outcome, which may be a refusal now.

        Raises:
            EdgeReclassError: the journal cannot be written.
        """
        if outcome.found is None or outcome.change is None or self._journal is None:
            raise ValueError("there is nothing to write, or nowhere to note it")
        found, change, journal = outcome.found, outcome.change, self._journal
        path = found.path
        if self.run is None:
            self.run = journal.begin(COMMAND)
        if path.parent not in self._watched:
            journal.watch(self.run, [path.parent])
            self._watched.add(path.parent)
        rows, run = self._rows.get(path, ()), self.run

        def written() -> Outcome:
            write(found, change, journal, run, tracks=rows, keep_mtime=self._keep_mtime)
            return outcome

        return _refused_where_it_fails(outcome.candidate, written)

    def _with_original(self, change: Change, found: Found) -> Change:
        """What is kept is the user's: of what we wrote ourselves, that is what was there before."""
        step = None if self._journal is None or not change.original else self._journal.latest(found.path)
        if step is None or step.what["new"]["mtime_ns"] != found.status.st_mtime_ns:
            return change
        return replace(change, original=tuple(step.what["before"]))

    def _check_unchanged(self, candidate: Candidate, found: Found) -> None:
        """The genre is of the file as it was listed; who changed its tags since does not matter, its sound does."""
        status = found.status
        if candidate.mtime_ns is None or (candidate.size, candidate.mtime_ns) == (status.st_size, status.st_mtime_ns):
            return
        if self._journal is not None and written_by_us(self._journal, found.path, status):
            return
        if self._state is not None and candidate.track is not None:
            known = self._state.audio_hash(candidate.track)
            if known is not None and known == audio_hash(found.path):
                return
        raise Refused("it has changed since it was listed; classify it again")


def _refused_where_it_fails(candidate: Candidate, act: Callable[[], Outcome]) -> Outcome:
    """What ``act`` gives; one file that nobody foresaw does not stop the others."""
    try:
        return act()
    except (Refused, NameRefused) as error:
        reason = str(error)
    except EdgeReclassError:  # the journal or the state
        raise
    except Exception as error:
        reason = f"cannot be handled ({type(error).__name__}: {error})"
    return Outcome(candidate, Fate.REFUSED, reason)


def _real(path: Path) -> Path:
    """The file that a path leads to. Files are seldom links: their folder is resolved once."""
    folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100
    plain = os.path.join(_real_folder(folder), name)  # noqa: PTH118
    return Path(os.path.realpath(plain) if os.path.islink(plain) else plain)  # noqa: PTH114


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)
