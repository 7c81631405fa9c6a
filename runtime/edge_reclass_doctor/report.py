"""What ``edge-reclass doctor`` finds out: the record behind its page and its JSON (docs/doctor.md)."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from edge_reclass.backends import DEVICES
from edge_reclass_doctor.machine import Machine

FORMAT: Literal[2] = 2

ALL_DEVICES = tuple(DEVICES)
"""In the order in which ``auto`` tries them."""


class Problem(Struct, frozen=True):
    """Something to fix. A ``problem`` keeps the wanted device from running the bundle, or is damage.

    ``code`` stays the same between versions; ``fix`` is the command that fixes it, or what to do where none can;
    ``blocks`` are the devices that cannot run the bundle because of it.
    """

    code: str
    message: str
    fix: str
    blocks: tuple[str, ...] = ()
    severity: Literal["problem", "advice"] = "advice"

    @property
    def exit_code(self) -> int:
        """Of a run on a device that it blocks: 4 for bundle and engines, 5 for the device."""
        return 4 if self.code.startswith(("bundle-", "engine")) else 5


class BundleState(Struct, frozen=True):
    """``faults`` are empty where the manifest is valid and every file has its size and hash."""

    path: str
    name: str | None
    digest: str | None
    files: int
    bytes: int
    policy: str | None
    stages: tuple[str, ...]
    """Of the default policy, in running order."""
    untrained: tuple[str, ...]
    faults: tuple[str, ...]


class EngineRow(Struct, frozen=True):
    """An ``edge_reclass.engines.EngineState``, as the page and the JSON have it.

    ``other``: an intact engine that cannot be compared with this machine, which has no GPU or no TensorRT.
    ``verified`` is None where there is no engine file.
    """

    stage: str
    precision: str
    status: Literal["missing", "stale", "damaged", "rejected", "present", "other"]
    reason: str
    used: bool
    """Whether the runtime would take it."""
    folder: str | None = None
    target: str | None = None
    bytes: int | None = None
    max_batch: int | None = None
    verified: bool | None = None


class EnginesState(Struct, frozen=True):
    """``target`` is what engines are looked for here; None, with the ``reason``, where none could be used.

    A folder that is not there yet is ``readable``, and ``writable`` where it could be made.
    """

    folder: str
    readable: bool
    writable: bool
    target: str | None
    reason: str | None
    engines: tuple[EngineRow, ...]
    on_cpu: tuple[str, ...]
    """Stages that run on the CPU because all of their engines were rejected."""
    unreadable: tuple[str, ...]
    """Records that are no record of an engine, or the folder itself."""
    onnx_bytes: int
    """Size of the ONNX files that would be built from, for the space that a build takes."""


class DeviceState(Struct, frozen=True):
    """Whether a device could run the bundle's default policy, by all that can be seen without opening it.

    ``exit_code`` is what doctor ends with where this device is asked for: 0, 4 (bundle or engine), 5 (device).
    """

    device: str
    usable: bool
    exit_code: int
    blockers: tuple[str, ...]
    notes: tuple[str, ...]


class Enforced(Struct, frozen=True):
    """A part of the service's sandbox. ``holds`` is None where it cannot be seen."""

    name: str
    holds: bool | None
    detail: str


class ServiceState(Struct, frozen=True):
    """The service as systemd sees it. ``result`` is systemd's word for how the last run ended.

    ``next_start`` is None for a service that runs all the time.
    """

    unit: str
    resident: bool
    active: str
    result: str
    exit_code: int | None
    started: str | None
    ended: str | None
    restarts: int
    status: str | None
    next_start: str | None


class LibraryState(Struct, frozen=True):
    """What the service's state file counts; ``reason`` says why nothing is known."""

    path: str
    tracks: int = 0
    absent: int = 0
    unclassified: int = 0
    corrected: int = 0
    statuses: dict[str, int] = {}
    genres: dict[str, int] = {}
    reason: str | None = None


class MusicState(Struct, frozen=True):
    """A folder of the library, and whether the service's user may read it."""

    folder: str
    readable: bool
    reason: str | None = None


class ApplianceState(Struct, frozen=True):
    """The machine as ``edge-reclass-appliance provision`` left it."""

    user: str
    program: str | None
    bundle: str | None
    previous: str | None
    when: str
    service: ServiceState | None
    """None where systemd does not answer."""
    library: LibraryState
    music: tuple[MusicState, ...]
    sandbox: tuple[Enforced, ...]


class Report(Struct, frozen=True):
    """Everything. ``chosen`` is the device that would be used for ``wanted``; None where none can."""

    format: Literal[2]
    version: str
    wanted: str
    chosen: str | None
    exit_code: int
    machine: Machine
    bundle: BundleState
    engines: EnginesState
    devices: tuple[DeviceState, ...]
    appliance: ApplianceState | None
    """None where the machine was never provisioned."""
    problems: tuple[Problem, ...]

    def to_json(self) -> str:
        """The report for programs; docs/doctor.md lists the fields."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()
