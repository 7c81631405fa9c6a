#!/usr/bin/env python3
"""Device profiles (jetson/devices/*.yaml): check them strictly, pick one for a machine, print one for a shell.

    device_profile.py list                    name and title of each
    device_profile.py show NAME               its settings, and which are estimates
    device_profile.py pick MODEL MEMORY_GIB   the name that suits a device tree's model and a memory
    device_profile.py shell NAME|- [MODEL MEMORY_GIB]   KEY=value lines for provision.sh; of the picked one, for -

Needs Python 3.10 and PyYAML, both in the installed environment. Exit codes: 0 done; 1 nothing suits; 2 a profile or
the command line is wrong; 6 PyYAML is missing.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import yaml
except ImportError:
    if "shell" not in sys.argv[1:]:  # provision.sh tries another Python, and says so itself
        print("error: PyYAML is missing: run this with the installed environment's Python", file=sys.stderr)
    sys.exit(6)

__all__ = ["DEVICES", "SETTINGS", "Profile", "ProfileError", "Setting", "load", "load_all", "main", "pick"]

DEVICES = Path(__file__).resolve().parents[1] / "devices"


class ProfileError(Exception):
    """A profile is malformed; the message names file, key, expected and got."""


@dataclass(frozen=True)
class Setting:
    """One number or word, and whether somebody measured it: ``basis`` is how it was reckoned or measured."""

    value: int | str
    estimate: bool
    basis: str


@dataclass(frozen=True)
class Profile:
    """What a kind of device gets. ``models`` are parts of a device tree's model; empty: never picked by itself."""

    name: str
    title: str
    device: str
    models: tuple[str, ...]
    min_memory_gib: float
    settings: Mapping[str, Setting]


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1 << 20


def _memory(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[1-9]\d*[MG]|[1-9]\d?%", value) is not None


def _mode(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]+", value) is not None


SETTINGS: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "max_batch": ("a whole number from 1", _count),
    "batch": ("a whole number from 1", _count),
    "jobs": ("a whole number from 1", _count),
    "workspace_mib": ("a whole number from 1", _count),
    "memory_max": ("a size such as 3G or 512M, or a part such as 75%, in quotes", _memory),
    "power_mode": ("a mode's name in nvpmodel.conf, in quotes, or keep", _mode),
}
"""Every setting that a profile has, what it must be, and the check."""

_KEYS = {"format", "name", "title", "device", "models", "min_memory_gib", "settings"}


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load(path: Path) -> Profile:
    """Read and check one profile.

    Raises:
        ProfileError: it cannot be read, or is not what this module describes.
    """
    try:
        plain = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProfileError(f"{path}: cannot be read: {error}") from error
    top = _mapping(path, "the file", plain, _KEYS)
    _expect(path, "format", top["format"], "1", top["format"] == 1)
    _expect(path, "name", top["name"], f"{path.stem!r}, the file's own name", top["name"] == path.stem)
    _expect(path, "title", top["title"], "a text", isinstance(top["title"], str) and bool(top["title"]))
    _expect(path, "device", top["device"], "cpu or tensorrt", top["device"] in ("cpu", "tensorrt"))
    models, memory = top["models"], top["min_memory_gib"]
    texts = isinstance(models, list) and all(isinstance(model, str) and model for model in models)
    _expect(path, "models", models, "a list of texts", texts)
    number = isinstance(memory, (int, float)) and not isinstance(memory, bool) and 0 <= memory < 10_000
    _expect(path, "min_memory_gib", memory, "a number of GiB", number)
    settings = _mapping(path, "settings", top["settings"], set(SETTINGS))
    return Profile(
        name=top["name"],
        title=top["title"],
        device=top["device"],
        models=tuple(models),
        min_memory_gib=float(memory),
        settings={name: _setting(path, name, settings[name]) for name in SETTINGS},
    )


def load_all(folder: Path = DEVICES) -> list[Profile]:
    """Every profile in ``folder``, by name.

    Raises:
        ProfileError: one of them is malformed, or there is none.
    """
    profiles = [load(path) for path in sorted(folder.glob("*.yaml"))]
    if not profiles:
        raise ProfileError(f"{folder}: expected profiles (*.yaml), found none")
    return profiles


def pick(profiles: list[Profile], model: str, memory_gib: float) -> Profile | None:
    """The profile for a device tree's ``model`` with the largest ``min_memory_gib`` that the machine has; else None."""
    suited = [
        profile
        for profile in profiles
        if profile.min_memory_gib <= memory_gib and any(part in model for part in profile.models)
    ]
    return max(suited, key=lambda profile: profile.min_memory_gib, default=None)


def _setting(path: Path, name: str, plain: object) -> Setting:
    expected, check = SETTINGS[name]
    where = f"settings.{name}"
    if not isinstance(plain, dict) or not isinstance(plain.get("estimate"), bool):
        raise ProfileError(f"{path}: {where}: expected value, and estimate: true or false, got {plain!r}")
    basis = "reckoned" if plain["estimate"] else "measured"
    entry = _mapping(path, where, plain, {"value", "estimate", basis})
    _expect(path, f"{where}.value", entry["value"], expected, check(entry["value"]))
    said = entry[basis]
    _expect(path, f"{where}.{basis}", said, "how, in words", isinstance(said, str) and len(said.split()) >= 2)
    return Setting(entry["value"], entry["estimate"], said)


def _mapping(path: Path, where: str, plain: object, keys: set[str]) -> dict[str, Any]:
    if not isinstance(plain, dict):
        raise ProfileError(f"{path}: {where}: expected the keys {', '.join(sorted(keys))}, got {plain!r}")
    if plain.keys() != keys:
        missing, unknown = sorted(keys - plain.keys()), sorted(map(str, plain.keys() - keys))
        raise ProfileError(f"{path}: {where}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")
    return plain


def _expect(path: Path, where: str, got: object, expected: str, right: bool) -> None:
    if not right:
        raise ProfileError(f"{path}: {where}: expected {expected}, got {got!r}")


def _describe(profile: Profile) -> str:
    lines = [f"{profile.name}: {profile.title}; device {profile.device}"]
    for name, setting in profile.settings.items():
        kind = "estimate" if setting.estimate else "measured"
        lines.append(f"  {name:<14} {setting.value:<6} {kind}: {setting.basis}")
    return "\n".join(lines)


def _shell(profile: Profile) -> str:
    """No quoting is needed: every value has passed a check that allows no blank and no shell character."""
    lines = [f"PROFILE={profile.name}", f"PROFILE_DEVICE={profile.device}"]
    lines += [f"PROFILE_{name.upper()}={setting.value}" for name, setting in profile.settings.items()]
    lines.append(f"PROFILE_ESTIMATES={sum(setting.estimate for setting in profile.settings.values())}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=Path, default=DEVICES, help="folder of the profiles")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    commands.add_parser("show").add_argument("name")
    picking, shell = commands.add_parser("pick"), commands.add_parser("shell")
    shell.add_argument("name")
    for command in (picking, shell):
        command.add_argument("model", nargs=None if command is picking else "?", default="")
        command.add_argument("memory_gib", nargs=None if command is picking else "?", default=0.0, type=float)
    given = parser.parse_args(arguments)
    try:
        profiles = load_all(given.devices)
    except ProfileError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.command == "list":
        print("\n".join(f"{profile.name:<14} {profile.title}" for profile in profiles))
        return 0
    if given.command == "pick" or given.name == "-":
        chosen = pick(profiles, given.model, given.memory_gib)
        if chosen is None:
            print(f"error: no profile suits {given.model!r} with {given.memory_gib:g} GiB", file=sys.stderr)
            return 1
    else:
        chosen = next((profile for profile in profiles if profile.name == given.name), None)
        if chosen is None:
            names = ", ".join(profile.name for profile in profiles)
            print(f"error: no profile {given.name!r}; there are {names}", file=sys.stderr)
            return 2
    print({"pick": lambda one: one.name, "show": _describe, "shell": _shell}[given.command](chosen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
