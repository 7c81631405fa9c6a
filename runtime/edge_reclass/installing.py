"""The command that adds something to this installation, so that messages name one which works on this machine.

edge-reclass is on no package index: it comes from a checkout, a wheel, or, on an appliance, from a wheelhouse.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

SETTINGS = Path("/etc/edge-reclass/provision.conf")
"""Of an appliance; ``edge-reclass-appliance provision`` writes it."""

_WHEELHOUSE = Path("/usr/share/edge-reclass/wheelhouse")
"""What a Debian package of edge-reclass lays down, and ``provision`` takes where none is named."""


def provisioned(prefix: str = sys.prefix) -> bool:
    """Whether the environment at ``prefix`` belongs to an appliance, which only ``provision`` changes."""
    try:
        found = re.search(r"^PREFIX=(.+)$", SETTINGS.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return False
    return found is not None and Path(prefix).resolve().is_relative_to(Path(found[1]).resolve())


def provision_command() -> str:
    """Makes the environment of an appliance anew, from a wheelhouse."""
    named = "" if _WHEELHOUSE.is_dir() else " --wheelhouse WHEELHOUSE.tar"
    return f"sudo edge-reclass-appliance provision --yes{named}"


def pip_command() -> str:
    """Pip of this environment, quoted for a shell."""
    return f"{shlex.quote(sys.executable or 'python3')} -m pip"


def install_command(*extras: str, options: str = "") -> str:
    """The command that installs edge-reclass with ``extras`` into this environment again.

    Args:
        *extras: such as ``codecs``.
        options: for pip, with a blank before them.
    """
    if provisioned():
        return provision_command()
    wanted = f"[{','.join(extras)}]" if extras else ""
    source, editable = _source()
    if source is not None:
        how = "-e " if editable else ""
        return f"{pip_command()} install{options} {how}{shlex.quote(str(source) + wanted)}"
    return f"{pip_command()} install{options} {shlex.quote('.' + wanted)}   (in a checkout of edge-reclass)"


def _source() -> tuple[Path | None, bool]:
    """The folder or wheel that edge-reclass was installed from (PEP 610), and whether that is a checkout in use."""
    import json  # only for messages: errors, which every start imports, has no need of these
    from importlib import metadata
    from urllib.parse import unquote, urlsplit

    try:
        origin = json.loads(metadata.distribution("edge-reclass").read_text("direct_url.json") or "{}")
        url, editable = str(origin.get("url", "")), bool(origin.get("dir_info", {}).get("editable"))
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        return None, False
    path = Path(unquote(urlsplit(url).path))
    return (path, editable) if url.startswith("file:") and path.exists() else (None, False)
