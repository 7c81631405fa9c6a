"""What machine this is. Reads only."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edge_reclass_appliance import files
from edge_reclass_appliance.errors import UNSUPPORTED, ApplianceError
from edge_reclass_appliance.releases import DEBIAN12, DEBIAN12_AMD64, Release, Target, known, supported_release

_KIB_PER_GIB = 1 << 20


@dataclass(frozen=True)
class Machine:
    """A machine that edge-reclass can be installed on."""

    target: Target
    release: Release | None
    """None: no Jetson."""
    processor: str
    model: str
    system: str
    memory_gib: float
    cores: int
    tensorrt: str
    """Version of TensorRT's Python bindings, such as ``10.3.0``; empty where they are not installed."""

    @property
    def device(self) -> str:
        """What encoders run on: ``tensorrt`` or ``cpu``."""
        return "cpu" if self.release is None else "tensorrt"

    @property
    def l4t(self) -> str:
        """The L4T release; empty where this is no Jetson."""
        return "" if self.release is None else self.release.l4t

    def __str__(self) -> str:
        if self.release is None:
            what = f"{self.model or self.processor}; {self.system}, no Jetson, so no GPU"
        else:
            what = f"{self.model or 'unknown Jetson'}; JetPack {self.release.jetpack} (L4T {self.l4t})"
            what += f", TensorRT {self.tensorrt or 'missing'}"
        return f"{what}; {self.memory_gib:.1f} GiB; {self.cores} cores; target {self.target.name}"


def detect(root: Path) -> Machine:
    """The machine whose files lie under ``root`` (``/``, or a folder in tests).

    Raises:
        ApplianceError: it is none that edge-reclass can be installed on (``UNSUPPORTED``).
    """
    l4t = read_l4t(root)
    release = supported_release(l4t) if l4t else None
    os_release = read_os_release(root)
    distribution = os_release.get("ID", "unknown"), os_release.get("VERSION_ID", "")
    processor = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=False).stdout.strip()
    target = DEBIAN12_AMD64 if processor == DEBIAN12_AMD64.processor else DEBIAN12
    if release is not None and release.target is not None:
        target = release.target
    if distribution != target.distribution:
        raise _other_system(release, distribution, target)
    if processor != target.processor:
        raise ApplianceError(
            f"{target.system} on {processor} is not supported: expected {target.processor}"
            " (a Raspberry Pi needs the 64-bit system)",
            "install the 64-bit system",
            UNSUPPORTED,
        )
    return Machine(
        target=target,
        release=release,
        processor=processor,
        model=files.read(root / "proc/device-tree/model").strip("\0\n "),
        system=os_release.get("PRETTY_NAME", " ".join(distribution)),
        memory_gib=memory_gib(root),
        cores=max(1, len(re.findall(r"^processor\s*:", files.read(root / "proc/cpuinfo"), re.MULTILINE))),
        tensorrt=_short(package_version(root, "python3-libnvinfer")),
    )


def _other_system(release: Release | None, distribution: tuple[str, str], target: Target) -> ApplianceError:
    found = " ".join(distribution).strip()
    if release is None:
        return ApplianceError(
            f"this is no Jetson, and '{found}' is not supported; {known()}",
            "elsewhere, install with pip: see docs/install.md",
            UNSUPPORTED,
        )
    return ApplianceError(
        f"JetPack {release.jetpack} (L4T {release.l4t}) comes with Ubuntu {target.distribution[1]}, but /etc/os-release"
        f" says '{found}'; {known()}",
        "flash JetPack again; the programs of another release do not fit its kernel",
        UNSUPPORTED,
    )


def read_l4t(root: Path) -> str:
    """The L4T release, such as ``36.4.3``, of its file, else of its package; empty where this is no Jetson.

    Raises:
        ApplianceError: the file is there and says something else (``UNSUPPORTED``).
    """
    file = root / "etc/nv_tegra_release"
    text = files.read(file)
    if not text:
        return package_version(root, "nvidia-l4t-core").split("-")[0]
    first = text.splitlines()[0]
    found = re.search(r"R(\d+).*REVISION: *(\d+(?:\.\d+)*)", first)
    if found is None:
        raise ApplianceError(
            f"{file}: expected '# R36 (release), REVISION: 4.3, …', got {first!r}",
            "restore the file: sudo apt-get install --reinstall nvidia-l4t-core",
            UNSUPPORTED,
        )
    return f"{found[1]}.{found[2]}"


def package_version(root: Path, name: str) -> str:
    """The version of an installed Debian package; empty where it is not installed."""
    for paragraph in files.read(root / "var/lib/dpkg/status").split("\n\n"):
        fields = dict(re.findall(r"^(\w+): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Package") == name and fields.get("Status", "").endswith(" installed"):
            return str(fields.get("Version", ""))
    return ""


def read_os_release(root: Path) -> dict[str, str]:
    """The lines of /etc/os-release."""
    lines = re.findall(r"^(\w+)=(.*)$", files.read(root / "etc/os-release"), re.MULTILINE)
    return {key: value.strip().strip("\"'") for key, value in lines}


def memory_gib(root: Path) -> float:
    """All memory, in GiB; 0 where it cannot be read."""
    found = re.search(r"^MemTotal: *(\d+) kB", files.read(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) / _KIB_PER_GIB if found else 0.0


def require_tensorrt(machine: Machine) -> str:
    """What there is to say of this Jetson's TensorRT; empty where it is the expected one.

    Raises:
        ApplianceError: it is missing (``UNSUPPORTED``).
    """
    if machine.release is None:
        return ""
    if not machine.tensorrt:
        raise ApplianceError(
            "TensorRT's Python bindings are missing: the package python3-libnvinfer is not installed. A Jetson that was"
            " flashed without JetPack's components has no TensorRT; PyPI has none for it either",
            "sudo apt-get install nvidia-tensorrt python3-libnvinfer   (needs NVIDIA's apt server; without a network,"
            " flash with SDK Manager and select the Jetson Runtime Components)",
            UNSUPPORTED,
        )
    if machine.tensorrt.startswith(f"{machine.target.tensorrt}."):
        return ""
    return (
        f"TensorRT {machine.tensorrt} instead of {machine.target.tensorrt}, which JetPack {machine.release.jetpack}"
        " comes with: never tried; every engine is verified before it counts"
    )


def find_python(target: Target) -> str:
    """The command of the target's Python.

    Raises:
        ApplianceError: there is none of that version (``UNSUPPORTED``).
    """
    for name in (f"python{target.python_version}", "python3"):
        command = shutil.which(name)
        if command is None:
            continue
        command = str(Path(command).absolute())  # it is called from another folder
        asked = [command, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == target.python_version:
            return command
    raise ApplianceError(
        f"Python {target.python_version}, which {target.system} comes with, was not found",
        f"sudo apt-get install python{target.python_version}",
        UNSUPPORTED,
    )


def _short(version: str) -> str:
    found = re.match(r"\d+\.\d+\.\d+", version)
    return found[0] if found else ""
