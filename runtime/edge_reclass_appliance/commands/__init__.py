"""The commands: a module each, by the name in ``COMMANDS``.

A module offers ``HELP`` (one line), ``add_arguments(parser)`` and ``run(options) -> int`` (the exit code). It is
imported when it is called, and for the list of commands. A new command is one module and one name here.
"""

from __future__ import annotations

COMMANDS = ("provision", "bundle", "report", "power", "remove", "verify-release", "make-release")
