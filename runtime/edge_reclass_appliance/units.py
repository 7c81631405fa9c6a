"""The systemd units of this machine, as text. All directives exist in systemd 249 (Ubuntu 22.04).

What the service may do is one list of properties (:func:`sandbox`). The unit is made from it, and so is every trial
of a bundle (``trial.py``): what is tried is tried as it will run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edge_reclass_appliance import devices, places
from edge_reclass_appliance.limits import Limits
from edge_reclass_appliance.machine import Machine
from edge_reclass_appliance.places import Settings

SERVICE, TIMER = "edge-reclass.service", "edge-reclass.timer"
REPORT, REPORT_TIMER = "edge-reclass-report.service", "edge-reclass-report.timer"
FAILED = "edge-reclass-failed.service"
TAGS, TAGS_TIMER = "edge-reclass-tags.service", "edge-reclass-tags.timer"
POWER = "edge-reclass-power.service"
ALL = (SERVICE, TIMER, REPORT, REPORT_TIMER, FAILED, TAGS, TAGS_TIMER, POWER)
"""Every unit that a machine may have. What it has not (any more) is removed."""

_HIDDEN = ("/home", "/root", "/run/user")
"""Empty for the service but for music in it."""

Properties = list[tuple[str, str]]


@dataclass(frozen=True)
class Plan:
    """All that the units of a machine depend on."""

    root: Path
    """``/``, or a folder in tests."""
    settings: Settings
    machine: Machine
    limits: Limits


def sandbox(plan: Plan, *, writes_music: bool = False) -> Properties:
    """What the service may do: properties of [Service], in order.

    Args:
        plan: the machine.
        writes_music: whether the music may be written too, as for tags.
    """
    settings = plan.settings
    music = [quoted(folder) for folder in settings.music]
    hidden = [quoted(folder) for folder in settings.music if folder.startswith(tuple(f"{one}/" for one in _HIDDEN))]
    found: Properties = [
        ("User", settings.service_user),
        ("Group", settings.service_user),
        ("WorkingDirectory", places.STATE),
        ("UMask", "0007"),
        ("Environment", f"EDGE_RECLASS_ENGINES={places.ENGINES}"),
        ("Environment", "PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1"),
        # ONNX Runtime 1.29 and newer sends what it runs to Microsoft, unless this is set.
        ("Environment", "ORT_DISABLE_TELEMETRY=1"),
        # Where the CUDA driver keeps what it compiles.
        ("Environment", f"CUDA_CACHE_PATH={places.CACHE}/cuda"),
        ("CacheDirectory", "edge-reclass"),
        ("CacheDirectoryMode", "0750"),
        # Files: everything is read-only but the state, the cache and a /tmp of its own; homes are empty but for music.
        ("ProtectSystem", "strict"),
        ("ReadWritePaths", places.STATE),
        ("ReadOnlyPaths", f"-{places.BUNDLES} -{places.ENGINES}"),
        ("ProtectHome", "tmpfs"),
        ("PrivateTmp", "yes"),
        ("PrivateMounts", "yes"),
    ]
    # A minus: a disk that is not there keeps nothing from starting.
    found += [("BindPaths" if writes_music else "BindReadOnlyPaths", f"-{folder}") for folder in hidden]
    found += [("ReadWritePaths", f"-{folder}") for folder in music if writes_music and folder not in hidden]
    found += [
        # Network: none. AF_UNIX is how the socket is served and the watchdog is told.
        ("PrivateNetwork", "yes"),
        ("RestrictAddressFamilies", "AF_UNIX"),
        ("IPAddressDeny", "any"),
        ("DevicePolicy", "closed"),
        *_devices(plan),
        # Rights: those of the user, and no way to more.
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("RestrictSUIDSGID", "yes"),
        ("RestrictNamespaces", "yes"),
        ("RestrictRealtime", "yes"),
        ("LockPersonality", "yes"),
        ("KeyringMode", "private"),
        ("RemoveIPC", "yes"),
        # No MemoryDenyWriteExecute: libsndfile reads what is not one whole file (the start's own track, chained ogg,
        # flac behind an ID3 tag, damaged mp3) through callbacks of cffi, which makes code at run time.
        # Kernel. /proc/meminfo and /proc/device-tree are needed: no ProcSubset=pid.
        ("ProtectProc", "invisible"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectKernelLogs", "yes"),
        ("ProtectControlGroups", "yes"),
        ("ProtectClock", "yes"),
        ("ProtectHostname", "yes"),
        ("SystemCallArchitectures", "native"),
        ("SystemCallFilter", "@system-service"),
        ("SystemCallFilter", "~@privileged"),
        ("SystemCallErrorNumber", "EPERM"),
        # Limits. The system, and a login to it, come first when memory ends.
        ("MemoryMax", plan.limits.memory_max),
        ("TasksMax", "512"),
        ("LimitCORE", "0"),
        ("OOMScoreAdjust", "500"),
        ("OOMPolicy", "continue"),
        ("Nice", "5"),
    ]
    if settings.when == places.IDLE:
        found = [*found[:-1], ("Nice", "19"), ("CPUSchedulingPolicy", "idle"), ("IOSchedulingClass", "idle")]
    return found


def _devices(plan: Plan) -> Properties:
    if plan.machine.device == "cpu":
        return [("PrivateDevices", "yes"), ("PrivateUsers", "yes")]
    groups = devices.device_groups(plan.root)
    return [
        *(("DeviceAllow", line) for line in devices.device_lines(plan.root)),
        *([("SupplementaryGroups", " ".join(groups))] if groups else []),
        # The driver looks at its own user and groups: so no PrivateUsers, which was not tried with one.
    ]


def quoted(path: str) -> str:
    """A path as one word of a unit. ``places.require_plain_path`` lets nothing through that would need more.

    A colon would end the path of a bind, and begin the place where it is to be seen.
    """
    return f'"{path}"' if re.search("[ :]", path) else path


def render(plan: Plan) -> dict[str, str]:
    """File name → text of every unit that this machine gets."""
    settings = plan.settings
    found = {SERVICE: _service(plan), REPORT: _report(plan), FAILED: _failed(plan)}
    if settings.resident:
        found[REPORT_TIMER] = _timer(
            "Write the report on the music library every day", REPORT, ["OnCalendar=*-*-* 06:00:00", "Persistent=yes"]
        )
    else:
        found[TIMER] = _timer("Classify what is new in the music library", SERVICE, _times(settings.when))
    if settings.tags:
        found[TAGS] = _tags(plan)
        found[TAGS_TIMER] = _timer("Write approved genres into tracks every hour", TAGS, ["OnCalendar=hourly"])
    if settings.power_mode:
        found[POWER] = _power(plan)
    return found


def enabled(plan: Plan) -> list[str]:
    """The units that are enabled and started, of :func:`render`'s."""
    made = render(plan)
    return [
        name
        for name in made
        if name.endswith(".timer") or name == POWER or (name == SERVICE and plan.settings.resident)
    ]


def _times(when: str) -> list[str]:
    if when == places.BOOT:
        return ["OnBootSec=3min"]
    if when == places.IDLE:
        return ["OnBootSec=10min", "OnUnitInactiveSec=2h"]
    # A night that was slept through is made up for after the next start.
    return [f"OnCalendar={when}", "RandomizedDelaySec=10min", "Persistent=yes"]


def _service(plan: Plan) -> str:
    settings, resident = plan.settings, plan.settings.resident
    program = f"{settings.venv}/bin/edge-reclass"
    shared = f"--bundle {places.BUNDLES}/current --device {plan.machine.device} --workers {plan.limits.workers}"
    music = [quoted(folder) for folder in settings.music]
    if resident:
        roots = " ".join(f"--root {folder}" for folder in music)
        command = f"{program} serve --watch --socket {places.SOCKET} --state {places.LIBRARY} {roots} {shared}"
    else:
        command = f"{program} classify {' '.join(music)} --state {places.LIBRARY} {shared} --progress none"
        if plan.machine.device == "tensorrt":
            command += f" --batch {plan.limits.batch}"
    unit: Properties = [
        ("Description", "edge-reclass: the genres of the music library"),
        ("RequiresMountsFor", places.STATE),
        ("After", "local-fs.target remote-fs.target"),
        # A person who tries things starts it a few times; a program that crashes at once is left alone after half an
        # hour, and OnFailure tells.
        ("StartLimitIntervalSec", "1h"),
        ("StartLimitBurst", "30"),
        ("OnFailure", FAILED),
    ]
    service: Properties = [
        # READY=1 when everything is open; WATCHDOG=1 while it lives. A track that hangs costs itself: workers have a
        # limit of their own. A run that finds nothing new ends without READY=1.
        ("Type", "notify" if resident else "exec"),
        ("NotifyAccess", "main"),
        ("TimeoutStartSec", "15min"),
        ("TimeoutStopSec", "30s"),
        ("ExecStart", command),
        ("StandardInput", "null"),
        ("SyslogIdentifier", "edge-reclass"),
        ("Restart", "on-failure"),
        ("RestartSec", "1min"),
        # 2 and 4: wrong usage, an invalid bundle or engine: trying again changes nothing.
        ("RestartPreventExitStatus", "2 4"),
    ]
    if resident:
        service += [
            ("WatchdogSec", "5min"),
            ("SuccessExitStatus", "143"),
            # The socket's folder: who is in the service's group may connect.
            ("RuntimeDirectory", "edge-reclass"),
            ("RuntimeDirectoryMode", "0755"),
        ]
        install: Properties = [("WantedBy", "multi-user.target")]
    else:
        unit.append(("OnSuccess", REPORT))
        # The watchdog is told after each track: a worker has 10 minutes for one at most, and the encoders come on top.
        # 3: some tracks failed, each with its reason.
        service += [("WatchdogSec", "30min"), ("SuccessExitStatus", "3 143")]
        # Verdicts are in the state. What the program says goes to the journal: standard error would follow to null.
        service += [("StandardOutput", "null"), ("StandardError", "journal")]
        install = []
    return _text(Unit=unit, Service=[*service, *sandbox(plan)], Install=install)


def _report(plan: Plan) -> str:
    return _text(
        Unit=[("Description", "Write the report on the music library")],
        Service=[
            ("Type", "oneshot"),
            ("TimeoutStartSec", "30min"),
            ("ExecStart", f"{plan.settings.tool} report"),
            ("SyslogIdentifier", "edge-reclass"),
            *sandbox(plan),
        ],
    )


def _failed(plan: Plan) -> str:
    """The owner's hook may send a mail: it has the network, and the rights of the service's user."""
    sorry = "edge-reclass failed, and no report could be made: journalctl -u edge-reclass"
    told = f'{{ {plan.settings.tool} report --failed || echo "{sorry}"; }}'
    hook = f"{places.HOOK} {places.REPORTS}/latest.txt"
    return _text(
        Unit=[("Description", "Tell the owner that edge-reclass failed")],
        Service=[
            ("Type", "oneshot"),
            ("TimeoutStartSec", "10min"),
            # The hook reads the report from its standard input: on a full disk there is no new file.
            (
                "ExecStart",
                f"-/bin/sh -c '{told} | {{ if [ -x {places.HOOK} ]; then exec {hook}; else exec cat; fi; }}'",
            ),
            ("SyslogIdentifier", "edge-reclass"),
            ("User", plan.settings.service_user),
            ("WorkingDirectory", places.STATE),
            ("UMask", "0007"),
            ("NoNewPrivileges", "yes"),
            ("CapabilityBoundingSet", ""),
            ("ProtectSystem", "strict"),
            ("ReadWritePaths", places.STATE),
            ("ReadOnlyPaths", f"-{places.BUNDLES} -{places.ENGINES}"),
            ("ProtectHome", "tmpfs"),
            ("PrivateTmp", "yes"),
            ("PrivateDevices", "yes"),
            ("ProtectKernelTunables", "yes"),
            ("ProtectKernelModules", "yes"),
            ("ProtectControlGroups", "yes"),
            ("RestrictSUIDSGID", "yes"),
            ("RestrictNamespaces", "yes"),
            ("LockPersonality", "yes"),
            ("SystemCallArchitectures", "native"),
            ("SystemCallFilter", "@system-service"),
        ],
    )


def _tags(plan: Plan) -> str:
    command = f"{plan.settings.venv}/bin/edge-reclass tag {places.LIBRARY} --apply-approved"
    return _text(
        Unit=[
            ("Description", "Write approved genres into tracks"),
            ("After", SERVICE),
            ("OnFailure", FAILED),
        ],
        Service=[
            ("Type", "oneshot"),
            ("TimeoutStartSec", "infinity"),
            ("ExecStart", command),
            ("SuccessExitStatus", "3"),
            ("SyslogIdentifier", "edge-reclass-tags"),
            *sandbox(plan, writes_music=True),
        ],
    )


def _power(plan: Plan) -> str:
    return _text(
        Unit=[
            ("Description", f"Set the power mode {plan.settings.power_mode}"),
            ("After", "nvpmodel.service"),
            ("Before", SERVICE),
        ],
        Service=[
            ("Type", "oneshot"),
            ("RemainAfterExit", "yes"),
            ("TimeoutStartSec", "2min"),
            ("ExecStart", f"{plan.settings.tool} power {plan.settings.power_mode}"),
            ("StandardInput", "null"),
        ],
        Install=[("WantedBy", "multi-user.target")],
    )


def _timer(description: str, unit: str, times: list[str]) -> str:
    pairs = [tuple(line.split("=", 1)) for line in times]
    return _text(
        Unit=[("Description", description)],
        Timer=[*((key, value) for key, value in pairs), ("Unit", unit)],
        Install=[("WantedBy", "timers.target")],
    )


def _text(**sections: Properties) -> str:
    lines = ["# Written by edge-reclass-appliance provision, again and again: your own changes belong into a drop-in"]
    lines[0] += " (systemctl edit)."
    for name, properties in sections.items():
        if properties:
            lines += ["", f"[{name}]", *(f"{key}={value}" for key, value in properties)]
    return "\n".join(lines) + "\n"
