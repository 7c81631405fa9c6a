"""Where everything lies on the machine, and its settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from edge_reclass_appliance import files
from edge_reclass_appliance.errors import usage

STATE = "/var/lib/edge-reclass"
"""What is kept; the service writes only into folders of its own in it."""
LIBRARY = f"{STATE}/library/library.state"
BUNDLES = f"{STATE}/bundles"
ENGINES = f"{STATE}/engines"
REPORTS = f"{STATE}/reports"
RUN = "/run/edge-reclass"
SOCKET = f"{RUN}/edge-reclass.sock"
CACHE = "/var/cache/edge-reclass"
ETC = "/etc/edge-reclass"
SETTINGS = f"{ETC}/provision.conf"
HOOK = f"{ETC}/on-failure"
UNITS = "/etc/systemd/system"
COMMANDS = "/usr/local/bin"

ALWAYS, BOOT, IDLE = "always", "boot", "idle"
_HOMES = ("/home/", "/root/", "/run/", "/tmp/", "/var/tmp/")
_EMPTY = ("/home", "/root", "/run", "/run/user")
"""Themselves no folder for music: the service finds nothing in them but the music's own folder."""
_TEMPORARY = ("/tmp", "/var/tmp")


@dataclass(frozen=True)
class Settings:
    """What the owner chose; kept in /etc/edge-reclass/provision.conf."""

    prefix: str = "/opt/edge-reclass"
    service_user: str = "edge-reclass"
    music: tuple[str, ...] = ("/srv/music",)
    when: str = ALWAYS
    """``always``: resident; ``boot``, ``idle``, or a time as systemd writes it: a run, which ends."""
    tags: bool = False
    """Whether approved tags are written, by a unit of its own."""
    power_mode: str = ""
    """Name of a power mode that is set at every boot; empty: none."""

    @property
    def venv(self) -> str:
        """The link to the environment that is in use."""
        return f"{self.prefix}/venv"

    @property
    def tool(self) -> str:
        """This program itself, in one file, for when there is no environment."""
        return f"{self.prefix}/bin/edge-reclass-appliance"

    @property
    def resident(self) -> bool:
        """Whether the service runs all the time."""
        return self.when == ALWAYS

    def text(self) -> str:
        """The lines of provision.conf."""
        lines = [f"PREFIX={self.prefix}", f"SERVICE_USER={self.service_user}"]
        lines += [f"MUSIC={folder}" for folder in self.music]
        lines += [f"WHEN={self.when}", f"TAGS={'yes' if self.tags else 'no'}", f"POWER_MODE={self.power_mode}"]
        return "\n".join(lines) + "\n"


def read_settings(root: Path) -> Settings:
    """The settings of an earlier run, else the defaults. The file is read, never run.

    An earlier version's ``CALENDAR`` is ``WHEN``; its ``RESULTS`` are now in the library's state.
    """
    values: dict[str, list[str]] = {}
    for key, value in re.findall(r"^([A-Z_]+)=(.*)$", files.read(root / SETTINGS[1:]), re.MULTILINE):
        values.setdefault(key, []).append(value)
    found: dict[str, object] = {}
    for field in fields(Settings):
        given = values.get(field.name.upper()) or (values.get("CALENDAR") if field.name == "when" else None)
        if given is not None:
            found[field.name] = tuple(given) if field.name == "music" else given[-1]
    if "tags" in found:
        found["tags"] = found["tags"] == "yes"
    return replace(Settings(), **found)  # type: ignore[arg-type]


def given_settings(before: Settings, given: Mapping[str, object]) -> Settings:
    """``before`` with what was given now (None: nothing), checked.

    Raises:
        ApplianceError: a value cannot work (``USAGE``).
    """
    now = replace(before, **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
    now = replace(
        now,
        music=tuple(re.sub("/+", "/", f"{folder}/")[:-1] if folder.strip("/") else folder[:1] for folder in now.music),
    )
    for folder in now.music:
        require_plain_path("--music", folder)
        if folder in _EMPTY:
            raise usage(
                f"--music: the service sees nothing of {folder} itself", f"name the music's folder: {folder}/…/Music"
            )
        if f"{folder}/".startswith(tuple(f"{one}/" for one in _TEMPORARY)):
            raise usage(
                f"--music: the service has a {folder} of its own, and the system empties it"
                if folder in _TEMPORARY
                else f"--music: {folder}: the service sees nothing of it, since its /tmp and /var/tmp are its own",
                "move the music to /srv/music",
            )
    require_plain_path("--prefix", now.prefix)
    if " " in now.prefix:
        raise usage(f"--prefix: {now.prefix!r} has a blank, which the first line of a script cannot hold")
    if f"{now.prefix}/".startswith(_HOMES):
        raise usage(f"--prefix: the service sees nothing of {now.prefix}", "provision.sh --prefix /opt/edge-reclass …")
    for folder in now.music:
        if f"{STATE}/".startswith(f"{folder.rstrip('/')}/") or f"{folder}/".startswith(f"{STATE}/"):
            raise usage(f"--music: {folder} holds, or lies in, {STATE}, which is the service's own")
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,30}", now.service_user):
        raise usage(f"--user: expected a user's name in small letters, got {now.service_user!r}")
    if now.service_user == "root":
        raise usage("--user: the service does not run as root", "provision.sh --user edge-reclass …")
    if not re.fullmatch(r"[A-Za-z0-9*:,./~ -]+", now.when):
        raise usage(
            f"--calendar: expected a time as systemd writes it, got {now.when!r}",
            "systemd-analyze calendar '*-*-* 02:30:00'",
        )
    if not re.fullmatch(r"[A-Za-z0-9_+-]*", now.power_mode):
        raise usage(f"--power-mode: expected the name of a mode, got {now.power_mode!r}", "cat /etc/nvpmodel.conf")
    return now


def require_plain_path(option: str, path: str) -> None:
    """A path that goes into a unit: nothing that systemd or a shell would read as more than a name.

    Raises:
        ApplianceError: it is not absolute, or has such a character (``USAGE``).
    """
    if not path.startswith("/"):
        raise usage(f"{option}: expected an absolute path, got {path!r}")
    if any(character in "\"'\\%$`;@" or not character.isprintable() for character in path):
        raise usage(
            f"{option}: {path!r} has a character that a systemd unit would read as more than a name",
            "use a folder without quotes, backslash, % $ ` ; @",
        )
    if {".", ".."} & set(path.split("/")):
        raise usage(f"{option}: expected a path without . and .., got {path!r}")
    if path == "/":
        raise usage(f"{option}: expected a folder, got /")


def require_folder(root: Path) -> Path:
    """``--root`` as an absolute path.

    Raises:
        ApplianceError: there is no such folder (``USAGE``).
    """
    if not root.is_dir():
        raise usage(f"--root {root}: there is no such folder")
    return root.resolve()
