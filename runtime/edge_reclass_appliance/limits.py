"""What a machine can bear, reckoned from its memory and cores. Measured on none of them.

| machine | memory | largest batch | workers |
|---|---:|---:|---:|
| Jetson Orin Nano 4 GB | 3.4 GiB | 3 | 3 |
| Jetson Orin Nano 8 GB | 7.4 GiB | 6 | 3 |
| Jetson Orin NX 16 GB | 15.3 GiB | 12 | 4 |
| Jetson AGX Orin 32 GB | 30 GiB | 24 | 4 |
| Jetson AGX Orin 64 GB | 61 GiB | 48 | 6 |
| Jetson Thor T4000 | 61 GiB | 48 | 6 |
| Jetson Thor T5000 | 123 GiB | 48 | 7 |
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_reclass_appliance.machine import Machine

_WINDOWS = 6
"""Of a track of 30 s, in windows of 5 s."""
_SMALL_GIB = 6.0
_MOST_TRACKS = 8


@dataclass(frozen=True)
class Limits:
    """What the service and the builder of engines may take."""

    batch: int
    """Most windows that an encoder takes at once."""
    workers: int
    """Processes that decode."""
    workspace_mib: int
    """TensorRT's scratch memory while it builds."""
    memory_max: str
    """The service's memory, as systemd writes it."""
    note: str = ""

    def __str__(self) -> str:
        return f"engines up to batch {self.batch}, {self.workers} workers, memory {self.memory_max}"


def limits(machine: Machine) -> Limits:
    """The limits of a machine.

    The largest encoder that was reckoned with (MERT-330M, FP16) takes 1.1 GB and 0.2 GB per window: 2.3 GB for a whole
    track, so one track for every 8 GB, and half a track's windows below 6 GiB. Half of the cores decode; the rest feed
    the GPU. The builder gets an eighth of the memory, and a sixteenth where the driver fails at large allocations.
    """
    gib = machine.memory_gib
    tracks = min(_MOST_TRACKS, max(1, int(gib / 8 + 0.5)))
    jetson = machine.release is not None
    batch, note = _WINDOWS * tracks, ""
    if jetson and 0 < gib < _SMALL_GIB:
        batch = _WINDOWS // 2
        note = (
            f"{gib:.1f} GiB are shared by the system, the GPU and edge-reclass: a bundle with an encoder of 300 million"
            " parameters does not fit; without a desktop there is about 1 GiB more"
            " (sudo systemctl set-default multi-user.target)"
        )
    share = 64 if machine.release is not None and machine.release.large_allocations_fail else 128
    return Limits(
        batch=batch,
        workers=max(1, machine.cores // 2 if jetson or machine.cores > 3 else machine.cores),
        workspace_mib=max(256, int(gib * share)),
        memory_max="40%" if jetson else "75%",  # a Jetson's GPU takes of the same memory, uncounted
        note=note,
    )
