"""Where and with what a run ran, for its record. Read-only; absent values are None."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from edge_reclass import __version__
from edge_reclass_bench.record import Environment, Machine
from edge_reclass_doctor import machine

_LIBRARIES = ("numpy", "scipy", "soundfile", "soxr", "msgspec", "onnxruntime", "onnxruntime-gpu", "tensorrt", "av")
_PEERS = ("librosa", "torch", "transformers", "numba")
_PACKAGES = ("edge_reclass", "edge_reclass_bench")
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES",
    "CUDA_VISIBLE_DEVICES",
)
_INSTRUCTIONS = (
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "amx_int8",
    "neon",
    "asimd",
    "asimdhp",
    "asimddp",
    "sve",
)
"""As /proc/cpuinfo spells them; those by which numpy, OpenBLAS and ONNX Runtime choose their kernels."""


def probe(paths: Sequence[Path] = ()) -> dict[str, Any]:
    """``machine.probe()`` as JSON would give it back."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(machine.probe(paths=paths)))
    return plain


def identity(probed: Mapping[str, Any], root: Path = Path("/")) -> Machine:
    """What two records must share for their times to be comparable.

    Args:
        probed: what :func:`probe` gave.
        root: of the file system, for tests.
    """
    cpu, gpu, jetson = probed["cpu"], probed["gpu"], probed["jetson"]
    mode = None if jetson is None else jetson["power_mode"]
    governors = sorted({policy["governor"] for policy in cpu["policies"] if policy["governor"]})
    return Machine(
        cpu=_processor(root) or cpu["model"] or cpu["architecture"],
        instructions=_instructions(root),
        caches=_caches(root),
        cores=cpu["cores_usable"],
        kernel=probed["os"]["kernel"],
        board=None if jetson is None else jetson["model"],
        gpu=None if gpu is None else f"{gpu['name']}, SM {gpu['sm']}",
        driver=None if gpu is None else str(gpu["driver"]),
        cuda=probed["cuda"]["toolkit"],
        tensorrt=None
        if probed["tensorrt"] is None
        else f"{probed['tensorrt']['flavour']} {probed['tensorrt']['version']}",
        power_mode=mode["name"] if mode is not None else ", ".join(governors) or None,
        clocks=_clocks(cpu["policies"], () if jetson is None else jetson["gpu_clocks"]),
    )


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's lines."""
    try:
        text = (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _processor(root: Path) -> str | None:
    found = _cpuinfo(root)
    if "vendor_id" in found:  # x86
        names = ("vendor_id", "cpu family", "model", "stepping")
    else:  # Arm
        names = ("CPU implementer", "CPU part", "CPU variant", "CPU revision")
    if names[0] not in found:
        return None
    name = found.get("model name", "")
    numbers = " ".join(f"{key.removeprefix('cpu ').removeprefix('CPU ')} {found.get(key, '?')}" for key in names[1:])
    return f"{name or found[names[0]]} ({found[names[0]]} {numbers})"


def _instructions(root: Path) -> list[str]:
    found = _cpuinfo(root)
    flags = (found.get("flags") or found.get("Features") or "").split()
    return [name for name in _INSTRUCTIONS if name in flags]


def _caches(root: Path) -> list[str]:
    sizes = []
    for folder in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        sizes.append(f"L{level}{'' if kind == 'Unified' else kind[0].lower()} {size}")
    return sizes


def _clocks(policies: Sequence[Mapping[str, Any]], gpus: Sequence[Mapping[str, Any]]) -> str | None:
    """The limits of the processor's clocks, and behind them of a board's GPU; None where nothing can be read."""
    found = []
    for name, ranges in (("", policies), ("GPU ", gpus)):
        limits = [(r["min_mhz"], r["max_mhz"]) for r in ranges if r.get("min_mhz") and r.get("max_mhz")]
        if limits:
            low, high = min(low for low, _ in limits), max(high for _, high in limits)
            found.append(f"{name}locked at {high:.0f} MHz" if low == high else f"{name}{low:.0f} to {high:.0f} MHz")
    return ", ".join(found) or None


def load_average() -> list[float] | None:
    """Load over 1, 5 and 15 minutes; None where the system has none."""
    try:
        return list(os.getloadavg())
    except (OSError, AttributeError):
        return None


def libraries() -> dict[str, str]:
    """Versions of what is installed of what is measured and compared with."""
    found = {}
    for name in (*_LIBRARIES, *_PEERS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def code_sha256(packages: Sequence[str] = _PACKAGES) -> str:
    """sha256 over the names and contents of all modules of ``packages``, as they are imported here."""
    total = hashlib.sha256()
    for name, path in sorted(_modules(packages)):
        total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _modules(packages: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for package in packages:
        spec = find_spec(package)
        for folder in () if spec is None else spec.submodule_search_locations or ():
            for path in Path(folder).rglob("*.py"):
                yield f"{package}/{path.relative_to(folder).as_posix()}", path


@dataclass(frozen=True)
class Beginning:
    """The machine as it was before a run."""

    probe: dict[str, Any]
    load: list[float] | None
    paths: Sequence[Path]


def beginning(paths: Sequence[Path] = ()) -> Beginning:
    """Look at the machine; ``paths`` are folders whose disks are of interest."""
    return Beginning(probe(paths), load_average(), paths)


def _without_folders(value: Any) -> Any:
    """Records are passed on, and where a person's folders lie is nobody's business: of a path, its last name."""
    if isinstance(value, dict):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    return re.sub(r"(^|=)/(?:[^/]*/)*", r"\1", value) if isinstance(value, str) else value


def environment(before: Beginning, command: Sequence[str] | None = None) -> dict[str, Any]:
    """The :class:`Environment` at the end of a run, as plain values."""
    found = Environment(
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        command=list(sys.argv if command is None else command),
        version=__version__,
        code_sha256=code_sha256(),
        python=platform.python_version(),
        libraries=libraries(),
        thread_variables={name: os.environ[name] for name in _THREADS if name in os.environ},
        machine_before=before.probe,
        machine_after=probe(before.paths),
        load_before=before.load,
        load_after=load_average(),
    )
    plain: dict[str, Any] = _without_folders(msgspec.to_builtins(found))
    return plain
