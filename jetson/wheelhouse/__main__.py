"""What jetson/make_wheelhouse.sh asks for; no command of its own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .targets import TARGETS, Target

LOCKS = Path(__file__).resolve().parent


def main() -> int:
    """Run one step; faults go to stderr, exit code 1."""
    parser = argparse.ArgumentParser(prog="wheelhouse", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("targets", help="names, in the order in which they are made")
    for step, text in (
        ("pip-options", "options of pip download"),
        ("uv-options", "options of uv pip compile"),
        ("bounds", "constraints of a resolution: the target's own, and versions of another target"),
    ):
        steps.add_parser(step, help=f"{text}, one per line").add_argument("target", choices=TARGETS)
    pack = steps.add_parser("pack", help="check a folder of wheels and make the archive")
    pack.add_argument("target", choices=TARGETS)
    pack.add_argument("--wheels", type=Path, required=True, help="third-party wheels and the project's own")
    pack.add_argument("--output", type=Path, required=True)
    pack.add_argument("--commit", default="", help="of the project's own wheel; empty where unknown")
    pack.add_argument("--modified", action="store_true", help="the checkout differs from the commit")
    pack.add_argument("--date", type=int, required=True, help="seconds since 1970")
    pack.add_argument("--deb", action="store_true", help="make a Debian package too")
    pack.add_argument("--new-lock", type=Path, help="write this lock from the wheels, instead of reading the committed")
    arguments = parser.parse_args()
    if arguments.step == "targets":
        print("\n".join(TARGETS))
        return 0
    target = TARGETS[arguments.target]
    if arguments.step == "pip-options":
        print("\n".join(target.pip_options()))
    elif arguments.step == "uv-options":
        print("\n".join(target.uv_options()))
    elif arguments.step == "bounds":
        print("\n".join(bounds(target)))
    else:
        return _pack(target, arguments)
    return 0


def bounds(target: Target) -> list[str]:
    """Constraints of a resolution for ``target``."""
    from .lock import read_lock

    lines = list(target.bounds)
    if target.versions_of is not None:
        wheels = read_lock(LOCKS / f"{target.versions_of}.lock")
        lines += [f"{wheel.name}=={wheel.version}" for wheel in wheels]
    return lines


def _pack(target: Target, arguments: argparse.Namespace) -> int:
    from .archive import Source, pack
    from .contents import PROJECT, faults, read_wheels
    from .deb import pack_deb
    from .lock import LockError, lock_text, read_lock

    try:
        wheels = read_wheels(arguments.wheels)
        third_party = [wheel.locked for wheel in wheels if wheel.name != PROJECT]
        locked = third_party if arguments.new_lock else read_lock(LOCKS / f"{target.name}.lock")
    except (LockError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found = list(faults(target, wheels, locked))
    if found:
        print(f"error: {target.name} cannot be installed from these wheels:", file=sys.stderr)
        for fault in found:
            print(f"  {fault}", file=sys.stderr)
        if not arguments.new_lock:
            print(f"fix it with: jetson/make_wheelhouse.sh {target.name} --update", file=sys.stderr)
        return 1
    if arguments.new_lock:
        arguments.new_lock.write_text(lock_text(target, locked), encoding="utf-8")
    source = Source(arguments.commit or None, arguments.modified, arguments.date)
    archive = pack(target, wheels, source, arguments.output)
    if arguments.deb:
        package = pack_deb(target, wheels, source, arguments.output)
        print(f"{package.name}: {package.stat().st_size / 1e6:.1f} MB")
    for wheel in wheels:
        print(f"  {wheel.name:<18} {wheel.version:<12} {wheel.bytes / 1e6:8.2f} MB  {wheel.licence or 'not stated'}")
    print(f"{archive.name}: {len(wheels)} wheels, {archive.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
