"""The command line: ``python3 -m edge_reclass_appliance COMMAND …``, and ``edge-reclass appliance COMMAND …``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from edge_reclass_appliance.commands import COMMANDS
from edge_reclass_appliance.errors import FAILED, ApplianceError

EXIT_CODES = """\
Exit codes: 0 done, or nothing to do; 1 a step failed; 2 wrong usage; 3 --check found something to do; 4 a bundle is
invalid, or does not answer as it should here; 5 the machine is not supported; 6 a release cannot be trusted."""


def command(name: str) -> Any:
    """The module of the command ``name``."""
    return importlib.import_module(f"edge_reclass_appliance.commands.{name.replace('-', '_')}")


def parser(program: str) -> argparse.ArgumentParser:
    """The command line with all commands."""
    whole = argparse.ArgumentParser(
        prog=program,
        description="Install and tend edge-reclass as a service on this machine.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = command(name)
        one = commands.add_parser(
            name,
            prog=program if program == "provision.sh" else f"{program} {name}",
            help=module.HELP,
            description=module.HELP,
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(one)
    return whole


def main(arguments: Sequence[str] | None = None, program: str = "python3 -m edge_reclass_appliance") -> int:
    """Do as the command line says; gives the exit code."""
    options = parser(program).parse_args(arguments)
    os.umask(0o022)  # the service, which is another user, reads what is made here
    try:
        return int(command(options.command).run(options))
    except ApplianceError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.fix:
            print(f"  to fix it: {error.fix}", file=sys.stderr)
        return error.code
    except OSError as error:  # what no step foresaw, such as a full disk
        print(f"error: {error}; what was in use before is still in use", file=sys.stderr)
        print("  to fix it: df -h; then run this again", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted; what was in use before is still in use", file=sys.stderr)
        return 130


def mounted() -> None:
    """Install and tend edge-reclass as a service on this machine: provision, bundle, report."""
    sys.exit(main(sys.argv[sys.argv.index("appliance") + 1 :], "edge-reclass appliance"))


mounted.takes_all_arguments = True  # type: ignore[attr-defined]  # its own parser reads them, --help included


if __name__ == "__main__":
    sys.exit(main())
