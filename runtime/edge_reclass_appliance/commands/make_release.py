"""``make-release``: lists the files of a folder and signs the list; for whoever makes a release."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from edge_reclass_appliance import unpacking
from edge_reclass_appliance.errors import ApplianceError, usage
from edge_reclass_appliance.signatures import MANIFEST, SIGNATURE, made_release

HELP = "List the files of a folder in a release.json, and sign it with minisign."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``make-release``."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="holds the files of the release and nothing else")
    parser.add_argument("--version", required=True, help="the release's version")
    parser.add_argument(
        "--name",
        default="edge-reclass",
        help="what this is a release of: edge-reclass, or the name of a bundle [default: %(default)s]",
    )
    parser.add_argument(
        "--sequence",
        type=int,
        metavar="N",
        help="grows with every release of that name; a device refuses a smaller one [default: that of the wheelhouses "
        "in the folder, else $SOURCE_DATE_EPOCH, else the seconds since 1970]",
    )
    parser.add_argument(
        "--sign", type=Path, metavar="KEYFILE", help="minisign's secret key; minisign asks for its password"
    )


def run(options: argparse.Namespace) -> int:
    """Write ``release.json`` and sign it; gives the exit code."""
    folder, key = options.folder, options.sign
    if not folder.is_dir():
        raise usage(f"{folder}: there is no such folder")
    minisign = shutil.which("minisign")
    if key is not None and minisign is None:
        raise ApplianceError("minisign is not installed, which signs", "sudo apt-get install minisign")
    if key is not None and not key.is_file():
        raise usage(f"--sign {key}: there is no such file", f"minisign -G -s {key}   makes a pair of keys")
    sequence = options.sequence if options.sequence is not None else _sequence(folder)
    release = made_release(folder, options.name, options.version, sequence)
    # A signature never stands beside another manifest.
    (folder / SIGNATURE).unlink(missing_ok=True)
    manifest = folder / MANIFEST
    next_one = folder / f".{MANIFEST}.next"
    next_one.write_bytes(release.to_bytes())
    next_one.replace(manifest)
    print(f"{manifest}: {release.title}, {len(release.files)} files")
    if minisign is None or key is None:
        print(f"not signed yet: minisign -S -s KEYFILE -m {manifest}   (or --sign KEYFILE)")
        return 0
    done = subprocess.run(
        [minisign, "-S", "-s", key, "-m", manifest, "-x", folder / SIGNATURE, "-t", release.title], check=False
    )
    if done.returncode != 0 or not (folder / SIGNATURE).is_file():
        (folder / SIGNATURE).unlink(missing_ok=True)
        raise ApplianceError(f"minisign could not sign {manifest} with {key} (see above)")
    print(f"{folder / SIGNATURE}: signed; check it as a device does: verify-release {folder} --key PUBLIC_KEY")
    return 0


def _sequence(folder: Path) -> int:
    """What the wheelhouses say, so that a Debian package made with them is of the same release."""
    found = []
    for archive in sorted(folder.glob("edge-reclass-*.tar")):
        try:
            said = json.loads(unpacking.read_member(archive, "manifest.json") or b"{}")
            found += [int(said["sequence"])] if "sequence" in said else []
        except (ApplianceError, OSError, ValueError, TypeError):
            continue  # no wheelhouse of ours; a release may hold anything
    return max(found) if found else _now()


def _now() -> int:
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given and not given.isdecimal():
        raise usage(f"SOURCE_DATE_EPOCH: expected seconds since 1970, got {given!r}")
    return int(given) if given else int(time.time())
