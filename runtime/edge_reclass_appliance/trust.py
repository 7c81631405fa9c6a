"""Whether what arrives may be unpacked and run. Asked before anything of it is opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_reclass_appliance import places
from edge_reclass_appliance.saying import Steps
from edge_reclass_appliance.signatures import NOT_CHECKED, SignatureError, Trust, check_file, opened, signed_release

_LIBRARY, _WHEELHOUSE = "usr/lib/edge-reclass", "usr/share/edge-reclass/wheelhouse"


def packaged(root: Path) -> Path | None:
    """The wheelhouse of the Debian package that this program itself is from; None where it is from elsewhere."""
    folder = root / _WHEELHOUSE
    ours = Path(__file__).resolve().parents[1] == (root / _LIBRARY).resolve()
    return folder if ours and folder.is_dir() else None


@contextmanager
def checked(source: Path, trust: Trust, steps: Steps) -> Iterator[Path]:
    """A wheelhouse or bundle as it may be unpacked, after one line that says what was checked.

    What the ``with`` block installed without an error is remembered: nothing older comes after it unasked.

    Raises:
        ApplianceError: it is not signed by the trusted key, was altered, or is older (``NOT_TRUSTED``).
    """
    if source == packaged(trust.root):
        steps.step("note", "signed", f"{source}: came in the same package as this program")
        yield source
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
