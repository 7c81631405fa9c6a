"""Whether what arrives may be unpacked and run. Asked before anything of it is opened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_reclass_appliance import places
from edge_reclass_appliance.errors import ApplianceError
from edge_reclass_appliance.saying import Steps
from edge_reclass_appliance.signatures import (
    NOT_CHECKED,
    Release,
    SignatureError,
    Trust,
    check_file,
    opened,
    signed_release,
)

_LIBRARY, _WHEELHOUSE = "usr/lib/edge-reclass", "usr/share/edge-reclass/wheelhouse"


def packaged(root: Path) -> Path | None:
    """The wheelhouse of the Debian package that this program itself is from; None where it is from elsewhere."""
    folder = root / _WHEELHOUSE
    ours = Path(__file__).resolve().parents[1] == (root / _LIBRARY).resolve()
    return folder if ours and folder.is_dir() else None


def _packaged_release(folder: Path) -> Release | None:
    """The release that a package is of, as its manifest says; None where a package made before says nothing of it."""
    file = folder / "manifest.json"
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        return Release(said["project"], said["version"], int(said["sequence"]), ()) if "sequence" in said else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ApplianceError(
            f"{file} cannot be read: the package is damaged", "sudo dpkg -i edge-reclass_*.deb   (again)"
        ) from error


@contextmanager
def checked(source: Path, trust: Trust, steps: Steps) -> Iterator[Path]:
    """A wheelhouse or bundle as it may be unpacked, after one line that says what was checked.

    What the ``with`` block installed without an error is remembered: nothing older comes after it unasked.

    Raises:
        ApplianceError: it is not signed by the trusted key, was altered, or is older (``NOT_TRUSTED``).
    """
    if source == packaged(trust.root):
        release = _packaged_release(source)
        if trust.key is not None:
            trust.public_key()  # a file that is not there, or another key than the trusted one, is an error
        if release is not None and not trust.insecure:
            trust.check_sequence(release)
        steps.step("note", "signed", f"{source}: came in the same package as this program")
        yield source
        if steps.check:
            return
        if release is not None:
            trust.remember(release)
        elif trust.key is not None:
            trust.store_key()
    elif source.is_dir():
        if not trust.insecure:
            raise SignatureError(
                f"{source} is a folder, and only a file can be part of a signed release",
                "give the archive with its release.json and release.json.minisig; or --insecure: nothing is checked",
            )
        steps.step("note", "signed", f"{source}: {NOT_CHECKED}")
        yield source
    elif steps.check and not trust.insecure:  # nothing is written, and nothing of it is run
        release = signed_release(source.parent, trust)
        check_file(source, release)
        steps.step("note", "signed", f"{source.name}: signed by the key {trust.public_key().id}, {release.title}")
        yield source
    else:
        with opened(source, trust, trust.root / places.BUNDLES[1:]) as copy:
            steps.step("note", "signed", copy.said)
            yield copy.path
            if copy.release is not None:
                trust.remember(copy.release)
