"""Runs a command as edge-reclass.service would, without systemd: bubblewrap and libseccomp, set by the unit file.

Nothing of the unit is repeated here: every directive is looked up and translated. One that this module does not know is
an error, so that none is left out unnoticed.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from appliance.unit_file import Unit, last, words

_ELSEWHERE = {
    # What starts, stops, restarts and describes it, not what it may do.
    *(
        "Type",
        "NotifyAccess",
        "WatchdogSec",
        "TimeoutStartSec",
        "TimeoutStopSec",
        "ExecStart",
        "ExecStartPre",
        "ExecStopPost",
    ),
    *("SuccessExitStatus", "Restart", "RestartSec", "RestartPreventExitStatus", "RestartSteps", "RestartMaxDelaySec"),
    *("SyslogIdentifier", "StandardInput", "StandardOutput", "StandardError"),
    *("RuntimeDirectory", "RuntimeDirectoryMode"),
    # Needs control groups, which belong to systemd: not tried here.
    *("MemoryMax", "TasksMax", "OOMPolicy", "IPAddressDeny", "DevicePolicy"),
    *("OOMScoreAdjust", "LimitCORE", "Nice"),
    # bubblewrap always does it: a proc of its own process namespace, no new privileges, namespaces of its own.
    *("NoNewPrivileges", "ProtectProc", "PrivateMounts", "RemoveIPC", "KeyringMode", "ProtectControlGroups"),
    *("ProtectHostname", "ProtectKernelTunables"),
    # Without capabilities, and with the system calls below, they add nothing that could be seen here.
    *("ProtectKernelModules", "ProtectKernelLogs", "ProtectClock", "RestrictRealtime", "LockPersonality"),
    *("RestrictSUIDSGID", "SystemCallArchitectures", "SystemCallErrorNumber", "AmbientCapabilities"),
    # The number of the user is not that of the device; group: likewise.
    *("Group", "UMask"),
}
_TRANSLATED = {
    *(
        "ProtectSystem",
        "ReadWritePaths",
        "ReadOnlyPaths",
        "ProtectHome",
        "BindReadOnlyPaths",
        "BindPaths",
        "PrivateTmp",
        "PrivateNetwork",
    ),
    *("PrivateDevices", "PrivateUsers", "CapabilityBoundingSet", "Environment", "WorkingDirectory", "User"),
    *("CacheDirectory", "CacheDirectoryMode", "SystemCallFilter", "RestrictAddressFamilies", "RestrictNamespaces"),
    "MemoryDenyWriteExecute",
}


def unavailable() -> str | None:
    """Why nothing can be confined here; None where it can."""
    for program in ("bwrap", "systemd-analyze"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    tried = subprocess.run(
        ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"bubblewrap may not make namespaces here: {tried.stderr.strip()}" if tried.returncode else None


def command(
    unit: Unit, program: Sequence[str], *, outside: Sequence[Path], cache: Path, environ: Mapping[str, str]
) -> list[str]:
    """The bubblewrap command that runs ``program`` under ``unit``.

    ``outside``: what lies in /opt or /var on a device, but in /tmp or a home in a test; shown read-only.
    ``cache`` stands for /var/cache. ``environ`` is added to the unit's environment.
    """
    service = unit["Service"]
    unknown = service.keys() - _ELSEWHERE - _TRANSLATED
    if unknown:
        raise ValueError(f"the sandbox does not know {sorted(unknown)}: translate them, or say why not")

    def on(key: str) -> bool:
        return last(unit, "Service", key) in {"yes", "true", "1"}

    arguments = ["bwrap", "--die-with-parent", "--new-session", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    if last(unit, "Service", "ProtectSystem") != "strict":
        raise ValueError("expected ProtectSystem=strict")
    arguments += ["--ro-bind", "/", "/"]
    if last(unit, "Service", "ProtectHome") == "tmpfs":
        for home in ("/home", "/root", "/run/user"):
            arguments += ["--tmpfs", home] if Path(home).is_dir() else []
    if on("PrivateTmp"):
        arguments += ["--tmpfs", "/tmp", "--tmpfs", "/var/tmp"]
    for path in outside:
        arguments += ["--ro-bind", str(path), str(path)]
    for option, keys in (
        ("--ro-bind", ["BindReadOnlyPaths"]),
        ("--bind", ["BindPaths", "ReadWritePaths"]),
        ("--ro-bind", ["ReadOnlyPaths"]),
    ):
        for path in (word for key in keys for word in words(unit, "Service", key)):
            optional = "-try" if path.startswith("-") else ""
            arguments += [f"{option}{optional}", path.removeprefix("-"), path.removeprefix("-")]
    for name in words(unit, "Service", "CacheDirectory"):
        (cache / name).mkdir(exist_ok=True)
        arguments += ["--tmpfs", "/var/cache", "--bind", str(cache / name), f"/var/cache/{name}"]
    arguments += ["--dev", "/dev"] if on("PrivateDevices") else ["--dev-bind", "/dev", "/dev"]
    arguments += ["--proc", "/proc"]
    if on("PrivateNetwork"):
        arguments += ["--unshare-net"]
    if on("PrivateUsers"):
        arguments += ["--unshare-user"]
    if last(unit, "Service", "User") not in {"", "root"} and on("PrivateUsers"):
        arguments += ["--uid", "990", "--gid", "990"]
    if service.get("CapabilityBoundingSet") == []:
        arguments += ["--cap-drop", "ALL"]
    arguments += ["--clearenv", "--setenv", "PATH", "/usr/bin:/bin", "--setenv", "HOME", "/nonexistent"]
    for assignment in (*words(unit, "Service", "Environment"), *(f"{key}={value}" for key, value in environ.items())):
        key, _, value = assignment.partition("=")
        arguments += ["--setenv", key, value]
    arguments += ["--chdir", last(unit, "Service", "WorkingDirectory", "/")]
    limits = {
        "allow": sorted(system_calls(unit)),
        "families": words(unit, "Service", "RestrictAddressFamilies"),
        "no_write_execute": on("MemoryDenyWriteExecute"),
    }
    confine = Path(__file__).with_name("confine.py")
    return [*arguments, "--", sys.executable, str(confine), json.dumps(limits), *program]


def system_calls(unit: Unit) -> set[str]:
    """The names that SystemCallFilter leaves, less those that RestrictNamespaces forbids."""
    allowed: set[str] = set()
    for value in unit["Service"]["SystemCallFilter"]:
        removing = value.startswith("~")
        for name in value.removeprefix("~").split():
            names = _group(name) if name.startswith("@") else {name}
            allowed = allowed - names if removing else allowed | names
    if last(unit, "Service", "RestrictNamespaces") == "yes":
        allowed -= {"unshare", "setns"}
    # systemd allows these whatever the filter says: without them nothing could be started.
    return allowed | {"execve", "exit", "exit_group", "rt_sigreturn", "sigreturn", "brk", "arch_prctl", "getrlimit"}


@functools.cache
def _group(name: str) -> frozenset[str]:
    """What one of systemd's groups holds, asked of this machine's systemd."""
    listed = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", name], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    members = {line.strip() for line in listed if line.startswith("    ") and not line.strip().startswith("#")}
    names: set[str] = set()
    for member in members:
        names |= _group(member) if member.startswith("@") else {member}
    return frozenset(names)
