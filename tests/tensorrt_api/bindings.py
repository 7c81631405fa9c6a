"""TensorRT's real Python bindings without TensorRT: a wheel from PyPI, and libraries whose functions give null.

``python tests/tensorrt_api/bindings.py FOLDER`` fetches all versions below FOLDER and prints how to import each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


class Unavailable(Exception):
    """Why the bindings cannot be had here: no PyPI, no wheel for this Python, no compiler."""


@dataclass(frozen=True)
class Bindings:
    """One version: the wheel, the module in it, and the libraries that the module is linked with."""

    requirement: str
    module: str
    libraries: tuple[str, ...]

    @property
    def version(self) -> str:
        return self.requirement.partition("==")[2]


def _trt(requirement: str, major: int) -> Bindings:
    names = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
    return Bindings(requirement, "tensorrt_bindings", tuple(f"{name}.so.{major}" for name in names))


OLDEST = _trt("tensorrt-cu12-bindings==10.3.0", 10)
NEWEST = _trt("tensorrt-cu13-bindings==11.4.0.106", 11)
RTX = Bindings(
    "tensorrt-rtx-cu13-bindings==1.7.1.116",
    "tensorrt_rtx_bindings",
    ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"),
)
ALL = (OLDEST, NEWEST, RTX)

CUDA_BINDINGS = ("cuda-bindings==12.8.0", "cuda-bindings==13.5.0")
"""The oldest on PyPI (12.6 and 12.7 are not to be had) and the newest that was looked at."""

# C symbols that the bindings want; each becomes a function that gives null.
_PREFIXES = ("create", "get", "init", "nv")


def fetch(bindings: Bindings, folder: Path) -> Path:
    """Unpack the wheel into ``folder`` (once) and compile the libraries beside it; gives the folder to import from.

    Raises:
        Unavailable: with the reason.
    """
    ready = fetch_wheel(bindings.requirement, folder, "--no-deps")
    done = ready / "stub" / "done"
    if done.exists():
        return ready
    native = next((ready / bindings.module).glob("tensorrt*.so"))
    symbols = _run(["nm", "-D", "--undefined-only", str(native)], "nm").split()
    wanted = sorted({s.partition("@")[0] for s in symbols if s.startswith(_PREFIXES) and _is_tensorrt(s)})
    stub = ready / "stub"
    stub.mkdir(exist_ok=True)
    (stub / "null.c").write_text("".join(f"void* {name}(void) {{ return 0; }}\n" for name in wanted), encoding="ascii")
    for library in bindings.libraries:
        target = str(stub / library)
        _run(["gcc", "-shared", "-fPIC", "-w", "-o", target, str(stub / "null.c"), f"-Wl,-soname,{library}"], "gcc")
    done.touch()
    return ready


def fetch_wheel(requirement: str, folder: Path, *options: str) -> Path:
    """Unpack a wheel and (without ``--no-deps``) what it needs into ``folder`` (once); gives the folder to import from.

    Raises:
        Unavailable: with the reason.
    """
    ready = folder / f"{requirement.replace('==', '-')}-python{sys.version_info[0]}.{sys.version_info[1]}"
    if not (ready / "done").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*command, *options, "--only-binary=:all:", "--upgrade", "--target", str(ready), requirement], "pip")
        (ready / "done").touch()
    return ready


def _is_tensorrt(symbol: str) -> bool:
    return any(word in symbol for word in ("Infer", "NvOnnx", "PluginRegistry"))


def _run(command: list[str], what: str) -> str:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{what}: {error}") from error
    if ended.returncode != 0:
        lines = [line for line in ended.stderr.splitlines() if line and not line.startswith("WARNING")]
        raise Unavailable(f"{what}: {lines[-1] if lines else ended.returncode}")
    return ended.stdout


def run_python(folder: Path, code: str, *arguments: str) -> str:
    """What ``code`` prints in a process that can import what was unpacked into ``folder``, and what this one can."""
    path = os.pathsep.join([str(folder), *(entry for entry in sys.path if entry)])
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"LD_LIBRARY_PATH": str(folder / "stub"), "PYTHONPATH": path},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


if __name__ == "__main__":
    for each in ALL:
        where = fetch(each, Path(sys.argv[1]))
        print(f"LD_LIBRARY_PATH={where / 'stub'} PYTHONPATH={where} python -c 'import {each.module}'")
