"""``verify-release``: who made these files, and are they as they were made."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge_reclass_appliance.errors import usage
from edge_reclass_appliance.signatures import NOT_CHECKED, Trust, check_file, check_folder, signed_release

HELP = "Check the signature and the files of a release, before anything of it is unpacked or run."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``verify-release``."""
    parser.add_argument("release", type=Path, metavar="FOLDER|FILE", help="a release, or one file of it")
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)
    add_trust(parser)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the options that say whom to trust; :func:`trust_of` reads them."""
    parser.add_argument(
        "--key",
        metavar="FILE|KEY",
        help="minisign public key of whoever makes the releases; stored the first time, later it must be the same",
    )
    parser.add_argument("--allow-downgrade", action="store_true", help="take a release older than the installed one")
    parser.add_argument("--insecure", action="store_true", help="check nothing: anybody may have made the files")


def trust_of(options: argparse.Namespace) -> Trust:
    """Whom the options of :func:`add_trust` say to trust."""
    return Trust(options.key, options.insecure, options.allow_downgrade, options.root)


def run(options: argparse.Namespace) -> int:
    """Check a release or one of its files; gives the exit code."""
    path, trust = options.release, trust_of(options)
    if not path.exists():
        raise usage(f"{path}: there is no such file or folder")
    if trust.insecure:
        print(f"{path}: {NOT_CHECKED}")
        return 0
    whole = path.is_dir()
    release = signed_release(path if whole else path.parent, trust)
    if whole:
        check_folder(path, release)
        checked = f"all {len(release.files)} files are as they were made"
    else:
        check_file(path, release)
        checked = f"{path.name} is as it was made"
    print(f"{release.title}: signed by the key {trust.public_key().id}, {checked}")
    _store(trust)
    return 0


def _store(trust: Trust) -> None:
    try:
        stored = trust.store_key()
    except OSError as error:
        print(f"note: the key is not stored: {trust.key_file}: {error.strerror}; with sudo it is", file=sys.stderr)
    else:
        if stored is not None:
            print(f"the key is trusted from now on: {stored}", file=sys.stderr)
