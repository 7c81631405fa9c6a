"""What ``watch --then tag`` does after a round: the genres go into the files that have none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from edge_reclass.library.journal import Journal
from edge_reclass.library.state import State
from edge_reclass.library.tags.plan import Rules, candidates, named
from edge_reclass.library.tags.session import Fate, Session
from edge_reclass.library.tags.writing import recover


def write_genres(state: State, paths: Iterable[str], say: Callable[[str], None]) -> None:
    """As ``tag STATE PATH… --write``: undoable, and nothing for what is unsure; ``say`` tells what was done.

    Raises:
        EdgeReclassError: the journal cannot be written.
    """
    listed = [(Path(path), row.id) for path in paths if (row := state.track(path)) is not None]
    journal = Journal.of_state(state)
    recover(journal)
    session = Session(Rules(), named(state, listed), state=state, rows=listed, journal=journal)
    fates: Counter[Fate] = Counter()
    try:
        for candidate in candidates(state, listed):
            outcome = session.decide(candidate)
            if outcome.fate == Fate.CHANGE:
                outcome = session.write(outcome)
            fates[outcome.fate] += 1
            if outcome.reason is not None:
                say(f"{candidate.path}: {outcome.fate}: {outcome.reason}")
    finally:
        recover(journal)
    if fates[Fate.CHANGE]:
        undo = f"edge-reclass tag {state.path} --undo --run {session.run}"
        say(f"{fates[Fate.CHANGE]} tagged; to take it back: {undo}")
