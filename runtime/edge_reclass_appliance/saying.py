"""What happens, one line per step, on standard error."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

State = Literal["same", "done", "todo", "note", "warning"]
_WORDS = {"same": "unchanged", "todo": "to do"}


def say(text: str) -> None:
    """One line on standard error."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class Steps:
    """The steps of a command; ``check`` is True where nothing may be written."""

    check: bool = False
    done: int = 0
    todo: int = 0
    warnings: int = 0

    def step(self, state: State, name: str, text: str) -> None:
        """Say what became of a step: unchanged, done, still to do, a note, or a warning."""
        self.done += state == "done"
        self.todo += state == "todo"
        self.warnings += state == "warning"
        say(f"{_WORDS.get(state, state):9}  {name:9} {text}")

    def settle(self, name: str, *, same: bool, now: str, todo: str) -> bool:
        """Say that a step has nothing to do, or would have; True where it is to be done now."""
        if same:
            self.step("same", name, now)
            return False
        if self.check:
            self.step("todo", name, todo)
            return False
        return True
