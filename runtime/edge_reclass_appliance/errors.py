"""What keeps a command from being done, with the exit code that says of which kind it is."""

from __future__ import annotations

FAILED, USAGE, TO_DO, BAD_BUNDLE, UNSUPPORTED, NOT_TRUSTED = 1, 2, 3, 4, 5, 6
"""Exit codes: a step failed; wrong usage; ``--check`` found something to do; a bundle that is invalid or wrong here; a
machine that is not supported; a release that is not signed by the key that is trusted, or was altered."""


class ApplianceError(Exception):
    """A command ends here: what was wrong, the command that mends it, and the exit code."""

    def __init__(self, message: str, fix: str = "", code: int = FAILED) -> None:
        super().__init__(message)
        self.fix = fix
        self.code = code


def usage(message: str, fix: str = "") -> ApplianceError:
    """Wrong usage: nothing was changed."""
    return ApplianceError(message, fix, USAGE)
