"""What a wheelhouse holds for each system of edge_reclass_appliance's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_reclass_appliance import releases

if TYPE_CHECKING:
    from packaging.tags import Tag

# PEP 600's first glibc, and its older name. No aarch64 wheel was ever built for less; an x86_64 one is too old for us.
OLDEST_GLIBC = 17
LEGACY = "manylinux2014"


@dataclass(frozen=True)
class Target:
    """One system, and what is installed there."""

    of: releases.Target
    glibc: tuple[int, int]
    extras: tuple[str, ...]
    bounds: tuple[str, ...] = ()
    """Requirements on top of pyproject.toml's."""
    versions_of: str | None = None
    """The target whose locked versions hold here too."""

    @property
    def name(self) -> str:
        """Such as ``jetpack6``."""
        return self.of.name

    @property
    def system(self) -> str:
        """In words."""
        return self.of.system

    @property
    def python(self) -> tuple[int, int]:
        """Such as ``(3, 10)``."""
        return self.of.python

    @property
    def machine(self) -> str:
        """As Python names the processor."""
        return self.of.processor

    @property
    def python_version(self) -> str:
        """Such as ``3.10``."""
        return self.of.python_version

    @property
    def glibc_version(self) -> str:
        """Such as ``2.35``."""
        return ".".join(map(str, self.glibc))

    @property
    def abi(self) -> str:
        """CPython's tag, such as ``cp310``."""
        return "cp{}{}".format(*self.python)

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platform tags that run there, the newest C library first."""
        major, minor = self.glibc
        names = [f"manylinux_{major}_{step}_{self.machine}" for step in range(minor, OLDEST_GLIBC - 1, -1)]
        return (*names, f"{LEGACY}_{self.machine}", f"linux_{self.machine}")

    def tags(self) -> frozenset[Tag]:
        """Every wheel tag that installs there."""
        from packaging.tags import compatible_tags, cpython_tags

        return frozenset(
            (
                *cpython_tags(self.python, [self.abi], self.platforms),
                *compatible_tags(self.python, f"cp{self.abi[2:]}", self.platforms),
            )
        )

    def markers(self) -> dict[str, str]:
        """PEP 508's environment there; the micro version and the kernel's are not known and no wheel asks for them."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python_version}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python_version}.0",
            "python_version": self.python_version,
            "sys_platform": "linux",
            "extra": "",
        }

    def pip_options(self) -> list[str]:
        """Options that make pip take wheels for this target, wherever pip itself runs."""
        options = ["--implementation", "cp", "--python-version", self.python_version, "--abi", self.abi]
        for platform in self.platforms:
            options += ["--platform", platform]
        return options

    def uv_options(self) -> list[str]:
        """Options that make uv resolve pyproject.toml for this target."""
        options = ["--python-version", self.python_version]
        options += ["--python-platform", f"{self.machine}-manylinux_{self.glibc[0]}_{self.glibc[1]}"]
        for extra in self.extras:
            options += ["--extra", extra]
        return options


# Made in this order: a target follows the one whose versions it takes.
TARGETS = {
    target.name: target
    for target in (
        Target(
            releases.JETPACK6,
            glibc=(2, 35),
            extras=("cpu", "codecs", "tags", "watch", "service", "tensorrt"),
            # JetPack 6 has CUDA 12.6. cuda-bindings follow CUDA's numbers; 12.6 has no wheels.
            bounds=("cuda-bindings<13",),
        ),
        Target(
            releases.JETPACK7,
            glibc=(2, 39),
            extras=("cpu", "codecs", "tags", "watch", "service", "tensorrt"),
            # JetPack 7.2 has CUDA 13.2: no bindings that are newer than the driver.
            bounds=("cuda-bindings>=13,<13.3",),
        ),
        *(
            Target(
                debian,
                glibc=(2, 36),
                extras=("cpu", "codecs", "tags", "watch", "service"),
                versions_of="jetpack6",
            )
            for debian in (releases.DEBIAN12, releases.DEBIAN12_AMD64)
        ),
    )
}
