"""The one table of systems that edge-reclass is installed on: L4T releases of Jetsons, and Debian 12.

The doctor and the wheelhouses read it too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_reclass_appliance.errors import UNSUPPORTED, ApplianceError


@dataclass(frozen=True)
class Target:
    """A kind of system, for which there is one wheelhouse."""

    name: str
    system: str
    python: tuple[int, int]
    distribution: tuple[str, str]
    """``ID`` and ``VERSION_ID`` of /etc/os-release."""
    processor: str = "aarch64"
    tensorrt: str = ""
    """The release of TensorRT that comes with it, such as ``10.3``; empty where there is none."""

    @property
    def python_version(self) -> str:
        """Such as ``3.10``."""
        return ".".join(map(str, self.python))


JETPACK6 = Target("jetpack6", "JetPack 6.1 to 6.2.x, Ubuntu 22.04", (3, 10), ("ubuntu", "22.04"), tensorrt="10.3")
JETPACK7 = Target("jetpack7", "JetPack 7.2, Ubuntu 24.04", (3, 12), ("ubuntu", "24.04"), tensorrt="10.16")
DEBIAN12 = Target("debian12", "Debian 12, Raspberry Pi OS 12 (64 bit)", (3, 11), ("debian", "12"))
DEBIAN12_AMD64 = Target("debian12-amd64", "Debian 12 on a 64-bit PC", (3, 11), ("debian", "12"), processor="x86_64")
TARGETS = {target.name: target for target in (JETPACK6, JETPACK7, DEBIAN12, DEBIAN12_AMD64)}


@dataclass(frozen=True)
class Release:
    """An L4T release of a Jetson."""

    l4t: str
    jetpack: str
    target: Target | None
    """None: it is not supported."""
    large_allocations_fail: bool = False
    """Since 36.4.7 (the fix for CVE-2025-33177), large allocations of GPU memory fail where memory is in pieces:
    ``NvMapMemAllocInternalTagged: 1075072515 error 12``, although enough of it is free."""
    taken_as: str = ""
    """Of a patch release that is not in the table: the one before it."""


RELEASES = (
    Release("36.4.0", "6.1", JETPACK6),
    Release("36.4.3", "6.2", JETPACK6),
    Release("36.4.4", "6.2.1", JETPACK6),
    Release("36.4.7", "6.2.1", JETPACK6, large_allocations_fail=True),
    Release("36.5.0", "6.2.2", JETPACK6, large_allocations_fail=True),
    Release("38.2.0", "7.0", None),
    Release("38.2.1", "7.0", None),
    Release("38.4.0", "7.1", None),
    Release("39.2.0", "7.2", JETPACK7),
    Release("39.2.1", "7.2.1", JETPACK7),
)

LARGE_ALLOCATION_FAILED = "NvMapMemAllocInternalTagged"
"""In the driver's message when a large allocation failed."""

LARGE_ALLOCATION_CURE = (
    "sudo reboot   (memory is in one piece again; then run this before anything else, without a desktop)"
)

_UPGRADE = "flash JetPack 6.2 or 7.2 (https://developer.nvidia.com/embedded/jetpack)"
_TOO_OLD = (
    ("38.", "JetPack 7.0 or 7.1", "its TensorRT 10.13 was never tried", _UPGRADE),
    (
        "36.",
        "JetPack 6.0",
        "its TensorRT 8.6 cannot take these graphs",
        "upgrade to JetPack 6.2: point /etc/apt/sources.list.d/nvidia-l4t-apt-source.list to r36.4, then"
        " sudo apt-get dist-upgrade",
    ),
    *(
        (f"{major}.", "JetPack 5 or older", "its Python and TensorRT 8 are too old", _UPGRADE)
        for major in (35, 34, 32, 31, 28)
    ),
)


def known() -> str:
    """What can be installed on, in one line."""
    releases = ", ".join(f"{one.jetpack} (L4T {one.l4t})" for one in RELEASES if one.target is not None)
    return f"known: JetPack {releases}; Debian 12 or Raspberry Pi OS 12 (64 bit) without a GPU"


def release_of(l4t: str) -> Release | None:
    """The release of an L4T version such as ``36.4.3``; None where it is not known. ``36.4`` is ``36.4.0``."""
    wanted = l4t if l4t.count(".") > 1 else f"{l4t}.0"
    return next((one for one in RELEASES if one.l4t == wanted), None)


def supported_release(l4t: str) -> Release:
    """The release of an L4T version.

    A patch that is not in the table counts as the newest before it of the same minor release (36.4.5 as 36.4.4, 39.2.3
    as 39.2.1): NVIDIA keeps CUDA and TensorRT within one.

    Raises:
        ApplianceError: it is not supported, or not known (``UNSUPPORTED``).
    """
    found = release_of(l4t) or _earlier_patch(l4t)
    if found is not None and found.target is not None:
        return found
    for begin, jetpack, why, fix in _TOO_OLD:
        if l4t.startswith(begin) and (begin != "36." or l4t < "36.4"):
            raise ApplianceError(f"L4T {l4t} ({jetpack}) is not supported: {why}; {known()}", fix, UNSUPPORTED)
    raise ApplianceError(
        f"L4T {l4t} is not known to this version of edge-reclass; {known()}",
        "look for a newer edge-reclass, or flash a JetPack that is known",
        UNSUPPORTED,
    )


def _earlier_patch(l4t: str) -> Release | None:
    parts = l4t.split(".")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        return None
    minor, patch = parts[:2], int(parts[2])
    before = [one for one in RELEASES if one.l4t.split(".")[:2] == minor and int(one.l4t.split(".")[2]) <= patch]
    found = before[-1] if before else None
    return None if found is None else replace(found, l4t=l4t, taken_as=found.l4t)
